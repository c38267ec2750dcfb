"""Bodies by size: each shape takes time in proportion, and large ones leave the loop free."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable

import pytest
from pydantic import BaseModel, ValidationError

from llmfleet_runtime import endpoints
from llmfleet_runtime.body import LARGE_BODY_BYTES, MAX_VALUES, parse_body, too_many_values
from llmfleet_runtime.content import MAX_CONVERSATION_ITEMS
from llmfleet_runtime.endpoints import build_validator
from llmfleet_runtime.refused import Refused
from tests.unit.runtime.guarded_app import GuardedApp

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
JSON = {"content-type": "application/json"}
MIB = 1024 * 1024
SECONDS = 20
"""Of processor time for 8 MiB: linear code takes less than one, and quadratic code hours."""


def repeated(before: str, item: str, after: str, separator: str = ",") -> Callable[[int], bytes]:
    """Bodies of one item over and over, as long as wanted."""

    def make(size: int) -> bytes:
        count = (size - len(before) - len(after)) // len(item + separator)
        return (before + separator.join([item] * count) + after).encode()

    return make


def numbered(before: str, item: str, after: str) -> Callable[[int], bytes]:
    """Bodies of items that differ, each with ``#`` replaced by its number."""

    def make(size: int) -> bytes:
        count = (size - len(before) - len(after)) // (len(item) + 7)
        items = (item.replace("#", str(1_000_000 + number)) for number in range(count))
        return (before + ",".join(items) + after).encode()

    return make


USER = '{"messages":[{"role":"user","content":"a"}]'
SHAPES = {
    "keys, the last twice": (numbered("{", '"#":0', ',"k":0,"k":0}'), 400),
    "a nested object's keys, the last twice": (
        numbered('{"x":{', '"#":0', ',"k":0,"k":0}}'),
        400,
    ),
    "nesting": (repeated('{"prompt":', "[", "", ""), 400),
    "empty lists": (repeated('{"prompt":[', "[]", "]}"), 400),
    "lists in lists": (repeated('{"prompt":[', "[" * 20 + "]" * 20, "]}"), 400),
    "token ids": (repeated('{"prompt":[', "7", "]}"), 200),
    "prompts": (repeated('{"prompt":[', '"a"', "]}"), 400),
    "numbers of another kind": (repeated('{"prompt":[', "1.5", "]}"), 400),
    "nulls": (repeated('{"messages":[', "null", "]}"), 400),
    "messages": (repeated('{"messages":[', '{"role":"user","content":"hello"}', "]}"), 400),
    "long messages": (
        repeated('{"messages":[', json.dumps({"role": "user", "content": "ü{[\\" * 800}), "]}"),
        200,
    ),
    "parts": (
        repeated('{"messages":[{"role":"user","content":[', '{"type":"text","text":"a"}', "]}]}"),
        400,
    ),
    "parts of no kind": (
        repeated('{"messages":[{"role":"user","content":[', '{"type":{}}', "]}]}"),
        400,
    ),
    "tools": (
        repeated(USER + ',"tools":[', '{"type":"function","function":{"name":"f"}}', "]}"),
        400,
    ),
    "a schema's properties": (
        numbered(USER + ',"response_format":{"properties":{', '"#":{"type":"string"}', "}}}"),
        400,
    ),
    "a schema's values": (repeated(USER + ',"response_format":{"enum":[', "7", "]}}"), 400),
    "patterns that never close": (
        repeated(
            USER + ',"response_format":{"anyOf":[',
            json.dumps({"pattern": ("{" + " " * 500) * 4 + "{"}),
            "]}}",
        ),
        400,
    ),
    "patterns of a schema": (
        numbered(
            USER + ',"response_format":{"patternProperties":{',
            '"' + "([" * 1000 + '#":0',
            "}}}",
        ),
        400,
    ),
    "a choice": (repeated(USER + ',"structured_outputs":{"choice":["', "a", '"]}}', ""), 400),
    "a grammar": (repeated(USER + ',"structured_outputs":{"grammar":"', "a", '"}}', ""), 400),
    "a schema's text": (repeated(USER + ',"response_format":{"const":"', "a", '"}}', ""), 400),
    "a tool's text": (
        repeated(USER + ',"tools":[{"type":"function","x":"', "a", '"}]}', ""),
        400,
    ),
    "escapes": (repeated('{"prompt":"', "\\n", '"}', ""), 200),
    "escaped quotes and brackets": (repeated('{"prompt":"', '[{\\"\\\\', '"}', ""), 200),
    "surrogate pairs": (repeated('{"prompt":"', "\\ud83d\\ude00", '"}', ""), 200),
    "surrogate pairs, the last cut": (
        repeated('{"prompt":"', "\\ud83d\\ude00", '\\ud83d"}', ""),
        400,
    ),
    "a number": (repeated('{"seed":', "9", "}", ""), 400),
    "a fraction": (repeated('{"prompt":"a","temperature":0.', "9", "}", ""), 200),
    "a field's name": (repeated('{"', "a", '":0}', ""), 400),
    "text that is no JSON": (repeated('{"prompt":"a"}', "{", "", ""), 400),
}


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("shape", SHAPES)
async def test_body_when_8_mib_of_any_shape_then_judged_in_seconds(
    engine: GuardedApp, shape: str
) -> None:
    make, expected = SHAPES[shape]
    body = make(8 * MIB)
    assert 7.9 * MIB < len(body) <= 8 * MIB
    path = CHAT if b'"messages"' in body[:64] else COMPLETION
    async with engine.client(**JSON) as client:
        before = time.process_time()
        answer = await client.post(path, content=body)
        assert time.process_time() - before < SECONDS
    assert answer.status_code == expected, answer.text[:500]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("keys", [22_000, MAX_VALUES - 4])
