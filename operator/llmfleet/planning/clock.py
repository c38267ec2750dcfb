"""Times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(when: datetime) -> str:
    """A time as the API writes it, in whole seconds.

    Example:
        >>> format_time(datetime(2026, 3, 1, 12, tzinfo=UTC))
        '2026-03-01T12:00:00Z'
    """
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
