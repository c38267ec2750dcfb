"""The table of parameters that engines are tried with, and answers that it made necessary."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet_runtime.guard import ALLOWED_FIELDS, check_fields
from llmfleet_runtime.media import MediaPolicy
from tests.engine.parameters.asking import stream_status
from tests.engine.parameters.fields import FIELDS
from tests.engine.parameters.requests import (
    Request,
    all_pairs,
    alone,
    covering_rows,
    factors,
    in_pairs,
)
from tests.unit.runtime.guarded_app import GuardedApp, RequestFailed


def test_table_when_compared_with_the_guard_then_every_allowed_field_has_values() -> None:
    assert {operation: set(fields) for operation, fields in FIELDS.items()} == {
        operation: set(allowed) for operation, allowed in ALLOWED_FIELDS.items()
    }
    assert all(field.served for fields in FIELDS.values() for field in fields.values())


@pytest.mark.parametrize("operation", FIELDS)
def test_served_values_when_guarded_then_they_reach_the_engine(operation: str) -> None:
    for request in alone(operation):
        if request.served:
            check_fields(operation, request.body, MediaPolicy.from_entries(()))


def test_body_when_a_field_needs_others_then_they_are_there_and_what_is_tried_wins() -> None:
    request = Request(operation="chat", tried=(("top_logprobs", 5), ("max_tokens", 1)))
    assert request.body["logprobs"] is True
    assert (request.body["top_logprobs"], request.body["max_tokens"]) == (5, 1)
    refusing = Request(operation="chat", tried=(("top_logprobs", 5), ("logprobs", False)))
    assert refusing.body["logprobs"] is False


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_rows_when_any_fields_then_every_pair_is_in_one(sizes: list[int]) -> None:
    values = {f"f{i}": range(size) for i, size in enumerate(sizes)}
    pairs = all_pairs(values)
    covered = {
        frozenset(pair)
        for row in covering_rows(values, pairs)
        for pair in combinations(row.items(), 2)
    }
    assert covered == {frozenset(pair) for pair in pairs}


@pytest.mark.parametrize("operation", FIELDS)
def test_rows_when_made_of_the_table_then_far_fewer_than_pairs(operation: str) -> None:
    values = factors(operation)
    pairs = all_pairs(values)
    assert len(covering_rows(values, pairs)) < max(len(pairs) / 20, 20)
    assert len({str(request) for request in in_pairs(operation, values, pairs)}) > len(pairs) / 2


@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param('data: {"id": 1}\n\ndata: [DONE]\n\n', 200, id="chat"),
        pytest.param('data: {"error": {"code": 400}}\n\ndata: [DONE]\n\n', 400, id="refused"),
        pytest.param('data: {"error": {"code": 500}}\n\n', 500, id="failed"),
        pytest.param('event: response.completed\ndata: {"a": "b"}\n\n', 200, id="responses"),
        pytest.param(
            "event: x\ndata: {}\n\nevent: error\ndata: {}\n\n", 400, id="responses-refused"
        ),
        pytest.param('data: {"id": 1}\n\n', 0, id="without-its-end"),
        pytest.param("", 0, id="empty"),
    ],
)
def test_stream_when_it_ends_then_its_status_is_that_of_its_end(text: str, status: int) -> None:
    assert stream_status(text) == status


async def post(engine: GuardedApp, path: str, body: dict[str, object]):
    async with engine.client() as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "9" * 30])
async def test_integer_when_longer_than_64_bits_then_refused(
    engine: GuardedApp, value: object
) -> None:
    answer = await post(engine, "/v1/completions", {"prompt": "a", "top_k": value})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "top_k", "invalid_value")
    for fits in (2**63 - 1, -(2**63)):
        body: dict[str, object] = {"prompt": "a", "top_k": fits}
        assert (await post(engine, "/v1/completions", body)).status_code == 200


@pytest.mark.parametrize(("value", "status"), [(-16, 200), (16, 200), (1e308, 400), (-17, 400)])
async def test_length_penalty_when_beam_search_could_not_divide_by_it_then_refused(
    engine: GuardedApp, value: float, status: int
) -> None:
    body: dict[str, object] = {"prompt": "a", "length_penalty": value, "use_beam_search": True}
    assert (await post(engine, "/v1/completions", body)).status_code == status


async def test_responses_stream_when_engine_refuses_midway_then_ends_with_an_error_event(
    engine: GuardedApp,
) -> None:
    answer = await post(engine, "/v1/responses", {"input": "unservable", "stream": True})
    last = answer.text.removesuffix("\n\n").rsplit("\n\n", 1)[1]
    kind, _, data = last.partition("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "code": "invalid_value",
        "message": "no such token",
        "param": None,
        "sequence_number": 1,
    }


async def test_responses_stream_when_engine_fails_midway_then_broken_off(
    engine: GuardedApp,
) -> None:
    with pytest.raises(OSError, match="gone"):
        await post(engine, "/v1/responses", {"input": "x", "stream": True})


GRAMMAR = {"prompt": "a", "structured_outputs": {"regex": "a"}}


async def test_grammar_when_other_fields_leave_no_token_then_refused_and_not_the_engines_failure(
    engine: GuardedApp,
) -> None:
    body: dict[str, object] = {**GRAMMAR, "user": "fail", "bad_words": ["a"]}
    answer = await post(engine, "/v1/completions", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsatisfiable")
    assert "bad_words" in error["message"]
    with pytest.raises(RequestFailed):  # with nothing to contradict the grammar it is the engine's
        await post(engine, "/v1/completions", {**GRAMMAR, "user": "fail"})


async def test_grammar_when_a_stream_runs_out_of_tokens_then_its_error_is_a_refusal(
    engine: GuardedApp,
) -> None:
    body = {**GRAMMAR, "user": "boom", "stream": True, "stop_token_ids": [5]}
    answer = await post(engine, "/v1/completions", body)
    _, error, done = answer.text.removesuffix("\n\n").split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == 400
    assert done == "data: [DONE]"
