"""Random hostile HTTP/1.1 requests, each with the answers docs/router.md allows for it."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LIMIT: Final = 65536
"""``spec.router.bodyLimit`` of the router under test, in bytes."""
API_PATHS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
)
GET_PATHS: Final = ("/v1/models", "/health")
SILENCE: Final = 0
"""In place of a status: the connection may end, or stay, without any answer."""

ALPHABET: Final = "/.%;?&=+~\\:@!$'()*,abzAZ019-_" + "\u00e9\u4e2d"
INNOCENT: Final = b'{"messages":[{"role":"user","content":"hi"}]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """Bytes to send on a connection of their own."""

    kind: str
    raw: bytes
    allowed: frozenset[int]
    """Statuses; ``SILENCE`` among them when an answer need not come."""
    answers: int = 1
    """How many requests the bytes hold, all complete."""
    reset: bool = field(default=False)
    """The client aborts the connection right after sending."""


def draw(source: random.Random) -> Hostile:
    """One hostile request of a random kind."""
    return source.choice(_KINDS)(source)


def http(
    method: str, path: str, headers: list[str], body: bytes = b"", length: int | None = None
) -> bytes:
    """A request with a content length: the body's, unless another is given."""
    said = len(body) if length is None else length
    lines = [f"{method} {path} HTTP/1.1", "host: chat", f"content-length: {said}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + body


def _post(headers: list[str], body: bytes = INNOCENT, path: str = API_PATHS[0]) -> bytes:
    return http("POST", path, ["content-type: application/json", *headers], body)


def _allow(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


def _text(source: random.Random, alphabet: str, longest: int) -> str:
    return "".join(source.choices(alphabet, k=source.randint(1, longest)))


def _path(source: random.Random) -> Hostile:
    """Paths near the served ones, and far from them."""
    path = source.choice([*API_PATHS, *GET_PATHS, "/sleep", "/metrics", "/v1/load_lora_adapter"])
    for _ in range(source.randint(0, 4)):
        at = source.randint(0, len(path))
        insert = source.choice(
            ["/", "//", "/./", "/../", "%2e%2e", "%2f", "%5c", "%00", "%", "%zz", "\\", ";a=b", "?",
             "#", "%252f", "%c0%af", "..;/", _text(source, ALPHABET, 6)]
        )  # fmt: skip
        path = path[:at] + insert + path[at:]
    method = source.choice(["POST", "GET"])
    headers = ["content-type: application/json"]
    allowed = _allow(200, 400, 404, 405, 415)
    return Hostile(
        kind="path", raw=http(method, path, headers, b"" if method == "GET" else INNOCENT),
        allowed=allowed,
    )  # fmt: skip


def _method(source: random.Random) -> Hostile:
    known = ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "LOCK", "PURGE"]
    unknown = [_text(source, string.ascii_uppercase, 12), "post", "P\u00d6ST", "GET POST", ""]
    method = source.choice([*known, *unknown])
    allowed = _allow(405, 400)
    if method in {"GET", "POST"}:
        allowed = _allow(200, 405)
    return Hostile(kind="method", raw=http(method, API_PATHS[0], []), allowed=allowed)


def _header_values(source: random.Random) -> Hostile:
    """Spoofed, doubled, folded, underscored and unprintable headers."""
    choices = [
        "x-llmfleet-token: forged", "x-llmfleet-tenant: other", "x-llmfleet-priority: -9",
        "X-LLMFleet-Max-Tokens: 999999", "x_llmfleet_token: forged", "x-envoy-retry-on: 5xx",
        "x-envoy-upstream-rq-timeout-ms: 1", "x-request-id: chosen", "x-forwarded-for: 127.0.0.1",
        "x-http-method-override: DELETE", "host: second", "connection: x-llmfleet-token",
        "te: trailers", "expect: 100-continue", "accept: \u00e9\u4e2d",
        "x-session-id: " + "s" * 4096, "cookie: " + "a=b;" * 500, "range: bytes=0-1",
        "authorization: Bearer x", ": empty",
        "x-a : space", "x-nul: a\x00b", "x-cr: a\rb", "x-bell: \x07", " folded: 1",
        _text(source, string.printable[:94], 30), f"{_text(source, ALPHABET, 20)}: 1",
    ]  # fmt: skip
    headers = source.choices(choices, k=source.randint(1, 12))
    # An Upgrade offer made of random text is 403; 501 is the answer to a foreign transfer coding.
    return Hostile(kind="header", raw=_post(headers), allowed=_allow(200, 400, 403, 415, 501))


def _header_size(source: random.Random) -> Hostile:
    """Around the two limits: 100 headers (three are there anyway), 32 KiB of them."""
    if source.random() < 0.5:
        count = source.randint(50, 300)
        raw = _post([f"x-{i}: 1" for i in range(count)])
        return Hostile(kind="header size", raw=raw, allowed=_allow(431 if count > 97 else 200))
    size = source.randint(20_000, 60_000)
    raw = _post([f"x-a: {'a' * size}"])
    near = _allow(200, 431) if 32_000 < size < 32_768 else _allow(431 if size > 32_000 else 200)
    return Hostile(kind="header size", raw=raw, allowed=near)


def _content_type(source: random.Random) -> Hostile:
    kind = source.choice(
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
         "application/jsonx", "application/json; charset=utf-16", "application/json, text/plain",
         "application/json; charset=utf-7", "*/*", "", "application/json;;", "json",
         _text(source, string.ascii_letters + "/;=-", 30)]
    )  # fmt: skip
    raw = http("POST", source.choice(API_PATHS), [f"content-type: {kind}"], INNOCENT)
    return Hostile(kind="content type", raw=raw, allowed=_allow(415))


