"""Request bodies as bytes: one strict JSON parser, in linear time.

What it returns goes on to vLLM, so there is no second parser that could read the body differently
(duplicate keys, unicode escapes and UTF-16 bodies all beat a text scan).

A parser in C holds Python's global lock from its first byte to its last, in whichever thread it
runs, and the engine's event loop stands meanwhile. How long is decided by how many values a body
holds rather than by its bytes, so they are counted first, by searches that cost milliseconds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from llmfleet_runtime.refused import Refused, refuse

LARGE_BODY_BYTES = 256 * 1024
"""Larger bodies are parsed and checked in a thread of their own (``endpoints``)."""
MAX_VALUES = 131_072
"""Strings, lists and objects of a body, names included: 0.1 s of parsing. Numbers are not counted,
since a prompt of token ids is a long list of them and costs 0.05 µs each."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_body(body: bytes) -> dict[str, Any]:
    """Parses a request body: UTF-8, one object, no key twice, whole characters, finite numbers.

    Raises:
        Refused: status 400, code ``invalid_json``, or ``too_many_values`` above MAX_VALUES.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            "The body is not UTF-8: send JSON encoded in UTF-8.", code="invalid_json"
        ) from error
    if too_many_values(body):
        refuse(
            f"The body holds more than {MAX_VALUES} strings, lists and objects: send a smaller"
            " request.",
            code="too_many_values",
        )
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise Refused("The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:
        raise Refused(f"The body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(parsed, dict):
        refuse("The body must be a JSON object.", code="invalid_json")
    if _SURROGATE.search(text):
        _refuse_lone_surrogates(parsed)
    return parsed


def too_many_values(body: bytes) -> bool:
    r"""Whether a JSON text holds more than MAX_VALUES strings, lists and objects.

    Brackets inside strings do not count: code and JSON in a prompt are full of them.

    >>> too_many_values(b'{"prompt": "' + b"[" * 200_000 + b'\\""}')
    False
    >>> too_many_values(b'{"prompt": [' + b"[]," * 200_000 + b"[]]}")
    True
    """
    if body.count(b'"') // 2 + body.count(b"[") + body.count(b"{") <= MAX_VALUES:
        return False
    # Left to right, as JSON reads them: after this, every quote opens or closes a string.
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    strings = unescaped.count(b'"') // 2
    if strings > MAX_VALUES:
        return True
    outside = b"".join(unescaped.split(b'"')[::2])
    return strings + outside.count(b"[") + outside.count(b"{") > MAX_VALUES


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                refuse(f"The key {key[:64]!r} occurs twice in one object.", code="invalid_json")
            seen.add(key)
    return result


def _no_constant(name: str) -> NoReturn:
    refuse(f"{name} is not JSON.", code="invalid_json")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        refuse(f"{text[:64]} is too large a number.", code="invalid_json")
    return number


def _refuse_lone_surrogates(parsed: dict[str, Any]) -> None:
    try:
        for text in _strings(parsed):
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(
            "The body holds half of a surrogate pair, which is no character.", code="invalid_json"
        ) from error


def _strings(parsed: dict[str, Any]) -> Iterator[str]:
    """Every string, names included; as deep as they are, without recursion."""
    waiting: list[Any] = [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
