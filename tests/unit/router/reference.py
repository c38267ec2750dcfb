"""What ``runtime/llmfleet_router/native`` computes, in plain Python and without care for speed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

SEARCH_BYTES = 4096
_MASK = (1 << 64) - 1
_SPACE = b" \n\r\t"
_JSON_TYPE = re.compile(
    rb'(?i)application/json[\t\n\f\r ]*(;[\t\n\f\r ]*charset="?utf-8"?[\t\n\f\r ]*)?'
)


def prefix(body: bytes, prefix_bytes: int) -> bytes:
    """The part of the body that the key depends on."""
    head = body[:SEARCH_BYTES]
    found = [at for f in (b'"messages"', b'"prompt"', b'"input"') if (at := head.find(f)) >= 0]
    start = min(found, default=0)
    text = body[start : start + prefix_bytes]
    end = first_question_end(text)
    return text if end is None else text[:end]


def first_question_end(text: bytes) -> int | None:
    """Behind the first user message's text, if it is all there."""
    at = 0
    while True:
        at = text.find(b'"user"', at)
        if at < 0:
            return None
        at += len(b'"user"')
        following = text[at:].lstrip(_SPACE)[:1]
        if following != b":":
            break
    if following == b"}":
        return at
    at = text.find(b'"content"', at)
    if at < 0:
        return None
    at += len(b'"content"')
    while True:
        value = re.compile(rb'[ \n\r\t]*:[ \n\r\t]*"((?:[^"\\]|\\.)*)(")?', re.DOTALL).match(
            text, at
        )
        if value:
            return value.end() if value.group(2) else None
        at = text.find(b'"text"', at)
        if at < 0:
            return None
        at += len(b'"text"')


def key(text: bytes, *, is_session: bool) -> str:
    """Sixteen hexadecimal digits."""
    return f"{hashed(text, 1 if is_session else 2):016x}"


def hashed(text: bytes, seed: int) -> int:
    """64 bits."""
    odd1, odd2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
    a, b = seed, len(text) * odd2 & _MASK
    whole = len(text) // 16 * 16
    padded = text[:whole] + text[whole:].ljust(16, b"\0")
    for at in range(0, len(padded), 16):
        first, second = (int.from_bytes(padded[i : i + 8], "little") for i in (at, at + 8))
        a = _rotate(a ^ first, 29) * odd1 & _MASK
        b = _rotate(b ^ second, 31) * odd2 & _MASK
    mixed = a ^ _rotate(b, 32)
    mixed = (mixed ^ mixed >> 33) * 0xFF51AFD7ED558CCD & _MASK
    mixed = (mixed ^ mixed >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return mixed ^ mixed >> 33


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One that the balancer chooses from."""

    hash: int
    active: int
    is_tried: bool = False


def choose(pods: Sequence[Pod], key: int) -> int:
    """The place of the pod that a request with this key goes to."""
    places = [i for i, pod in enumerate(pods) if not pod.is_tried] or list(range(len(pods)))
    active = 1 + sum(pods[i].active for i in places)
    limit = math.ceil(Fraction(125, 100) * active / len(places))
    idle = [i for i in places if pods[i].active < limit]
    words = key.to_bytes(8, "little")
    return max(idle, key=lambda i: hashed(words + pods[i].hash.to_bytes(8, "little"), 4))


def is_json_type(value: bytes) -> bool:
    """As Envoy's regular expression of old."""
    return _JSON_TYPE.fullmatch(value) is not None


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK
