"""Times as people read them."""

from __future__ import annotations

from datetime import datetime


def age(since: datetime, now: datetime) -> str:
    """Time passed, in the largest unit that fits: 45s, 12m, 7h, 3d.

    >>> from datetime import UTC
    >>> age(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 7, 30, tzinfo=UTC))
    '7h'
    """
    seconds = max(0, int((now - since).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
