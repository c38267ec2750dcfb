"""A small engine behind the real middleware and guard: it answers with what reached it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict

from llmfleet_runtime.activity import Activity
from llmfleet_runtime.endpoints import Endpoint, Rules, attach
from llmfleet_runtime.media import MediaPolicy
from llmfleet_runtime.middleware import EngineMiddleware
from llmfleet_runtime.settings import PluginSettings

KEY, TOKEN = "loopback-key", "router-token"


class _Request(BaseModel):
    """As lax as the engine's own models: extra fields pass, "9" becomes 9."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    n: int = 1
    stream: bool = False
    min_tokens: int = 0
    top_k: int | None = None
    length_penalty: float = 1.0
    priority: int = 0
    cache_salt: str | None = None


class Chat(_Request):
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class Completion(_Request):
    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int | None = 16
    structured_outputs: dict[str, Any] | None = None
    bad_words: list[str] = []
    stop_token_ids: list[int] | None = []


class Responses(_Request):
    input: str
    max_output_tokens: int | None = None


class Unservable(Exception):  # noqa: N818  # stands for vLLM's VLLMClientError, no ValueError either
    """The engine's own kind of refusal."""


class RequestFailed(Exception):  # noqa: N818  # stands for vLLM's GenerationError
    """The engine failed one request and goes on."""


class GuardedApp:
    """The app, its counters, and a client."""

    def __init__(
        self,
        folder: Path,
        *,
        priority_scheduling: bool = True,
        media_domains: tuple[str, ...] = (),
    ) -> None:
        self.token_file = folder / "token"
        self.token_file.write_text(TOKEN + "\n")
        self.activity = Activity(folder / "activity", create=True)
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.seen_headers: dict[str, str] = {}
        settings = PluginSettings(
            revision="r1",
            served_names=("tiny",),
            token_file=str(self.token_file),
            loopback_key=KEY,
            activity_file=str(folder / "activity"),
            priority_scheduling=priority_scheduling,
        )
        app = FastAPI()
        app.add_api_route("/metrics", lambda: PlainTextResponse("m 1\n"))
        app.add_api_route("/v1/models", lambda: JSONResponse({"data": []}))
        app.add_api_route("/tokenize", lambda: JSONResponse({}), methods=["POST"])
        attach(
            app,
            [
                Endpoint(
                    path="/v1/chat/completions",
                    operation="chat",
                    request_type=Chat,
                    handler=self._echo,
                ),
                Endpoint(
                    path="/v1/completions",
                    operation="completion",
                    request_type=Completion,
                    handler=self._echo,
                    failures=(RequestFailed,),
                ),
                Endpoint(
                    path="/v1/responses",
                    operation="responses",
                    request_type=Responses,
                    handler=self._stream,
                    refusals=(Unservable,),
                ),
                Endpoint(
                    path="/v1/embeddings",
                    operation="embedding",
                    request_type=Completion,
                    handler=None,
                ),
            ],
            Rules(
                priority_scheduling=priority_scheduling,
                media=MediaPolicy.from_entries(media_domains),
            ),
        )
        self.asgi = EngineMiddleware(app, settings)  # type: ignore[arg-type]  # starlette's own types are wider

    async def _echo(self, request: Any, raw_request: Request) -> Any:
        self.seen_headers = dict(raw_request.headers)
        if getattr(request, "user", None) == "boom":
            return StreamingResponse(_broken_stream(), media_type="text/event-stream")
        if getattr(request, "user", None) == "fail":
            raise RequestFailed("Internal server error")
        if getattr(request, "user", None) == "wait":
            self.reached.set()
            await self.release.wait()
        return JSONResponse(request.model_dump(exclude_none=True))

    async def _stream(self, request: Any, raw_request: Request) -> Any:
        del raw_request
        error = Unservable("no such token") if request.input == "unservable" else OSError("gone")
        return StreamingResponse(_events(error), media_type="text/event-stream")

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client with the router's token."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.asgi),  # type: ignore[arg-type]  # the same ASGI, other aliases
            base_url="http://engine",
            headers={"x-llmfleet-token": TOKEN, **headers},
        )


async def _events(error: Exception) -> AsyncIterator[str]:
    yield "event: response.created\ndata: {}\n\n"
    raise error


async def _broken_stream() -> AsyncIterator[bytes]:
    yield b'data: {"choices": []}\n\n'
    yield b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
    yield b"data: [DONE]\n\n"
