"""The load of `make test-zero-lost` counts each request once, as what it was."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

SCRIPT = Path(__file__).parent.parent / "zerolost" / "load.py"
KINDS = ("good", "refused", "cut", "unfinished")
JSON = dict[str, Any]
AGAIN: JSON = {"error": {"code": "no_engine_available"}}
FINISHED: dict[str, Any] = {"delta": {"content": "x"}, "finish_reason": "length"}


class Server:
    """Answers in turn: whole, 503, cut in the middle, ended properly but without a finish."""

    def __init__(self) -> None:
        self.kinds: tuple[str, ...] = KINDS
        self.served = dict.fromkeys(KINDS, 0)
        self.engines_from = self.waited = 0
        """So many requests are told first to come again; those that were."""
        self.connections: set[object] = set()
        self.requests = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        kind = self.kinds[self.requests // 4 % len(self.kinds)]
        self.requests += 1
        if self.waited < self.engines_from:
            self.waited += 1
            return web.json_response(AGAIN, status=503, headers={"retry-after": "0.01"})
        self.served[kind] += 1
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        if kind == "refused":
            return web.json_response({"error": {}}, status=503)
        choice = {"message": {}, **FINISHED}
        if kind == "unfinished":
            choice["finish_reason"] = None
        answer = {"choices": [choice], "usage": {"completion_tokens": 1}}
        if not body["stream"] and kind != "cut":
            return web.json_response(answer)
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        await reply.write(b"data: " + json.dumps(answer).encode() + b"\n\n")
        if kind == "cut":
            request.transport.abort()
            return reply
        await reply.write(b"data: [DONE]\n\n")
        return reply


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    made = Server()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield made, f"http://{host}:{port}"
    await runner.cleanup()


async def load(url: str, folder: Path, **environment: str) -> tuple[JSON, list[JSON]]:
    """The final counts and the losses of two seconds of load."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ, "BASE_URL": url, "MODEL": "m", "RATE": "200", "SECONDS": "2",
            "STOP_FILE": str(folder / "stop"), **environment,
        },
    )  # fmt: skip
    output, _ = await process.communicate()
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[-1]["final"]
    return lines[-1], [line["loss"] for line in lines if "loss" in line]


async def test_load_when_answers_are_refused_cut_or_unfinished_then_each_counts_once(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    served, url = server
    counts, losses = await load(url, tmp_path)

    assert counts["sent"] == served.requests > 16
    assert counts["succeeded"] == served.served["good"]
    assert counts["failed"] == served.served["refused"]
    assert counts["truncated"] == served.served["cut"] + served.served["unfinished"]
    assert counts["streams"] == counts["sent"] // 2
    assert counts["new_connections"] <= len(served.connections) < counts["sent"]
    assert losses[0]["status"] == 503
    assert len(losses) == counts["failed"] + counts["truncated"]


async def test_load_when_clients_wait_then_only_the_answer_that_says_so_is_asked_again(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    served, url = server
    served.engines_from = 100
    served.kinds = ("good", "refused")
    before = time.time()
    counts, losses = await load(url, tmp_path, WAIT_SECONDS="60")

    assert counts["waits"] == served.waited == 100
    assert before < counts["first_wait"] < counts["last_wait"] < time.time()
    assert counts["sent"] == served.requests - served.waited
    assert counts["succeeded"] == served.served["good"]
    assert counts["failed"] == served.served["refused"] == len(losses)
