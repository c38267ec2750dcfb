"""vLLM's API server without a model: same command line, web server, middleware and guarded routes.

A token takes 20 ms and costs almost nothing, so one core carries hundreds of requests a second.
What a request passes through before the engine is the runtime's own code; as in vLLM the server is
uvicorn, closes idle connections after 5 s, and ends within ``--shutdown-timeout`` after SIGTERM.

``STUB_FAULT`` in the environment makes it a bad release: ``errors:SHARE`` (so many requests of
clients are answered 500), ``exit:SECONDS`` (ends after a while), ``never-ready``, ``memory`` (takes
what it gets until it is killed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import Gauge, generate_latest
from pydantic import BaseModel

from llmfleet_runtime.endpoints import Endpoint, Rules, attach
from llmfleet_runtime.middleware import EngineMiddleware
from llmfleet_runtime.settings import PluginSettings
from llmfleet_runtime.trusted import OWN_REQUEST_ID

TOKEN_SECONDS = 0.02
KEEP_ALIVE_SECONDS = 5
"""vLLM's own VLLM_HTTP_TIMEOUT_KEEP_ALIVE."""

RUNNING = Gauge("vllm:num_requests_running", "Requests being answered.", ["engine"]).labels("0")
Gauge("vllm:num_requests_waiting", "Requests waiting.", ["engine"]).labels("0").set(0)


FAULT, _, FAULT_VALUE = os.environ.get("STUB_FAULT", "").partition(":")


class Generate(BaseModel):
    """As much of OpenAI's requests as the runtime's guard reads and this engine needs."""

    model: str
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[str] | None = None
    stream: bool = False
    n: int = 1
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens to answer with."""
        return self.max_completion_tokens or self.max_tokens or 16


def _choice(chat: bool, part: str, text: str, finish: str | None) -> dict[str, Any]:
    said = {part: {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"index": 0, **said, "finish_reason": finish}


async def _stream(request: Generate, *, chat: bool) -> AsyncIterator[bytes]:
    with RUNNING.track_inprogress():
        for number in range(request.tokens):
            await asyncio.sleep(TOKEN_SECONDS)
            finish = "length" if number == request.tokens - 1 else None
            chunk = {
                "id": "stub",
                "model": request.model,
                "choices": [_choice(chat, "delta", f"{number} ", finish)],
            }
            yield b"data: %s\n\n" % json.dumps(chunk).encode()
        yield b"data: [DONE]\n\n"


async def _answer(request: Generate, headers: Mapping[str, str], *, chat: bool) -> Response:
    # The runtime's own requests are answered: a release that cannot even warm up gets no client.
    is_clients = not headers.get("x-request-id", "").startswith(OWN_REQUEST_ID)
    if FAULT == "errors" and is_clients and random.random() < float(FAULT_VALUE):
        return JSONResponse({"error": {"message": "a bad release", "code": "stub"}}, 500)
    if request.stream:
        return StreamingResponse(_stream(request, chat=chat), media_type="text/event-stream")
    with RUNNING.track_inprogress():
        await asyncio.sleep(TOKEN_SECONDS * request.tokens)
    usage = {"prompt_tokens": 1, "completion_tokens": request.tokens}
    text = "word " * request.tokens
    body = {
        "id": "stub",
        "model": request.model,
        "choices": [_choice(chat, "message", text, "length")],
        "usage": usage,
    }
    return JSONResponse(body)


async def chat_completion(request: Generate, raw: Request) -> Response:
    """POST /v1/chat/completions."""
    return await _answer(request, raw.headers, chat=True)


async def completion(request: Generate, raw: Request) -> Response:
    """POST /v1/completions."""
    return await _answer(request, raw.headers, chat=False)


def application(model: str) -> FastAPI:
    """The routes that the runtime lets through, behind its middleware."""
    settings = PluginSettings.from_environment()
    app = FastAPI()
    app.add_middleware(EngineMiddleware, settings=settings)
    attach(
        app,
        [
            Endpoint(
                path="/v1/chat/completions",
                operation="chat",
                request_type=Generate,
                handler=chat_completion,
            ),
            Endpoint(
                path="/v1/completions",
                operation="completion",
                request_type=Generate,
                handler=completion,
            ),
        ],
        Rules(priority_scheduling=settings.priority_scheduling, media=settings.media_policy()),
    )

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=503 if FAULT == "never-ready" else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest())

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [{"id": model, "object": "model"}]})

    return app


def misbehave() -> None:
    """Starts what the fault does by itself."""
    if FAULT == "exit":
        threading.Timer(float(FAULT_VALUE), os._exit, [1]).start()
    if FAULT == "memory":
        threading.Thread(target=_eat, daemon=True).start()


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(b"x" * (16 << 20)))
        time.sleep(0.05)


def main() -> None:
    """Serves until SIGTERM; options of vLLM that mean nothing here are accepted."""
    import uvicorn  # type: ignore[import-not-found]  # noqa: PLC0415  # in the runtime image only

    misbehave()
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shutdown-timeout", type=int, required=True)
    parser.add_argument("--served-model-name", nargs="+", required=True)
    known, _ = parser.parse_known_args()
    uvicorn.run(
        application(known.served_model_name[0]),
        host=known.host,
        port=known.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=known.shutdown_timeout,
    )


if __name__ == "__main__":
    main()
