"""The guarded inference routes, as FastAPI handlers around whatever engine function they get.

Knows FastAPI and pydantic, not vLLM: the plugin hands in the engine's request models and its own
handlers, tests hand in small ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from llmfleet_runtime.body import LARGE_BODY_BYTES, parse_body
from llmfleet_runtime.guard import check_fields, limit
from llmfleet_runtime.media import MediaPolicy
from llmfleet_runtime.middleware import SCOPE_KEY, RequestInfo
from llmfleet_runtime.refusals import told_as_event, told_in_chunks, unsatisfiable
from llmfleet_runtime.refused import Refused, error_body
from llmfleet_runtime.trusted import Trusted, read_trusted

LARGE_BODIES = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-body")
"""Parses and checks bodies above LARGE_BODY_BYTES, one at a time: two at once would take no less
time together, and hold Python's lock twice as often against the event loop."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the pod's own settings say about requests."""

    priority_scheduling: bool
    """Whether the engine orders by priority; it refuses priorities otherwise."""
    media: MediaPolicy
    """From where the engine may fetch media."""


def attach(app: FastAPI, endpoints: list[Endpoint], rules: Rules) -> None:
    """Registers guarded routes; vLLM then drops its own of the same path and method."""
    for endpoint in endpoints:
        app.add_api_route(
            endpoint.path,
            _guarded(endpoint, rules),
            methods=["POST"],
            response_model=None,
            name=f"llmfleet_{endpoint.operation}",
        )


def _guarded(endpoint: Endpoint, rules: Rules) -> Callable[[Request], Awaitable[Response]]:
    validator = build_validator(endpoint.request_type)

    async def handle(raw_request: Request) -> Response:
        if endpoint.handler is None:
            message = f"This model does not serve {endpoint.path}."
            return JSONResponse(error_body(message, code="not_supported"), status_code=404)
        try:
            trusted = _trusted(raw_request)
            body = await raw_request.body()
            info = raw_request.scope.get(SCOPE_KEY)
            read = partial(_read, endpoint.operation, validator, rules, body, trusted, info)
            if len(body) > LARGE_BODY_BYTES:
                loop = asyncio.get_running_loop()
                request = await loop.run_in_executor(LARGE_BODIES, read)
            else:
                request = read()
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


def build_validator(request_type: Any) -> SchemaValidator:
    """The engine's own validation, which stops at the first wrong item of any list.

    Left as it is, it collects the errors of every item from every type that the item might have
    been: 233 and half a megabyte for an empty object in the input of /v1/responses, so that a body
    of 60 KB took all memory of the pod.
    """
    schema = _stopping_early(TypeAdapter(request_type).core_schema)
    # Else pydantic takes the ready-made validators of nested models, which know nothing of this.
    return SchemaValidator(schema, _use_prebuilt=False)


def _stopping_early(schema: Any) -> Any:
    """A copy of a schema with ``fail_fast`` in every list."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(_stopping_early(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    copy = {
        name: value if name == "default" else _stopping_early(value)
        for name, value in schema.items()
    }
    return {**copy, "fail_fast": True} if copy.get("type") in _LISTS else copy


_LISTS = ("list", "tuple", "set", "frozenset")


def _trusted(raw_request: Request) -> Trusted:
    """The trusted headers of a request with a JSON body.

    Raises:
        Refused: another content type (415), or a header that is no number.
    """
    media_type = raw_request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(
            "Send the body as content-type application/json.",
            code="unsupported_media_type",
            status=415,
        )
    return read_trusted(raw_request.headers)


def _read(
    operation: str,
    validator: SchemaValidator,
    rules: Rules,
    body: bytes,
    trusted: Trusted,
    info: RequestInfo | None,
) -> Any:
    """The engine's request object: parsed once, checked, with the trusted values set.

    Raises:
        Refused: what the client must change.
    """
    data = parse_body(body)
    check_fields(operation, data, rules.media)
    if info is not None and isinstance(data.get("model"), str):
        info.model = data["model"]
    try:
        request = validator.validate_python(data)
    except ValidationError as error:
        raise _as_refused(error) from error
    except ValueError as error:  # vLLM's own validation errors
        raise Refused(
            str(error), param=getattr(error, "parameter", None), code="invalid_value"
        ) from error
    limit(operation, request, trusted.max_tokens)
    # Absent on some models (responses of older engines); the allow-list kept clients' values out.
    if trusted.cache_salt is not None and "cache_salt" in type(request).model_fields:
        request.cache_salt = trusted.cache_salt
    if rules.priority_scheduling and "priority" in type(request).model_fields:
        request.priority = trusted.priority
    return request


def _as_refused(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = f"{place}: {first['msg']}" if place else str(first["msg"])
    return Refused(message, param=place or None, code="invalid_value")
