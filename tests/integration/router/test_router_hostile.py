"""Hostile requests: each gets the answer docs/router.md gives for it, in OpenAI's error shape."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hack.processes.agent import TOKEN, RunningRouter, running_router

from llmfleet_router.module import KEY_HEADER
from tests.integration.router.harness import StubEngine, poll

LIMIT = 65536
CHAT = "/v1/chat/completions"
JSON_TYPE = "content-type: application/json\r\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[RunningRouter, StubEngine]]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    engine = await StubEngine("a").start()
    async with running_router(directory, body_limit_bytes=LIMIT) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=[engine])
        yield router, engine
    await engine.stop()


async def send(router: RunningRouter, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes as they are; (status, headers, body) of the first answer."""
    port = router.agent.settings.http_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(20):
        try:
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")
            pairs = (line.split(": ", 1) for line in lines if line)
            headers = {name.lower(): value for name, value in pairs}
            length = 0 if raw.startswith(b"HEAD") else int(headers.get("content-length", "0"))
            body = await reader.readexactly(length)
        finally:
            writer.close()
    return int(status_line.split()[1]), headers, body


def http(method: str, path: str, headers: str = "", body: bytes = b"", host: str = "chat") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n".encode("latin-1") + body


def post(path: str = CHAT, headers: str = JSON_TYPE, body: bytes = b"{}") -> bytes:
    return http("POST", path, f"{headers}content-length: {len(body)}\r\n", body)