def _encoding(source: random.Random) -> Hostile:
    coding = source.choice(
        ["gzip", "br", "deflate", "zstd", "identity, gzip", "gzip, identity", "x-gzip", "chunked",
         "IDENTITY;q=1", _text(source, string.ascii_lowercase, 12) + "x"]
    )  # fmt: skip
    raw = _post([f"content-encoding: {coding}"], source.randbytes(200))
    return Hostile(kind="content encoding", raw=raw, allowed=_allow(415))


def _body(source: random.Random) -> Hostile:
    """Bodies that are no JSON, or JSON nobody wants to parse: the router passes them on whole."""
    body = source.choice(_BODIES)(source)
    return Hostile(
        kind="body", raw=_post([], body, source.choice(API_PATHS)),
        allowed=_allow(200 if len(body) <= LIMIT else 413),
    )  # fmt: skip


_BODIES: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    lambda source: source.randbytes(source.randint(0, 4096)),
    lambda source: b"[" * source.randint(1, 20_000),
    lambda source: b'{"a":' * source.randint(1, 10_000),
    lambda source: b'{"messages":"' + b"\\u0000" * source.randint(1, 2000),
    lambda source: '{"prompt":"\ufeff\u202e\U0001f600"}'.encode("utf-16"),
    lambda source: b'{"messages"' * source.randint(1, 500),
    lambda source: b'{"n":' + b"9" * source.randint(1, 9000) + b"}",
    lambda source: b"\xff\xfe" * source.randint(1, 3000),
    lambda source: json.dumps({"prompt": "x" * source.randint(1, 60_000)}).encode(),
    lambda source: b"x" * source.randint(LIMIT - 2, LIMIT + 2),
    lambda source: b"\x00" * source.randint(LIMIT + 1, LIMIT + 20_000),
)


def _length(source: random.Random) -> Hostile:
    """Content lengths that lie, contradict or are no numbers."""
    value = source.choice(
        ["-1", "+5", "0x10", "1e3", "5, 5", "5, 6", " ", "99999999999999999999", "5 5", "\u0665",
         "1_0", "NaN"]
    )  # fmt: skip
    lines = ["POST /v1/completions HTTP/1.1", "host: chat", "content-type: application/json"]
    lines += [f"content-length: {value}"]
    if source.random() < 0.5:
        lines += [f"content-length: {source.randint(0, 9)}"]
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode() + b"12345"
    return Hostile(kind="content length", raw=raw, allowed=_allow(400, 413))


def _smuggling(source: random.Random) -> Hostile:
    """Both framings at once, and transfer codings that two parsers might read differently."""
    coding = source.choice(
        ["chunked", "Chunked", "xchunked", "chunked, identity", "identity, chunked",
         "gzip, chunked", "chunked\x0b", " chunked", "\tchunked", "chunked;q=1", "cow",
         "chunked, chunked"]
    )  # fmt: skip
    headers = [f"transfer-encoding: {coding}"]
    if source.random() < 0.6:
        headers += [f"content-length: {source.randint(0, 40)}"]
    lines = ["POST /v1/completions HTTP/1.1", "host: chat", "content-type: application/json"]
    tail = b"0\r\n\r\nGET /sleep HTTP/1.1\r\nhost: x\r\n\r\n"
    raw = ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode() + tail
    return Hostile(kind="smuggling", raw=raw, allowed=_allow(200, 400, 501))


