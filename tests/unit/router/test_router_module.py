"""The native module: its keys beside a plain Python version, and hostile input at page ends."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hack import native

from tests.unit.router import reference

FUZZED = int(os.environ.get("LLMFLEET_FUZZ_COUNT", "50000"))
PARTS = (
    b"{", b"}", b":", b",", b'"', b"\\", b'\\"', b"\\\\", b" ", b"\n", b'"messages"', b'"prompt"',
    b'"input"', b'"user"', b'"content"', b'"text"', b'"role":"user"', b'"content":"', b'"user":',
    b'"type":"text","text":"', b"hello", b'"conten', b"\xff", b"a" * 500,
)  # fmt: skip


class Span(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("length", ctypes.c_size_t))


def _load(key_source: Path) -> ctypes.CDLL:
    sources = [key_source, native.SOURCES / "checks.c"]
    path = native.compiled("key.so", sources, ("-shared", "-fPIC", "-O2", "-std=c11"))
    loaded = ctypes.CDLL(str(path))
    loaded.key_prefix.restype = Span
    loaded.key_prefix.argtypes = (Span, ctypes.c_size_t)
    loaded.key_digits.argtypes = (Span, ctypes.c_int, ctypes.c_char_p)
    for name in ("is_json_type", "is_no_encoding", "is_private"):
        getattr(loaded, name).restype = ctypes.c_bool
        getattr(loaded, name).argtypes = (Span,)
    return loaded


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return _load(native.SOURCES / "key.c")


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


def _differences(library: ctypes.CDLL, count: int) -> list[bytes]:
    """Bodies whose keys are not those of the plain version."""
    return [
        body
        for body, prefix_bytes in _bodies(count)
        if _key(library, body, prefix_bytes)
        != reference.key(reference.prefix(body, prefix_bytes), is_session=False)
    ]


def test_key_when_bodies_are_random_then_it_is_the_plain_version_s(library: ctypes.CDLL) -> None:
    texts = [reference.prefix(body, prefix_bytes) for body, prefix_bytes in _bodies(5_000)]
    assert sum(reference.first_question_end(text) is not None for text in texts) > 250
    assert not _differences(library, 5_000)


@pytest.mark.long
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(at - 1 - before) % 2 == 0", "at > before"),
        ('begins(head, at, "\\"input\\"")', 'begins(head, at, "\\"Input\\"")'),
        ("kSearchBytes) head.length = kSearchBytes", "2048) head.length = 2048"),
        ("a = rotate(a ^ word(rest), 29) * kOdd1;", "a = rotate(a ^ word(rest), 28) * kOdd1;"),
    ],
    ids=["escaped quote", "field", "search", "hash"],
)
def test_key_when_a_mistake_is_made_then_the_plain_version_tells(
    tmp_path: Path, right: str, wrong: str
) -> None:
    sources = _with_mistake(tmp_path, "key.c", right, wrong)
    assert _differences(_load(sources / "key.c"), 5_000)


def _with_mistake(folder: Path, name: str, right: str, wrong: str) -> Path:
    """A copy of the module's sources, with one thing in it changed."""
    for source in native.SOURCES.glob("*.[ch]"):
        (folder / source.name).write_text(source.read_text())
    text = (folder / name).read_text()
    assert text.count(right) == 1, right
    (folder / name).write_text(text.replace(right, wrong))
    return folder


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
    for value in (*fixed, *_spellings(words, 8_000)):
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


def _fuzz(sources: Path, count: int) -> subprocess.CompletedProcess[str]:
    files = [Path(__file__).with_name("fuzz.c"), *sorted(sources.glob("*.c"))]
    flags = (
        "-g", "-O1", "-std=gnu11", "-fsanitize=undefined", "-fno-sanitize-recover=all",
        "-fstack-protector-all", "-Dmalloc=guarded_malloc", "-Dcalloc=guarded_calloc",
        "-Dfree=guarded_free",
    )  # fmt: skip
    seed = os.environ.get("LLMFLEET_FUZZ_SEED", "1")
    command = [str(native.compiled("fuzz", files, flags)), str(count), seed]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_module_when_fed_hostile_requests_then_nothing_is_read_or_written_beyond_them() -> None:
    done = _fuzz(native.SOURCES, FUZZED)
    assert done.returncode == 0, done.stderr[-2000:]


MISTAKES = {
    "white space": ("key.c", "while (at < text.length && (text", "while ((text"),
    "search": ("key.c", "text.length - from - length + 1);", "text.length - from);"),
    "prefix": ("key.c", "if (text.length > prefix) text.length = prefix;", ""),
    "literal": ("checks.c", "if (text->length < length) return false;", ""),
    "headers": ("module.c", "count > kMostHeaders ||", ""),
    "window": ("module.c", "wanted - length < pieces[i].length ? wanted - length :", ""),
    "array": ("module.c", "malloc(*count * sizeof *pieces)", "malloc(*count * 8)"),
    "leak": ("module.c", "if (pieces && pieces != few) free(pieces);\n  return length;",
             "return length;"),
    "last piece": ("module.c", "if (length < wanted) length = copy", "if (!length) length = copy"),
    "freed name": ("module.c", "(struct text){name, lengths[i]}, (struct text){0})",
                   "(struct text){headers[i].name, lengths[i]}, (struct text){0})"),
    "private header": ("module.c", "if (said.private_bytes) remove",
                       "if (said.private_bytes > 20) remove"),
    "places": ("balancer.c", "balancer->places[i] = place_of(envoy, address);",
               "balancer->places[i] = i;"),
    "pods": ("balancer.c", "balancer->pods = calloc(count,", "balancer->pods = calloc(count / 2,"),
    "tried": ("balance.c", "(pods[i].is_tried && !is_any)", "(pods[i].is_tried && is_any)"),
    "update": ("balancer.c", "  look((struct balancer *)balancer, envoy);\n", "  (void)envoy;\n"),
    "trailers": ("module.c", "  complete(stream, (struct request *)request, false);\n", ""),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("name", "right", "wrong"), MISTAKES.values(), ids=MISTAKES.keys())
def test_module_when_a_mistake_is_made_then_the_hostile_requests_tell(
    tmp_path: Path, name: str, right: str, wrong: str
) -> None:
    assert _fuzz(_with_mistake(tmp_path, name, right, wrong), 20_000).returncode != 0
