"""The load of `make test-zero-lost` counts each request once, as what it was."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

SCRIPT = Path(__file__).parent.parent / "zerolost" / "load.py"
KINDS = ("good", "refused", "cut", "unfinished")
FINISHED: dict[str, Any] = {"delta": {"content": "x"}, "finish_reason": "length"}


class Server:
    """Answers in turn: whole, 503, cut in the middle, ended properly but without a finish."""

    def __init__(self) -> None:
        self.served = dict.fromkeys(KINDS, 0)
        self.connections: set[object] = set()
        self.requests = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        kind = KINDS[self.requests // 4 % 4]
        self.requests += 1
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


async def test_load_when_answers_are_refused_cut_or_unfinished_then_each_counts_once(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    served, url = server
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ, "BASE_URL": url, "MODEL": "m", "RATE": "200", "SECONDS": "2",
            "STOP_FILE": str(tmp_path / "stop"),
        },
    )  # fmt: skip
    output, _ = await process.communicate()
    lines = [json.loads(line) for line in output.splitlines()]
    counts, losses = lines[-1], [line["loss"] for line in lines if "loss" in line]

    assert counts["final"]
    assert counts["sent"] == served.requests > 16
    assert counts["succeeded"] == served.served["good"]
    assert counts["failed"] == served.served["refused"]
    assert counts["truncated"] == served.served["cut"] + served.served["unfinished"]
    assert counts["streams"] == counts["sent"] // 2
    assert counts["new_connections"] <= len(served.connections) < counts["sent"]
    assert losses[0]["status"] == 503
    assert len(losses) == counts["failed"] + counts["truncated"]
