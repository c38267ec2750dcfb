"""Answers of the engine that are the request's fault, told as such.

A 5xx or a stream that breaks off counts against the engine: routers take it out of service, and a
release is sent back over it. What a client can bring about at will must be a 4xx instead, or inside
a stream that API's own form of it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from llmfleet_runtime.middleware import is_engine_failure
from llmfleet_runtime.refused import Refused

_GRAMMARS = ("structured_outputs", "response_format", "tools")
_NARROWING = ("allowed_token_ids", "bad_words", "stop_token_ids")


def unsatisfiable(request: Any) -> Refused | None:
    """The refusal of a request for which the engine may find no token; None: it always finds one.

    A grammar leaves some tokens, and each of ``_NARROWING`` takes some away. When none is left,
    vLLM draws a forbidden one, notices, and fails this request alone as if the fault were its own.
    """
    fields = vars(request)
    narrowing = [name for name in _NARROWING if fields.get(name)]
    if not narrowing or not any(fields.get(name) for name in _GRAMMARS):
        return None
    return Refused(
        f"No token satisfies both the grammar and {' and '.join(narrowing)}: loosen one of them.",
        param=narrowing[0],
        code="unsatisfiable",
    )


async def told_in_chunks(chunks: AsyncIterable[Any], refused: Refused) -> AsyncIterator[Any]:
    """A chat or completion stream in which a failure of this request is told as its refusal."""
    async for chunk in chunks:
        text = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
        if is_engine_failure(text):
            error = {**refused.body()["error"], "code": refused.status}  # vLLM's form in streams
            yield f"data: {json.dumps({'error': error})}\n\n"
        else:
            yield chunk


async def told_as_event(
    events: AsyncIterable[Any], refusals: tuple[type[Exception], ...]
) -> AsyncIterator[Any]:
    """A stream of /v1/responses that ends with an ``error`` event where the engine refuses.

    vLLM checks some parameters only once the stream has begun. Its chat and completion streams
    then tell the client; its responses stream just breaks off. What is no refusal still does.
    """
    sent = 0
    try:
        async for event in events:
            sent += 1
            yield event
    except refusals as error:
        refusal = {
            "type": "error",
            "code": "invalid_value",
            "message": str(error),
            "param": getattr(error, "parameter", None),
            "sequence_number": sent,
        }
        yield f"event: error\ndata: {json.dumps(refusal)}\n\n"
