"""What can go wrong between the operator and the API server, as types.

An object's task answers each type differently: ``Conflict`` observes again at once, ``NotFound`` of
the resource itself ends the task, every other one backs off.
"""

# ruff: noqa: N818 - named like the API server's own reasons
from __future__ import annotations

import json
from typing import Final

from llmfleet.api import clean_line

TOO_MANY_REQUESTS: Final = 429
LONGEST_RETRY_SECONDS: Final = 300.0
_WEBHOOK_FAILED: Final = "failed calling webhook"


class ApiError(Exception):
    """The API server refused or could not be reached; the message is cleaned, whoever wrote it.

    Attributes:
        status: HTTP status; 0 when no answer came.
        reason: the machine-readable word of the answer's ``Status`` object, e.g. ``AlreadyExists``.
        retry_after_seconds: what the server asked to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(clean_line(message))
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Conflict(ApiError):
    """409: what the write was decided from has changed; observe again."""


class AlreadyExists(Conflict):
    """409 of a create: an object of that name is there already."""


class NotFound(ApiError):
    """404: the object, its kind or its namespace is gone."""


class Expired(ApiError):
    """410: the resourceVersion to watch from is too old; list again."""


class OutOfOrder(Expired):
    """A watch brought something older than it had brought before; list again."""


class Forbidden(ApiError):
    """401 or 403: a right is missing, or quota or admission refused the object.

    Also a 500 that says so of a webhook that could not be asked: nothing was written, and how long
    it will be so nobody knows.
    """


class Invalid(ApiError):
    """400, 415 or 422: the server will refuse this body however often it is sent."""


class TooManyRequests(ApiError):
    """429: slow down."""


class Unavailable(ApiError):
    """5xx, a timeout, or no connection at all: nothing is known about the outcome."""


class NotLeading(ApiError):
    """The lease is not surely held any more, so the write was not sent."""


def error_from_answer(
    status: int, body: bytes, what: str, retry_after: str | None = None
) -> ApiError:
    """Build the typed error of an answer.

    Args:
        status: HTTP status, 400 or higher.
        body: the answer's body, a ``Status`` object if the API server wrote it.
        what: the call in words, for the message, e.g. ``PATCH deployments chat-router``.
        retry_after: the ``Retry-After`` header, in seconds.

    Example:
        >>> error_from_answer(409, b'{"reason": "AlreadyExists", "message": "no"}', "POST x")
        AlreadyExists('POST x: 409 AlreadyExists: no')
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    answer = parsed if isinstance(parsed, dict) else {"message": body.decode(errors="replace")}
    reason = clean_line(str(answer.get("reason") or ""))
    message = f"{what}: {status} {reason}: {str(answer.get('message') or '')[:1000]}"
    kind = Forbidden if status == 500 and _WEBHOOK_FAILED in message else _kind_of(status, reason)
    return kind(message, status=status, reason=reason, retry_after_seconds=_seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """A ``Retry-After`` in seconds as far as it is obeyed; None for a date or anything else."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return min(seconds, LONGEST_RETRY_SECONDS) if seconds >= 0 else None


def _kind_of(status: int, reason: str) -> type[ApiError]:
    if status == 409:
        return AlreadyExists if reason == "AlreadyExists" else Conflict
    if status == TOO_MANY_REQUESTS:
        return TooManyRequests
    table: dict[int, type[ApiError]] = {
        400: Invalid, 401: Forbidden, 403: Forbidden, 404: NotFound, 410: Expired,
        415: Invalid, 422: Invalid,
    }  # fmt: skip
    return table.get(status, Unavailable)
