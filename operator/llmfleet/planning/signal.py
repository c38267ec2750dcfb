"""Facts that somebody outside the API server tells: routers, nodes, supervisors, Prometheus.

Each has an age and may be missing. What is too old, of a time to come or of no known time is
missing as well, and a decision that needs it holds and says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from llmfleet.planning.clock import format_time

T = TypeVar("T")

AHEAD: Final = timedelta(seconds=10)
"""So far whoever tells the time of a fact may be ahead of us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(Generic[T]):
    """What was told last, of when it is, or why it is not known.

    Two are equal that tell the same, whenever that was: being told it again is no news.

    Raises:
        ValueError: there is neither a value nor a problem, or both.
    """

    value: T | None = None
    """None = it is not known."""
    as_of: datetime | None = field(default=None, compare=False)
    """Time of the newest sample in it; with a problem, of the newest there was. None = unknown."""
    problem: str = ""
    """Why it is not known, as a sentence; "" while it is."""
    since: datetime | None = None
    """Since when it has not been, if somebody noted that."""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.problem):
            raise ValueError("a signal has either a value or a problem")

    def at(self, now: datetime, lasts: timedelta, what: str) -> Signal[T]:
        """The same as far as it may be decided by now.

        Args:
            now: the time of the decision.
            lasts: so old it tells nothing any more.
            what: its name with its verb, for the sentence, such as "the counts are".

        Example:
            >>> from datetime import UTC
            >>> noon, minute = datetime(2026, 3, 1, 12, tzinfo=UTC), timedelta(minutes=1)
            >>> seen = Signal(value=7, as_of=noon)
            >>> seen.at(noon + timedelta(seconds=59), minute, "the counts are").value
            7
            >>> seen.at(noon + timedelta(seconds=60), minute, "the counts are").problem
            'the counts are of 2026-03-01T12:00:00Z, too old to decide by'
        """
        if self.value is None:
            return self
        if self.as_of is None:
            return Signal(problem=f"{what} of an unknown time")
        if now - self.as_of >= lasts:
            text = f"{what} of {format_time(self.as_of)}, too old to decide by"
            return Signal(problem=text, as_of=self.as_of)
        if self.as_of > now + AHEAD:
            return Signal(problem=f"{what} of {format_time(self.as_of)}, which is still to come")
        return self
