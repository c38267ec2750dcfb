"""Which revision answers nothing any more, while the other one does. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

HUNG_REQUESTS: Final = 3
HUNG_TIMEOUTS: Final = 2.0


class Hanging:
    """When each revision answered last, and what it was sent since.

    A revision hangs when it answered none of ``HUNG_REQUESTS`` requests, each older than the
    timeout of the first token and one older than ``HUNG_TIMEOUTS`` of them, while another revision
    answered. Nothing is known of when a request was answered, only of when it was sent.

    Args:
        timeout_seconds: of the first token.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._answered: dict[str, float] = defaultdict(float)
        """When the last request that was answered was sent, by revision."""
        self._silent: dict[str, dict[float, int]] = defaultdict(dict)
        """Requests sent since then, by revision and the time of their slot."""

    def note(self, revision: str, at: float, sent: int, answered: int) -> None:
        """Take what is known of a slot; the newest word counts.

        Args:
            revision: hash.
            at: the slot's beginning, in seconds since 1970.
            sent: its requests.
            answered: those of them with a first token, or an answer of another kind.
        """
        silent = self._silent[revision]
        if answered:
            self._answered[revision] = max(at, self._answered[revision])
            for earlier in [each for each in silent if each <= self._answered[revision]]:
                del silent[earlier]
        elif sent and at > self._answered[revision]:
            silent[at] = sent

    def requests(self, now: float) -> dict[str, int]:
        """How many a revision that hangs has not answered; others are absent.

        Args:
            now: seconds since 1970.
        """
        return {
            revision: many
            for revision, silent in self._silent.items()
            if silent
            and now - min(silent) >= HUNG_TIMEOUTS * self._timeout
            and (many := sum(n for at, n in silent.items() if at <= now - self._timeout))
            >= HUNG_REQUESTS
            and any(at > min(silent) for name, at in self._answered.items() if name != revision)
        }
