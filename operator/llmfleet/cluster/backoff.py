"""Exponential backoff with jitter, as arithmetic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Delays that double from ``first_seconds`` to ``longest_seconds``.

    Each delay is drawn from the upper half of its interval ("equal jitter", M. Brooker,
    *Exponential Backoff And Jitter*, AWS Architecture Blog 2015), so that many objects that failed
    together do not return together, and none returns at once.

    Example:
        >>> backoff = Backoff(first_seconds=1, longest_seconds=300)
        >>> [backoff.next_seconds(1.0) for _ in range(4)]
        [1.0, 2.0, 4.0, 8.0]
    """

    first_seconds: float
    longest_seconds: float
    failures: int = 0

    def next_seconds(self, draw: float) -> float:
        """The next delay; ``draw`` is a random number in [0, 1]."""
        full = min(self.longest_seconds, self.first_seconds * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return full * (0.5 + draw / 2)

    def reset(self) -> None:
        """Start over after a success."""
        self.failures = 0
