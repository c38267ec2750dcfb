"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llmfleet.api import clean_line


class State(StrEnum):
    """Of what was looked for."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer of one check."""

    check: str
    """A stable word, for scripts."""
    state: State
    message: str
    """A sentence; it begins with "cannot know, because" where the state is unknown."""
    fix: str | None = None
    """A chart value or a command that mends it."""

    def as_json(self) -> dict[str, str | None]:
        """For programs."""
        return {
            "check": self.check,
            "state": str(self.state),
            "message": self.message,
            "fix": self.fix,
        }


class UnknownError(Exception):
    """Something cannot be known; the message says why, without a capital letter or a full stop.

    Attributes:
        fix: who or what could tell, if that is known.
    """

    def __init__(self, why: str, fix: str | None = None) -> None:
        super().__init__(clean_line(why))
        self.fix = fix


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, state=State.OK, message=clean_line(message))


def missing(check: str, message: str, fix: str) -> Finding:
    """It is not there, or does not work."""
    return Finding(
        check=check, state=State.MISSING, message=clean_line(message), fix=clean_line(fix)
    )


def unknown(check: str, error: UnknownError) -> Finding:
    """Nobody can tell from here."""
    return Finding(
        check=check,
        state=State.UNKNOWN,
        message=f"cannot know, because {error}",
        fix=error.fix,
    )


def chart_value(name: str, value: str) -> str:
    """The fix that is a value of the chart.

    >>> chart_value("replicas", "2")
    'set the chart value replicas=2'
    """
    return f"set the chart value {name}={value}"
