"""The native module: its keys beside a plain Python version, and hostile input at page ends."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hack import native

from tests.unit.router import reference

FUZZED = int(os.environ.get("LLMFLEET_FUZZ_COUNT", "100000"))
PARTS = (
    b"{", b"}", b":", b",", b'"', b"\\", b'\\"', b"\\\\", b" ", b"\n", b'"messages"', b'"prompt"',
    b'"input"', b'"user"', b'"content"', b'"text"', b'"role":"user"', b'"content":"', b'"user":',
    b'"type":"text","text":"', b"hello", b'"conten', b"\xff", b"a" * 500,
)  # fmt: skip


class Span(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("length", ctypes.c_size_t))


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    sources = [native.SOURCES / "key.c", native.SOURCES / "checks.c"]
    path = native.compiled("key.so", sources, ("-shared", "-fPIC", "-O2", "-std=c11"))
    loaded = ctypes.CDLL(str(path))
    loaded.key_prefix.restype = Span
    loaded.key_prefix.argtypes = (Span, ctypes.c_size_t)
    loaded.key_digits.argtypes = (Span, ctypes.c_int, ctypes.c_char_p)
    for name in ("is_json_type", "is_no_encoding", "is_private"):
        getattr(loaded, name).restype = ctypes.c_bool
        getattr(loaded, name).argtypes = (Span,)
    return loaded


def _key(library: ctypes.CDLL, body: bytes, prefix_bytes: int) -> str:
    digits = ctypes.create_string_buffer(16)
    library.key_digits(library.key_prefix(Span(body, len(body)), prefix_bytes), 0, digits)
    return digits.raw.decode()


def _bodies(count: int) -> Iterator[tuple[bytes, int]]:
    chance = random.Random(7)
    for _ in range(count):
        many = chance.randrange(400) if chance.random() < 0.1 else chance.randrange(30)
        body = b"".join(chance.choice(PARTS) for _ in range(many))
        yield body, chance.choice((1, 10, 100, 4096, 65536))


def test_key_when_bodies_are_random_then_it_is_the_plain_version_s(library: ctypes.CDLL) -> None:
    cut = 0
    for body, prefix_bytes in _bodies(20_000):
        text = reference.prefix(body, prefix_bytes)
        cut += reference.first_question_end(text) is not None
        assert _key(library, body, prefix_bytes) == reference.key(text, is_session=False), body
    assert cut > 1000, "first messages were found"


def test_session_when_hashed_then_it_is_the_plain_version_s(library: ctypes.CDLL) -> None:
    for name in (b"", b"s1", b"x" * 15, b"x" * 16, b"x" * 17, b"\xff" * 5000):
        digits = ctypes.create_string_buffer(16)
        library.key_digits(Span(name, len(name)), 1, digits)
        assert digits.raw.decode() == reference.key(name, is_session=True)


def test_key_when_a_chat_grows_then_it_stays_and_the_end_of_the_question_counts(
    library: ctypes.CDLL,
) -> None:
    first = [{"role": "system", "content": "s"}, {"role": "user", "content": 'a "q" \\'}]
    later = [*first, {"role": "assistant", "content": "b"}]
    other = [first[0], {"role": "user", "content": 'a "q" \\!'}]
    keys = [
        _key(library, json.dumps({"messages": m}).encode(), 4096) for m in (first, later, other)
    ]
    assert keys[0] == keys[1] != keys[2]


def _spellings(words: tuple[str, ...], count: int) -> Iterator[bytes]:
    chance = random.Random(3)
    for _ in range(count):
        text = "".join(chance.choice(words) for _ in range(chance.randrange(7)))
        yield (text.upper() if chance.random() < 0.2 else text).encode("latin-1")


def test_media_type_when_random_then_the_regular_expression_agrees(library: ctypes.CDLL) -> None:
    words = (
        "application/json",
        ";",
        "charset=",
        '"',
        "utf-8",
        " ",
        "\t",
        "\v",
        "x",
        "charset=utf-8",
    )
    good = 0
    fixed = (b'application/json; charset="UTF-8" ', b"application/json;", b"application/jsonx", b"")
    for value in (*fixed, *_spellings(words, 50_000)):
        wanted = reference.is_json_type(value)
        good += wanted
        assert library.is_json_type(Span(value, len(value))) == wanted, value
    assert good > 100


@pytest.mark.parametrize(
    ("name", "private"),
    [
        (b"x-llmfleet-token", True), (b"x-llmfleet-", True), (b"x-llmfleet", False),
        (b"x-envoy-retry-on", True), (b"x-envoy-internal", False), (b"x-http-method", True),
        (b"x-envoy-external-address", False), (b"x-method-override", True), (b"x-", False),
        (b"x-http-method-override", True), (b"content-type", False), (b"", False),
    ],
)  # fmt: skip
def test_header_when_named_then_private_or_not(
    library: ctypes.CDLL, name: bytes, private: bool
) -> None:
    assert library.is_private(Span(name, len(name))) is private


@pytest.mark.parametrize(
    ("value", "none"), [(b"", True), (b"IDENTITY", True), (b"gzip", False), (b"identity,br", False)]
)
def test_encoding_when_given_then_none_or_not(
    library: ctypes.CDLL, value: bytes, none: bool
) -> None:
    assert library.is_no_encoding(Span(value, len(value))) is none


@pytest.fixture(scope="module")
def fuzz() -> Callable[[int], subprocess.CompletedProcess[str]]:
    sources = [Path(__file__).with_name("fuzz.c"), *sorted(native.SOURCES.glob("*.c"))]
    flags = ("-g", "-O1", "-std=gnu11", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    program = native.compiled("fuzz", sources, flags)

    def run(seed: int) -> subprocess.CompletedProcess[str]:
        command = [str(program), str(FUZZED), str(seed)]
        return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    return run


def test_module_when_fed_hostile_requests_then_nothing_is_read_beyond_them(
    fuzz: Callable[[int], subprocess.CompletedProcess[str]],
) -> None:
    done = fuzz(int(os.environ.get("LLMFLEET_FUZZ_SEED", "1")))
    assert done.returncode == 0, done.stderr[-2000:]