def chunked(size: int) -> bytes:
    piece = b"x" * 4096
    chunks = b"".join(b"1000\r\n" + piece + b"\r\n" for _ in range(size // 4096))
    return http("POST", CHAT, f"{JSON_TYPE}transfer-encoding: chunked\r\n", chunks + b"0\r\n\r\n")


HOSTILE = {
    # paths: exact after normalisation, else 404
    "unknown path": (post("/v1/models/load"), 404),
    "administrative path": (post("/sleep"), 404),
    "engine metrics": (http("GET", "/metrics"), 404),
    "root": (http("GET", "/"), 404),
    "trailing slash": (post(CHAT + "/"), 404),
    "upper case": (post("/V1/chat/completions"), 404),
    "longer": (post(CHAT + "x"), 404),
    "semicolon": (post(CHAT + ";x=1"), 404),
    "double slash": (post("//v1/chat/completions"), 200),
    "inner double slash": (post("/v1//chat/completions"), 200),
    "dot segment": (post("/v1/./chat/completions"), 200),
    "dot dot to allowed": (post("/x/../v1/chat/completions"), 200),
    "dot dot away": (post("/v1/chat/completions/../../load_lora_adapter"), 404),
    "encoded dot dot": (post("/v1/%2e%2e/sleep"), 404),
    "encoded dot dot from allowed": (post(CHAT + "/%2e%2e/%2E%2E/collective_rpc"), 404),
    "escaped slash": (post("/v1%2fchat/completions"), 400),
    "escaped backslash": (post("/v1%5cchat/completions"), 400),
    "backslash": (post("/v1\\chat\\completions"), 200),
    "encoded letter": (post("/v1/ch%61t/completions"), 200),
    "double encoded": (post("/v1/chat%252fcompletions"), 404),
    "nul": (post("/v1/chat/completions%00"), 400),
    "query": (post(CHAT + "?api-version=1"), 200),
    "query hides path": (post("/sleep?/v1/chat/completions"), 404),
    "fragment": (post(CHAT + "#x"), 400),
    "absolute form": (post("http://evil/v1/chat/completions"), 200),
    "absolute form elsewhere": (post("http://evil/sleep"), 404),
    "asterisk": (http("OPTIONS", "*"), 404),
    "connect": (http("CONNECT", "chat:80"), 404),
    # methods
    "get on post": (http("GET", CHAT), 405),
    "options": (http("OPTIONS", CHAT), 405),
    "delete": (http("DELETE", CHAT), 405),
    "head on models": (http("HEAD", "/v1/models"), 405),
    "post on models": (post("/v1/models"), 405),
    "post on health": (post("/health"), 405),
    "method override is ignored": (
        http("GET", CHAT, "x-http-method-override: POST\r\n"), 405),
    "unknown method": (http("BREW", CHAT), 400),
    # types and encodings
    "no type": (post(headers=""), 415),
    "form": (post(headers="content-type: application/x-www-form-urlencoded\r\n"), 415),
    "type prefix": (post(headers="content-type: application/jsonx\r\n"), 415),
    "json with charset": (post(headers="content-type: application/json; charset=UTF-8\r\n"), 200),
    "utf-16": (post(headers="content-type: application/json; charset=utf-16\r\n"), 415),
    "two types": (post(headers=JSON_TYPE + "content-type: text/plain\r\n"), 415),
    "gzip": (post(headers=JSON_TYPE + "content-encoding: gzip\r\n"), 415),
    "identity": (post(headers=JSON_TYPE + "content-encoding: identity\r\n"), 200),
    "identity, gzip": (post(headers=JSON_TYPE + "content-encoding: identity, gzip\r\n"), 415),
    "two encodings": (
        post(headers=JSON_TYPE + "content-encoding: identity\r\ncontent-encoding: br\r\n"), 415),
    # the order: path, method, type, size
    "wrong path and method and type": (http("GET", "/sleep"), 404),
    "wrong type and size": (post(headers="", body=b"x" * (LIMIT + 1)), 415),
    # sizes
    "at the limit": (post(body=b"x" * LIMIT), 200),
    "over the limit": (post(body=b"x" * (LIMIT + 1)), 413),
    "announced over the limit": (
        http("POST", CHAT, f"{JSON_TYPE}content-length: 99999999\r\n"), 413),
    "chunked at the limit": (chunked(LIMIT), 200),
    "chunked over the limit": (chunked(LIMIT + 8192), 413),
    "get with a large body": (
        http("GET", "/v1/models", f"content-length: {LIMIT + 1}\r\n", b"x" * (LIMIT + 1)), 413),
    "large header": (post(headers=f"{JSON_TYPE}x-a: {'a' * 40000}\r\n"), 431),
    "many headers": (post(headers=JSON_TYPE + "".join(f"x-{i}: 1\r\n" for i in range(120))), 431),
    "long path": (http("GET", "/" + "a" * 40000), 431),
    # framing
    "two content-lengths": (
        http("POST", CHAT, f"{JSON_TYPE}content-length: 2\r\ncontent-length: 3\r\n", b"{}"), 400),
    "length and chunked": (
        http("POST", CHAT,
             f"{JSON_TYPE}content-length: 2\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "negative length": (http("POST", CHAT, f"{JSON_TYPE}content-length: -1\r\n"), 400),
    "gzip transfer coding": (
        http("POST", CHAT, f"{JSON_TYPE}transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "bad chunk": (
        http("POST", CHAT, f"{JSON_TYPE}transfer-encoding: chunked\r\n", b"zz\r\n\r\n"), 400),
    "space before colon": (post(headers=f"{JSON_TYPE}x-a : 1\r\n"), 400),
    "folded header is joined": (post(headers=f"{JSON_TYPE}x-a: 1\r\n b\r\n"), 200),
    "no host": (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400),
    "not http": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "websocket": (
        http("GET", "/v1/chat", "connection: upgrade\r\nupgrade: websocket\r\n"), 403),
    "websocket on a path": (
        http("POST", CHAT,
             JSON_TYPE + "content-length: 2\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
             b"{}"), 403),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "status"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.asyncio(loop_scope="module")
async def test_hostile_request_when_sent_then_the_documented_answer_comes(
    served: tuple[RunningRouter, StubEngine], raw: bytes, status: int
) -> None:
    router, engine = served
    engine.seen.clear()
    got, headers, body = await send(router, raw)
    assert got == status, body
    if status == 200:
        assert headers["x-llmfleet-revision"] == "aaaa"
        assert [s["path"].split("?")[0] for s in engine.seen] == [CHAT]
        return
    assert engine.seen == []
    assert headers["content-type"] == "application/json"
    if not raw.startswith(b"HEAD"):
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    if status == 405:
        assert headers["allow"]


@pytest.mark.parametrize(
    "private",
    [
        ["x-llmfleet-token: forged"] * 3,
        ["X-LLMFLEET-Token: forged", "x-llmfleet-token:", "x-LLmfleet-KEY: forged"],
        [f"x-llmfleet-{i}: forged" for i in range(90)],
        [f"x-llmfleet-{chr(97 + i) * 3000}: forged" for i in range(10)],
        ["x-envoy-external-address: 1.2.3.4", "x-envoy-internal: true", "x-envoy-retry-on: 5xx"],
        [f"{KEY_HEADER}: forged"] * 3,
        ["x-http-method: DELETE", "x-http-method-override: DELETE", "x-method-override: DELETE"],
        ["x-session-id: s", "x-llmfleet-token: forged", "x-session-id: t"],
    ],
    ids=[
        "thrice",
        "any case",
        "90 of them",
        "30 KB of them",
        "envoy's",
        "the key",
        "methods",
        "session",
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_private_header_when_a_client_sends_it_then_no_engine_sees_it(
    served: tuple[RunningRouter, StubEngine], private: list[str]
) -> None:
    router, engine = served
    engine.seen.clear()
    status, _, _ = await send(router, post(headers=JSON_TYPE + "\r\n".join([*private, ""])))
    assert status == 200
    (seen,) = engine.seen
    assert seen["headers"].getall("x-llmfleet-token") == [TOKEN]
    assert len(seen["headers"].getall(KEY_HEADER)) == 1
    assert "forged" not in seen["headers"].values()
    assert "DELETE" not in seen["headers"].values()
    envoys = {name.lower() for name in seen["headers"] if name.lower().startswith("x-envoy-")}
    assert envoys == {KEY_HEADER}


def http2(*pieces: bytes, length: int | None = None, has_trailers: bool = False) -> bytes:
    """One POST with prior knowledge, its body in frames; header fields are literals."""

    def block(fields: dict[str, str]) -> bytes:
        return b"".join(
            b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
            for name, value in fields.items()
        )

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
        return head + stream.to_bytes(4, "big") + payload

    fields = {":method": "POST", ":scheme": "http", ":path": CHAT, ":authority": "chat",
              "content-type": "application/json"}  # fmt: skip
    if length is not None:
        fields["content-length"] = str(length)
    raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block(fields))
    for number, piece in enumerate(pieces, start=1):
        raw += frame(0, 1 if number == len(pieces) and not has_trailers else 0, 1, piece)
    return raw + (frame(1, 5, 1, block({"x-llmfleet-token": "forged"})) if has_trailers else b"")


@pytest.mark.parametrize("has_trailers", [False, True], ids=["", "trailers"])
@pytest.mark.parametrize("announced", [False, True], ids=["", "announced"])
@pytest.mark.parametrize(
    "pieces", [(10,), (6000, 1), (5, 1, 9000), (1,) * 200, (16384, 16384, 16384, 16383)]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_http2_body_when_it_comes_in_pieces_then_the_engine_gets_just_it_and_its_key(
    served: tuple[RunningRouter, StubEngine],
    pieces: tuple[int, ...],
    announced: bool,
    has_trailers: bool,
) -> None:
    router, engine = served
    body = b'{"messages":[{"role":"user","content":"hi"}]}'.ljust(sum(pieces), b" ")[: sum(pieces)]
    cuts = [sum(pieces[:i]) for i in range(len(pieces) + 1)]
    parts = [body[start:end] for start, end in itertools.pairwise(cuts)]
    engine.seen.clear()
    assert (await send(router, post(body=body)))[0] == 200
    port = router.agent.settings.http_port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        length = len(body) if announced else None
        writer.write(http2(*parts, length=length, has_trailers=has_trailers))
        await asyncio.wait_for(poll(lambda: len(engine.seen) == 2), 5)
    finally:
        writer.close()
    one, two = engine.seen
    assert one["bytes"] == two["bytes"] == len(body)
    assert one["headers"][KEY_HEADER] == two["headers"][KEY_HEADER]
    assert two["headers"].getall("x-llmfleet-token") == [TOKEN]


@pytest.mark.parametrize("announced", [False, True], ids=["", "announced"])
@pytest.mark.asyncio(loop_scope="module")
async def test_http2_body_when_it_is_too_large_then_no_engine_sees_it(
    served: tuple[RunningRouter, StubEngine], announced: bool
) -> None:
    router, engine = served
    engine.seen.clear()
    parts = [b" " * 16000] * 5
    port = router.agent.settings.http_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(http2(*parts, length=80000 if announced else None))
        async with asyncio.timeout(5):
            answered = b""
            while b"request_too_large" not in answered:
                answered += (piece := await reader.read(4096))
                assert piece
    finally:
        writer.close()
    assert engine.seen == []