async def test_body_when_the_last_of_many_keys_comes_twice_then_named_in_seconds(
    engine: GuardedApp, keys: int
) -> None:
    last = keys - 1
    members = ",".join(f'"k{number}":0' for number in range(keys))
    async with engine.client(**JSON) as client:
        before = time.process_time()
        answer = await client.post(COMPLETION, content=f'{{{members},"k{last}":1}}'.encode())
        assert time.process_time() - before < SECONDS
    assert answer.status_code == 400
    assert f"'k{last}' occurs twice" in answer.json()["error"]["message"]


LARGE = json.dumps({"model": "tiny", "prompt": "a" * (8 * MIB)}).encode()
SMALL = json.dumps({"model": "tiny", "prompt": "a"}).encode()


async def test_loop_when_a_large_body_is_parsed_then_another_request_is_answered_first(
    engine: GuardedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    begun, answered = asyncio.Event(), threading.Event()

    def parse(body: bytes) -> dict[str, object]:
        if len(body) < LARGE_BODY_BYTES:
            return parse_body(body)
        loop.call_soon_threadsafe(begun.set)
        parsed = parse_body(body)
        assert answered.wait(timeout=30), "the event loop stood while the large body was parsed"
        return parsed

    monkeypatch.setattr(endpoints, "parse_body", parse)
    async with engine.client(**JSON) as client:
        large = asyncio.create_task(client.post(COMPLETION, content=LARGE))
        await begun.wait()
        assert (await client.post(COMPLETION, content=SMALL)).status_code == 200
        assert not large.done()
        answered.set()
        assert (await large).status_code == 200


async def test_large_body_when_refused_in_its_thread_then_the_same_answer(
    engine: GuardedApp,
) -> None:
    body = json.dumps({"prompt": "a" * LARGE_BODY_BYTES, "cache_salt": "x"}).encode()
    async with engine.client(**JSON) as client:
        answer = await client.post(COMPLETION, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "cache_salt"


def strings(count: int) -> bytes:
    return b"[" + b",".join([b'""'] * (count - 1)) + b"]"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(strings(MAX_VALUES), False, id="as many strings as allowed"),
        pytest.param(strings(MAX_VALUES + 1), True, id="one more"),
        pytest.param(b"[" * MAX_VALUES, False, id="as many lists as allowed"),
        pytest.param(b"[" * MAX_VALUES + b"{", True, id="one object more"),
        pytest.param(b'"' + b"[{" * MAX_VALUES + b'"', False, id="brackets in a string"),
        pytest.param(b'"' + b'\\"[' * MAX_VALUES + b'"', False, id="escaped quotes in a string"),
        pytest.param(b'"\\\\"' + b"[" * MAX_VALUES, True, id="a string that ends in a backslash"),
        pytest.param(
            b'["\\\\\\"' + b"[" * MAX_VALUES + b'"]', False, id="a backslash, then a quote"
        ),
        pytest.param(b"[" + b"1," * MAX_VALUES * 4 + b"1]", False, id="numbers"),
    ],
)
def test_values_when_counted_then_those_outside_of_strings(body: bytes, expected: bool) -> None:
    assert too_many_values(body) is expected


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400 + ".0", "1E+00309"], ids=range(4))
def test_number_when_no_float_holds_it_then_refused_rather_than_infinite(number: str) -> None:
    with pytest.raises(Refused, match="too large a number"):
        parse_body(f'{{"temperature":[{number}]}}'.encode())