def _chunks(source: random.Random) -> Hostile:
    """Chunked bodies with wrong sizes, extensions and trailers."""
    size = source.choice(
        ["zz", "-1", "ffffffffffffffff1", "5;ext=1", "5 ", "05", "0x5", "5\n", "", "FFFFFFFF"]
    )
    body = f"{size}\r\nabcde\r\n0\r\n".encode()
    body += source.choice([b"\r\n", b"x-trailer: 1\r\n\r\n", b"x-llmfleet-token: a\r\n\r\n"])
    lines = ["POST /v1/completions HTTP/1.1", "host: chat", "content-type: application/json"]
    raw = ("\r\n".join([*lines, "transfer-encoding: chunked"]) + "\r\n\r\n").encode() + body
    # A size that promises more than was sent waits for it, until 408.
    waits = size == "FFFFFFFF"
    allowed = _allow(SILENCE, 408, 413) if waits else _allow(200, 400)
    return Hostile(kind="chunks", raw=raw, allowed=allowed)


def _start_line(source: random.Random) -> Hostile:
    line = source.choice(
        ["GET /v1/models HTTP/9.9", "GET /v1/models HTTP/1.1.1", "GET  /v1/models HTTP/1.1",
         "GET\t/v1/models HTTP/1.1", "/v1/models", "GET", "GET /v1/models", "HTTP/1.1 200 OK",
         "GET /v1/models HTTP/0.9", "GET http://[::1/ HTTP/1.1", "GET /v1/models FTP/1.1",
         "GET " + "/a" * source.randint(10_000, 20_000) + " HTTP/1.1",
         _text(source, string.printable[:94], 60)]
    )  # fmt: skip
    raw = f"{line}\r\nhost: chat\r\n\r\n".encode()
    return Hostile(kind="start line", raw=raw, allowed=_allow(200, 400, 404, 426, 431, SILENCE))


def _garbage(source: random.Random) -> Hostile:
    """Other protocols and noise."""
    head = source.choice(
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"\x00" * 64, b"*1\r\n",
         b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + source.randbytes(64), b"EHLO x\r\n", b"\r\n" * 20]
    )  # fmt: skip
    raw = head + source.randbytes(source.randint(0, 200)) + b"\r\n\r\n"
    return Hostile(kind="garbage", raw=raw, allowed=_allow(400, 404, 431, SILENCE))


def _upgrade(source: random.Random) -> Hostile:
    to = source.choice(["websocket", "h2c", "TLS/1.2", "foo", "websocket, h2c"])
    headers = ["connection: Upgrade, HTTP2-Settings", f"upgrade: {to}"]
    headers += ["http2-settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    # An offer of h2c is ignored, as RFC 9113 wants; the rest of the request is judged as usual.
    return Hostile(kind="upgrade", raw=_post(headers), allowed=_allow(403, 200))


def _pipeline(source: random.Random) -> Hostile:
    """Several complete requests in one write: each gets its own answer, in order."""
    count = source.randint(2, 6)
    raws = [
        source.choice(
            [_post([]), http("GET", "/health", []), http("GET", "/sleep", []), _post([], path="/x"),
             http("DELETE", "/v1/models", [])]
        )
        for _ in range(count)
    ]  # fmt: skip
    allowed = _allow(200, 404, 405)
    return Hostile(kind="pipeline", raw=b"".join(raws), allowed=allowed, answers=count)


def _cut(source: random.Random) -> Hostile:
    """A request that ends in the middle, its connection aborted."""
    whole = _post([], b"x" * source.randint(1, 40_000))
    part = whole[: source.randint(1, len(whole) - 1)]
    return Hostile(kind="cut", raw=part, allowed=_allow(SILENCE), reset=True)


_KINDS: Final[tuple[Callable[[random.Random], Hostile], ...]] = (
    _path, _path, _method, _header_values, _header_size, _content_type, _encoding, _body, _body,
    _length, _smuggling, _chunks, _start_line, _garbage, _upgrade, _pipeline, _cut,
)  # fmt: skip
