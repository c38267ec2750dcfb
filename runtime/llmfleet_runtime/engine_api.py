"""Calls to vLLM's own port over loopback: health, metrics, one generated token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

from llmfleet_runtime.errors import Failure, Reason
from llmfleet_runtime.trusted import LOOPBACK_HEADER, OWN_REQUEST_ID, TOKEN_HEADER

WARM_UP_PROMPT = "The quick brown fox jumps over the lazy dog. " * 8


class EngineHealth(StrEnum):
    """What vLLM says about itself."""

    UP = "Up"
    DEAD = "Dead"
    """It answered that its engine core is gone."""
    UNREACHABLE = "Unreachable"
    """No answer: still loading, or its event loop is busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Outcome of one tiny request."""

    ok: bool
    seconds: float
    detail: str
    supported: bool = True
    """False when the model does not generate (an embedding model)."""


class EngineApi:
    """A client of the engine in the same pod; open ``async with``."""

    def __init__(self, port: int, loopback_key: str, model: str) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._headers = {LOOPBACK_HEADER: loopback_key}
        self._sent = 0
        self._model = model
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> EngineApi:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Status and body.

        Raises:
            aiohttp.ClientError, TimeoutError: no answer.
        """
        if self._session is None:
            raise RuntimeError("EngineApi is used outside `async with`")
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._sent += 1
        own = {**self._headers, "x-request-id": f"{OWN_REQUEST_ID}{self._sent}"}
        sent = own if headers is None else headers
        async with self._session.request(
            method, self._base + path, json=json, headers=sent, timeout=timeout
        ) as answer:
            return answer.status, await answer.text()

    async def health(self, timeout_seconds: float = 5.0) -> EngineHealth:
        """VLLM's /health; no answer is not the same as a dead engine."""
        try:
            status, _ = await self._ask("GET", "/health", timeout_seconds=timeout_seconds)
        except (aiohttp.ClientError, TimeoutError):
            return EngineHealth.UNREACHABLE
        return EngineHealth.UP if status == 200 else EngineHealth.DEAD

    async def metrics(self, timeout_seconds: float = 5.0) -> str | None:
        """VLLM's metrics page; None when it cannot be had."""
        try:
            status, text = await self._ask("GET", "/metrics", timeout_seconds=timeout_seconds)
        except (aiohttp.ClientError, TimeoutError):
            return None
        return text if status == 200 else None

    async def generate(
        self,
        *,
        tokens: int = 1,
        prompt: str = "ping",
        logprobs: int | None = None,
        timeout_seconds: float = 60.0,
    ) -> Generation:
        """Generates a few tokens, or embeds the prompt on a model that only embeds."""
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "logprobs": logprobs,
        }
        begun = time.monotonic()
        try:
            status, text = await self._ask(
                "POST", "/v1/completions", json=body, timeout_seconds=timeout_seconds
            )
            if status in {404, 501} or "does not support Completions" in text:
                status, text = await self._ask(
                    "POST",
                    "/v1/embeddings",
                    json={"model": self._model, "input": prompt},
                    timeout_seconds=timeout_seconds,
                )
        except TimeoutError:
            return Generation(
                ok=False,
                seconds=time.monotonic() - begun,
                detail=f"no token within {timeout_seconds:g} s",
            )
        except aiohttp.ClientError as error:
            return Generation(
                ok=False,
                seconds=time.monotonic() - begun,
                detail=f"{type(error).__name__}: {error}",
            )
        return Generation(
            ok=status == 200,
            seconds=time.monotonic() - begun,
            detail="" if status == 200 else f"{status}: {text[:300]}",
        )

    async def warm_up(self) -> Generation:
        """A longer prompt and several tokens, so that the first client pays for no set-up.

        With log-probabilities: on GPUs vLLM compiles their part of the sampler for the first
        request that asks for them, and an image that cannot shall never become ready.
        """
        first = await self.generate(
            tokens=16, prompt=WARM_UP_PROMPT, logprobs=1, timeout_seconds=600
        )
        return await self.generate(tokens=4, timeout_seconds=600) if first.ok else first

    async def prove_guarded(self, *, token_required: bool) -> None:
        """Checks on the running server that token check, path list and body guard are active.

        vLLM only logs a plugin that fails to load, and would then serve without it.

        Raises:
            Failure: ``EngineError``, naming the guard that is missing.
        """
        forbidden = {"model": self._model, "prompt": "x", "max_tokens": 1, "cache_salt": "x"}
        status, text = await self._ask(
            "POST", "/v1/completions", json=forbidden, timeout_seconds=60
        )
        served = "/v1/completions"
        if status == 404:  # a model that only embeds has no such route
            served = "/v1/embeddings"
            forbidden = {"model": self._model, "input": "x", "cache_salt": "x"}
            status, text = await self._ask("POST", served, json=forbidden, timeout_seconds=60)
        if status != 400 or "forbidden_field" not in text:
            raise _unguarded("the body guard", f"{served} answered {status}")
        status, _ = await self._ask("GET", "/version", timeout_seconds=60)
        if status != 404:
            raise _unguarded("the path list", f"/version answered {status}")
        if token_required:
            wrong = {TOKEN_HEADER: "-"}
            status, _ = await self._ask("GET", "/v1/models", headers=wrong, timeout_seconds=60)
            if status != 401:
                raise _unguarded("the token check", f"a wrong token was answered {status}")


def _unguarded(what: str, seen: str) -> Failure:
    return Failure(
        Reason.ENGINE_ERROR,
        f"{what} is not active in the engine ({seen}): the image is broken, since llmfleet's"
        " plugins did not load; rebuild it from this repository's Dockerfile",
    )
