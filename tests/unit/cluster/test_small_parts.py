"""Backoff, errors, events, environment, CRD comparison, router answers."""

from __future__ import annotations

from typing import Any

import pytest

from llmfleet.api import CRD_SCHEMA
from llmfleet.api.crd import build_crd
from llmfleet.api.installed_crd import outdated_reasons, version_schema
from llmfleet.cluster.backoff import Backoff
from llmfleet.cluster.crd_check import prune
from llmfleet.cluster.environment import VARIABLES, read_environment
from llmfleet.cluster.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
    error_from_answer,
)
from llmfleet.cluster.routers import Router, read_report

JSON = dict[str, Any]


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (1.0, 1.0)])
def test_backoff_when_failures_follow_then_doubles_up_to_the_longest(
    draw: float, factor: float
) -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=300)
    delays = [backoff.next_seconds(draw) for _ in range(12)]
    whole = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert delays == [factor * seconds for seconds in whole]
    backoff.reset()
    assert backoff.next_seconds(1.0) == 1


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (404, "NotFound", NotFound),
        (410, "Expired", Expired),
        (401, "Unauthorized", Forbidden),
        (403, "Forbidden", Forbidden),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", Unavailable),
        (503, "", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
def test_error_when_the_server_refuses_then_typed_and_in_its_words(
    status: int, reason: str, kind: type[ApiError]
) -> None:
    body = f'{{"reason": "{reason}", "message": "because"}}'.encode()
    error = error_from_answer(status, body, "PATCH x", "7")
    assert type(error) is kind
    assert error.retry_after_seconds == 7
    assert "PATCH x" in str(error)
    assert "because" in str(error)


def test_error_when_a_webhook_could_not_be_asked_then_the_object_is_refused() -> None:
    said = b'{"reason": "InternalError", "message": "failed calling webhook \\"x\\": refused"}'
    error = error_from_answer(500, said, "PATCH x")
    assert (type(error), error.status) == (Forbidden, 500)


def test_error_when_the_body_is_not_json_then_still_typed() -> None:
    assert type(error_from_answer(502, b"<html>", "GET x", "soon")) is Unavailable


IMAGES = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "g",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "c",
    "LLMFLEET_ROUTER_IMAGE": "r",
}


def test_environment_when_complete_then_read() -> None:
    found = read_environment({**IMAGES, "LLMFLEET_WATCH_NAMESPACES": "b, a,"})
    assert found.settings.router_image == "r"
    assert found.watch_namespaces == ("a", "b")
    assert found.leader_election
    assert not found.settings.allow_file_sources
    assert (found.metrics_host, found.metrics_port) == ("0.0.0.0", 8080)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "LLMFLEET_ROUTER_IMAGE is not set"),
        ({**IMAGES, "LLMFLEET_LEADER_ELECTION": "yes"}, "LLMFLEET_LEADER_ELECTION is 'yes'"),
        ({**IMAGES, "LLMFLEET_LOG_LEVEL": "loud"}, "one of debug, info, warning, error"),
        ({**IMAGES, "LLMFLEET_METRICS_ADDRESS": "8080x"}, "must be HOST:PORT"),
    ],
)
def test_environment_when_wrong_then_the_variable_is_named(
    variables: dict[str, str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        read_environment(variables)


def test_environment_when_listed_for_help_then_every_variable_is_there() -> None:
    assert set(IMAGES) <= set(VARIABLES)


def test_crd_when_the_same_then_not_outdated() -> None:
    assert outdated_reasons(build_crd(), build_crd()) == ()


def test_crd_when_a_nested_field_is_missing_then_named() -> None:
    installed = build_crd()
    schema = version_schema(installed)["properties"]
    del schema["status"]["properties"]["conditions"]["items"]["properties"]["message"]
    del schema["spec"]["properties"]["drain"]
    assert outdated_reasons(installed, build_crd()) == ("spec.drain", "status.conditions[].message")


@pytest.mark.parametrize(("number", "outdated"), [(CRD_SCHEMA - 1, True), (CRD_SCHEMA + 1, False)])
def test_crd_when_its_annotation_differs_then_only_an_older_one_is_outdated(
    number: int, outdated: bool
) -> None:
    installed = build_crd()
    installed["metadata"]["annotations"]["llmfleet.dev/schema"] = str(number)
    assert bool(outdated_reasons(installed, build_crd())) is outdated


def test_prune_when_fields_are_unknown_then_only_they_go() -> None:
    schema: JSON = {
        "properties": {
            "list": {"items": {"properties": {"a": {}}}},
            "map": {"additionalProperties": {"properties": {"a": {}}}},
            "free": {"x-kubernetes-preserve-unknown-fields": True},
        }
    }
    value = {
        "list": [{"a": 1, "b": 2}],
        "map": {"k": {"a": 1, "b": 2}},
        "free": {"b": 2},
        "gone": 1,
    }
    assert prune(value, schema) == {"list": [{"a": 1}], "map": {"k": {"a": 1}}, "free": {"b": 2}}


ROUTER = Router(owner=("a", "chat"), owner_uid="c0", pod="p", pod_uid="u0", address="10.0.0.1")


def test_router_when_it_answers_then_what_it_serves() -> None:
    answer = {
        "trafficGeneration": 17,
        "revisions": [{"revision": "5d41", "weight": 75, "effective": 100}],
    }
    report = read_report(ROUTER, answer)
    assert report.traffic_generation == 17


@pytest.mark.parametrize("generation", [None, 0, (1 << 63) - 1])
def test_router_when_it_reports_what_can_be_a_generation_then_it_is_taken(
    generation: int | None,
) -> None:
    report = read_report(ROUTER, {"trafficGeneration": generation})
    assert report.traffic_generation == generation


@pytest.mark.parametrize(
    "answer",
    [
        {}, [], None, "17",
        *({"trafficGeneration": value} for value in ("x", "17", [], {}, True, 1.0, -1, 1 << 63)),
    ],
    ids=repr,
)  # fmt: skip
def test_router_when_its_answer_is_malformed_then_refused(answer: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_report(ROUTER, answer)
