"""The guarded inference routes, as FastAPI handlers around whatever engine function they get.

Knows FastAPI and pydantic, not vLLM: the plugin hands in the engine's request models and its own
handlers, tests hand in small ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import TypeAdapter, ValidationError

from llmfleet_runtime.guard import Refused, check_fields, error_body, limit, parse_body
from llmfleet_runtime.middleware import SCOPE_KEY
from llmfleet_runtime.refusals import told_as_event, told_in_chunks, unsatisfiable
from llmfleet_runtime.trusted import read_trusted

EngineHandler = Callable[[Any, Request], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One inference route of the engine."""

    path: str
    operation: str
    request_type: Any
    """The engine's own request model: a pydantic model or an annotated union of them."""
    handler: EngineHandler | None
    """The engine's own route function, called with the validated request; None = this model
    does not have the operation."""
    refusals: tuple[type[Exception], ...] = (ValueError,)
    """What the engine raises when the request is at fault."""
    failures: tuple[type[Exception], ...] = ()
    """What the engine raises when it fails one request and goes on."""


def attach(app: FastAPI, endpoints: list[Endpoint], *, priority_scheduling: bool) -> None:
    """Registers guarded routes; vLLM then drops its own of the same path and method."""
    for endpoint in endpoints:
        app.add_api_route(
            endpoint.path,
            _guarded(endpoint, priority_scheduling=priority_scheduling),
            methods=["POST"],
            response_model=None,
            name=f"llmfleet_{endpoint.operation}",
        )


def _guarded(
    endpoint: Endpoint, *, priority_scheduling: bool
) -> Callable[[Request], Awaitable[Response]]:
    adapter: TypeAdapter[Any] = TypeAdapter(endpoint.request_type)

    async def handle(raw_request: Request) -> Response:
        if endpoint.handler is None:
            message = f"This model does not serve {endpoint.path}."
            return JSONResponse(error_body(message, code="not_supported"), status_code=404)
        try:
            request = await _checked(endpoint, adapter, raw_request, priority_scheduling)
            return await _answered(endpoint, request, endpoint.handler(request, raw_request))
        except Refused as refused:
            return JSONResponse(refused.body(), status_code=refused.status)

    return handle


async def _answered(endpoint: Endpoint, request: Any, answering: Awaitable[Response]) -> Response:
    """The engine's answer, its refusals told as such.

    Raises:
        Refused: the engine failed over what the request demands.
    """
    refused = unsatisfiable(request)
    try:
        answer = await answering
    except endpoint.failures:
        if refused is None:
            raise
        raise refused from None
    if isinstance(answer, StreamingResponse):
        if endpoint.operation == "responses":
            answer.body_iterator = told_as_event(answer.body_iterator, endpoint.refusals)
        elif refused is not None:
            answer.body_iterator = told_in_chunks(answer.body_iterator, refused)
    return answer


async def _checked(
    endpoint: Endpoint,
    adapter: TypeAdapter[Any],
    raw_request: Request,
    priority_scheduling: bool,
) -> Any:
    """The engine's request object: parsed once, checked, with the trusted values set.

    Raises:
        Refused: what the client must change.
    """
    media_type = raw_request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(
            "Send the body as content-type application/json.",
            code="unsupported_media_type",
            status=415,
        )
    trusted = read_trusted(raw_request.headers)
    data = parse_body(await raw_request.body())
    check_fields(endpoint.operation, data)
    info = raw_request.scope.get(SCOPE_KEY)
    if info is not None and isinstance(data.get("model"), str):
        info.model = data["model"]
    try:
        request = adapter.validate_python(data)
    except ValidationError as error:
        raise _as_refused(error) from error
    except ValueError as error:  # vLLM's own validation errors
        raise Refused(
            str(error), param=getattr(error, "parameter", None), code="invalid_value"
        ) from error
    limit(endpoint.operation, request, trusted.max_tokens)
    # Absent on some models (responses of older engines); the allow-list kept clients' values out.
    if trusted.cache_salt is not None and "cache_salt" in type(request).model_fields:
        request.cache_salt = trusted.cache_salt
    if priority_scheduling and "priority" in type(request).model_fields:
        request.priority = trusted.priority
    return request


def _as_refused(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = f"{place}: {first['msg']}" if place else str(first["msg"])
    return Refused(message, param=place or None, code="invalid_value")
