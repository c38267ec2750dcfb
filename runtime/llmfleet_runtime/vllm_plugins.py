"""The one file that touches vLLM's internals: its plugins, registered as entry points.

* ``vllm.endpoint_plugins``: ``llmfleet_endpoints`` puts the guarded routes over vLLM's own;
* ``vllm.stat_logger_plugins``: ``llmfleet_stats`` counts tokens of finished requests.

Written against vLLM 0.32. The supervisor proves before Ready that the guard is active, since
vLLM only logs a plugin that fails to load.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from vllm.entrypoints.openai.chat_completion import api_router as chat
from vllm.entrypoints.openai.completion import api_router as completion
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.pooling.embed import api_router as embedding
from vllm.exceptions import GenerationError, VLLMClientError
from vllm.v1.metrics.loggers import StatLoggerBase

from llmfleet_runtime.endpoints import Endpoint, attach
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
            priority_scheduling=settings.priority_scheduling,
        )

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Nothing to prepare: the routes use vLLM's own state."""


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
