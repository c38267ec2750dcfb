"""The one file that touches vLLM's internals: its plugins, registered as entry points.

* ``vllm.endpoint_plugins``: ``llmfleet_endpoints`` puts the guarded routes over vLLM's own;
* ``vllm.stat_logger_plugins``: ``llmfleet_stats`` counts tokens of finished requests;
* vLLM's registry of media connectors: ``llmfleet`` (VLLM_MEDIA_CONNECTOR) fetches media. Importing
  this module registers it; without it, vLLM finds no connector of that name and fetches nothing.

Written against vLLM 0.32. The supervisor proves before Ready that the guard is active, since
vLLM only logs a plugin that fails to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from fastapi import FastAPI
from vllm.connections import HTTPConnection
from vllm.entrypoints.openai.chat_completion import api_router as chat
from vllm.entrypoints.openai.completion import api_router as completion
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.pooling.embed import api_router as embedding
from vllm.exceptions import GenerationError, VLLMClientError, VLLMError, VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.v1.metrics.loggers import StatLoggerBase

from llmfleet_runtime.endpoints import Endpoint, Rules, attach
from llmfleet_runtime.media import CONNECTOR, MediaPolicy, MediaRefused
from llmfleet_runtime.media_fetch import media_session
from llmfleet_runtime.metrics import TokenMetrics
from llmfleet_runtime.settings import PluginSettings
from llmfleet_runtime.trusted import OWN_REQUEST_ID


def engine_endpoints() -> list[Endpoint]:
    """Inference routes of vLLM: its request models and its own handlers."""
    return [
        Endpoint(
            path="/v1/chat/completions",
            operation="chat",
            request_type=chat.ChatCompletionRequest,
            handler=chat.create_chat_completion,
            failures=(GenerationError,),
        ),
        Endpoint(
            path="/v1/completions",
            operation="completion",
            request_type=completion.CompletionRequest,
            handler=completion.create_completion,
            failures=(GenerationError,),
        ),
        Endpoint(
            path="/v1/responses",
            operation="responses",
            request_type=responses.ResponsesRequest,
            handler=responses.create_responses,
            refusals=(VLLMClientError, ValueError),
        ),
        Endpoint(
            path="/v1/embeddings",
            operation="embedding",
            request_type=embedding.EmbeddingRequest,
            handler=embedding.create_embedding,
        ),
    ]


class Endpoints:
    """vLLM's EndpointPlugin protocol."""

    name = "llmfleet_endpoints"
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Called by vLLM after its own routes are registered; same paths replace them."""
        served = {getattr(route, "path", None) for route in app.routes}
        settings = PluginSettings.from_environment()
        attach(
            app,
            [
                endpoint if endpoint.path in served else replace(endpoint, handler=None)
                for endpoint in engine_endpoints()
            ],
            Rules(priority_scheduling=settings.priority_scheduling, media=settings.media_policy()),
        )

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Nothing to prepare: the routes use vLLM's own state."""


class GuardedConnection(HTTPConnection):  # type: ignore[misc]  # vLLM has no types without its install
    """vLLM's client for media, which opens only what the policy allows and follows no redirect."""

    def __init__(self, policy: MediaPolicy) -> None:
        super().__init__()
        self._policy = policy
        self._session: ClientSession | None = None

    async def get_async_response(
        self,
        url: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # vLLM's own signature
        **_: Any,
    ) -> Any:
        """The request, as a context manager; vLLM's caller limits its size."""
        self._policy.check_url(url)
        if self._session is None:
            self._session = media_session(self._policy)
        return self._session.get(
            url,
            headers=self._headers(),
            timeout=ClientTimeout(total=timeout),
            allow_redirects=False,
        )

    async def close(self) -> None:
        """Closes its connections; the next request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def get_response(self, url: str, **_: Any) -> Any:
        """Nothing is fetched outside the server's event loop: only offline use of vLLM does."""
        raise MediaRefused(f"media are not fetched here: {url[:64]!r}")


@cache
def _connection() -> GuardedConnection:
    return GuardedConnection(PluginSettings.from_environment().media_policy())


@MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class GuardedMediaConnector(MediaConnector):  # type: ignore[misc]
    """Loads every picture, sound and video of a request, from wherever in its body it came.

    Files are refused whatever the engine was started with. The engine's own list of domains
    (--allowed-media-domains) is checked as well.
    """

    def __init__(
        self,
        media_io_kwargs: dict[str, dict[str, Any]] | None = None,
        *,
        allowed_local_media_path: str = "",
        allowed_media_domains: list[str] | None = None,
    ) -> None:
        del allowed_local_media_path
        self._policy = PluginSettings.from_environment().media_policy()
        super().__init__(
            media_io_kwargs, _connection(), allowed_media_domains=allowed_media_domains
        )

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        """Decodes a data: URL; anything else is refused."""
        with _as_client_error():
            self._policy.check_url(url)
            return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)

    async def load_from_url_async(
        self, url: str, media_io: Any, *, fetch_timeout: int | None = None
    ) -> Any:
        """Decodes a data: URL, or fetches from an allowed host."""
        with _as_client_error():
            self._policy.check_url(url)
            return await super().load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)


@contextmanager
def _as_client_error() -> Iterator[None]:
    """Media that cannot be had are the request's fault, not the revision's: 400, never 500."""
    try:
        yield
    except MediaRefused as refused:
        raise VLLMValidationError(f"{refused}.", parameter="url") from refused
    except (ClientError, TimeoutError) as error:
        raise VLLMValidationError(
            f"the media could not be fetched ({type(error).__name__}).", parameter="url"
        ) from error
    except (VLLMError, ImportError, MemoryError):
        raise  # already told apart, or the image's fault: a decoder that is missing
    except Exception as error:  # whatever a dozen decoders make of bytes that are no picture
        raise VLLMValidationError(
            f"the media could not be read ({type(error).__name__}): {str(error)[:200]}",
            parameter="url",
        ) from error


_TOKENS: list[TokenMetrics] = []
"""One for the process: vLLM makes a logger per engine, Prometheus wants each metric once."""


class TokenStats(StatLoggerBase):  # type: ignore[misc]  # vLLM has no types without its install
    """Counts input and output tokens of finished requests."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        del engine_index
        settings = PluginSettings.from_environment()
        if not _TOKENS:
            _TOKENS.append(TokenMetrics(settings.revision))
        served = vllm_config.model_config.served_model_name
        self._model = served[0] if isinstance(served, list) else str(served)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Called by vLLM after every engine step."""
        del scheduler_stats, mm_cache_stats, engine_idx
        if iteration_stats is None:
            return
        for finished in iteration_stats.finished_requests:
            if OWN_REQUEST_ID in (finished.request_id or ""):
                continue
            _TOKENS[0].add(
                model=self._model,
                input_tokens=finished.num_prompt_tokens,
                output_tokens=finished.num_generation_tokens,
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""
