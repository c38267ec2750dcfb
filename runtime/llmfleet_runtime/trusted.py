"""The headers that only a router can send, and what the engine gets of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from llmfleet_runtime.refused import Refused

TOKEN_HEADER = "x-llmfleet-token"  # noqa: S105  # a header's name
LOOPBACK_HEADER = "x-llmfleet-loopback"
OWN_REQUEST_ID = "llmfleet-own-"
"""Request ids of warm-up and deep health begin so; their tokens are not counted."""
FORWARDED_HEADERS = frozenset(
    {
        b"accept", b"content-length", b"content-type", b"expect", b"host", b"traceparent",
        b"tracestate", b"transfer-encoding", b"x-request-id", b"x-llmfleet-tenant",
        b"x-llmfleet-priority", b"x-llmfleet-max-tokens",
    }
)  # fmt: skip
"""Request headers that reach vLLM; it reads others too, such as a data-parallel rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What the router says about a request."""

    cache_salt: str | None = None
    """Separates tenants in the prefix cache; hex, since the engine forbids some characters."""
    priority: int = 0
    """Lower is earlier; int64."""
    max_tokens: int | None = None
    """Cap on tokens generated."""


def read_trusted(headers: Mapping[str, str]) -> Trusted:
    """Reads the trusted headers of one request.

    Raises:
        Refused: a header that is no number; a fault of the router, said clearly.
    """
    tenant = headers.get("x-llmfleet-tenant")
    salt = hashlib.sha256(f"tenant:{tenant}".encode()).hexdigest() if tenant else None
    priority = _number(headers, "x-llmfleet-priority", -(2**63), 2**63 - 1)
    return Trusted(
        cache_salt=salt,
        priority=priority or 0,
        max_tokens=_number(headers, "x-llmfleet-max-tokens", 1, 2**31),
    )


def _number(headers: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        value = high + 1
    if not low <= value <= high:
        raise Refused(f"The header {name} must be a number.", code="invalid_header")
    return value