def test_refusal_when_it_names_what_the_client_sent_then_it_is_short() -> None:
    refused = Refused("k" * MIB, param="k" * MIB, code="invalid_value")
    assert len(json.dumps(refused.body())) < 3_000


def test_values_when_too_many_then_refused_naming_the_limit() -> None:
    with pytest.raises(Refused, match=f"more than {MAX_VALUES} strings, lists and objects"):
        parse_body(b'{"a":' + strings(MAX_VALUES) + b"}")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("\\ud83d\\ude00", True),
        ("\\\\ud83d", True),
        ("\\ud83d\\ud83d\\ude00", False),
        ("\\ude00\\ud83d", False),
        ("\\ud83dx\\ude00", False),
    ],
)
@pytest.mark.parametrize("place", ['{{"a":"{}"}}', '{{"{}":1}}', '{{"a":[{{"b":["{}"]}}]}}'])
def test_surrogates_when_one_stands_alone_then_refused_wherever_it_is(
    place: str, text: str, valid: bool
) -> None:
    body = place.format(text).encode()
    if valid:
        assert parse_body(body) == json.loads(body)
        return
    with pytest.raises(Refused, match="half of a surrogate pair"):
        parse_body(body)


class Left(BaseModel):
    left: int


class Right(BaseModel):
    right: list[Left]


class Model(BaseModel):
    items: list[Left | Right]


def test_validation_when_every_item_is_wrong_then_the_errors_of_the_first() -> None:
    validator = build_validator(Model)
    for items in ([{}] * 10_000, [{"right": [{}] * 10_000}]):
        with pytest.raises(ValidationError) as caught:
            validator.validate_python({"items": items})
        assert caught.value.error_count() <= 3
    request = validator.validate_python({"items": [{"left": "1"}, {"right": [{"left": 2}]}]})
    assert request == Model(items=[Left(left=1), Right(right=[Left(left=2)])])


async def test_conversation_when_one_item_too_long_then_refused_naming_the_limit(
    engine: GuardedApp,
) -> None:
    hello = {"role": "user", "content": "a"}
    async with engine.client(**JSON) as client:
        for items, expected in ((MAX_CONVERSATION_ITEMS, 200), (MAX_CONVERSATION_ITEMS + 1, 400)):
            answer = await client.post(CHAT, json={"messages": [hello] * items})
            assert answer.status_code == expected
    assert f"more than {MAX_CONVERSATION_ITEMS} messages" in answer.json()["error"]["message"]
