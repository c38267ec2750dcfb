"""An answer begins with the first byte of its body: what comes before is kept back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from llmfleet_runtime.activity import Activity
from llmfleet_runtime.middleware import EngineMiddleware
from llmfleet_runtime.settings import PluginSettings
from tests.unit.runtime.conftest import shown

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")],
}
FAILURE = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
MISTAKE = b'data: {"error": {"message": "too long", "code": 400}}\n\n'


def chunk(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


pytestmark = pytest.mark.usefixtures("registry")


class Engine:
    """vLLM's side: sends what it is told, and notes after each step what has left."""

    def __init__(self, folder: Path, steps: list[dict[str, Any] | Exception]) -> None:
        (folder / "token").write_text("t")
        Activity(folder / "activity", create=True)
        settings = PluginSettings(
            revision="r1", served_names=("tiny",), token_file=str(folder / "token"),
            loopback_key="k", activity_file=str(folder / "activity"), priority_scheduling=False,
        )  # fmt: skip
        self.steps = steps
        self.sent: list[dict[str, Any]] = []
        self.left_after: list[int] = []
        """Messages that had left after each step."""
        self._middleware = EngineMiddleware(self._app, settings)

    async def _app(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            await send(step)
            self.left_after.append(len(self.sent))

    async def ask(self) -> None:
        async def send(message: Any) -> None:
            self.sent.append(dict(message))

        async def receive() -> Any:
            return await asyncio.Event().wait()

        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions",
            "headers": [(b"x-llmfleet-token", b"t")],
        }  # fmt: skip
        await self._middleware(scope, receive, send)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_stream_when_no_token_has_come_then_its_headers_have_not_left(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [START, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n", more=False)])
    await engine.ask()
    assert engine.left_after == [0, 2, 3]
    assert engine.sent == engine.steps


@pytest.mark.parametrize(
    "nothing",
    [
        b": ping\n\n",
        b"",
        b": a\r\n: b\r\n\r\n",
        b": half of a comm",
        b"event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n",
    ],
)
async def test_what_comes_before_a_token_when_it_is_none_then_it_leaves_with_the_first(
    tmp_path: Path, nothing: bytes
) -> None:
    engine = Engine(tmp_path, [START, chunk(nothing), chunk(b"\ndata: 1\n\n", more=False)])
    await engine.ask()
    assert engine.left_after == [0, 0, 3]
    assert engine.sent == engine.steps


@pytest.mark.parametrize(
    "chunks",
    [
        (b": ping\n\n" + FAILURE,),
        (FAILURE[:20], FAILURE[20:]),
        (b"event: error\n" + FAILURE,),
        (b"event: response.created\ndata: {}\n\n", b"event: error\n" + FAILURE),
    ],
)
async def test_engine_when_it_fails_before_a_token_however_it_says_so_then_the_answer_is_500(
    tmp_path: Path, chunks: tuple[bytes, ...]
) -> None:
    engine = Engine(tmp_path, [START, *map(chunk, chunks), chunk(b"data: [DONE]\n\n", more=False)])
    await engine.ask()
    assert [message.get("status") for message in engine.sent] == [500, None]


async def test_bytes_when_they_are_no_stream_then_they_pass_whatever_they_begin_with(
    tmp_path: Path,
) -> None:
    start = {**START, "headers": [(b"content-type", b"application/octet-stream")]}
    engine = Engine(tmp_path, [start, chunk(b":\x00\x80?"), chunk(b"x", more=False)])
    await engine.ask()
    assert engine.sent == engine.steps


async def test_keep_alive_when_it_comes_after_a_token_then_it_passes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [START, chunk(b"data: 1\n\n"), chunk(b": ping\n\n", more=False)])
    await engine.ask()
    assert engine.sent == engine.steps


async def test_engine_when_it_fails_before_a_token_then_the_answer_is_500(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    engine = Engine(tmp_path, [START, chunk(FAILURE), chunk(b"data: [DONE]\n\n", more=False)])
    await engine.ask()
    assert engine.sent[0]["status"] == 500
    assert (b"content-type", b"application/json") in engine.sent[0]["headers"]
    error = json.loads(engine.body)["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_error")
    assert 'status="500"} 1.0' in shown(registry)


async def test_engine_when_it_fails_after_a_token_then_the_answer_is_left_broken(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    engine = Engine(tmp_path, [START, chunk(b"data: 1\n\n"), chunk(FAILURE)])
    await engine.ask()
    assert [message.get("more_body") for message in engine.sent] == [None, True, True]
    assert engine.body == b"data: 1\n\n" + FAILURE
    assert 'status="500"} 1.0' in shown(registry)


async def test_client_s_mistake_when_it_is_said_in_a_stream_then_it_passes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [START, chunk(MISTAKE, more=False)])
    await engine.ask()
    assert engine.sent == engine.steps


async def test_app_when_it_breaks_before_a_token_then_nothing_has_left(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [START, RuntimeError("died")])
    with pytest.raises(RuntimeError):  # uvicorn answers 500, since nothing was begun
        await engine.ask()
    assert engine.sent == []


async def test_answer_when_it_has_no_body_then_it_leaves_at_its_end(tmp_path: Path) -> None:
    empty = {"type": "http.response.body", "body": b"", "more_body": False}
    engine = Engine(tmp_path, [START, empty])
    await engine.ask()
    assert engine.sent == engine.steps
