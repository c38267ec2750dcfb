"""What every metric says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmfleet.planning.snapshot import Look

Process = Callable[[tuple[Look, ...], tuple[Look, ...], float], float]
"""Intervals of stable, the same ones of the canary, and the worsening that is accepted → natural
logarithm of the evidence that the canary is worse than that, valid at every look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: how its numbers are judged, and what a failure is called."""

    name: str
    """As in ``rollout.analysis.metrics``."""
    process: Process
    """Evidence from intervals in which both revisions have requests."""
    process_alone: Process
    """Evidence from those in which stable has none, held against its earlier ones."""
    default_effect: float
    """Smallest worsening that matters where spec names none, a share of all requests, 0 … 1."""
    session_effect: float
    """The same where each session stays with a revision."""
    effect_alone: float
    """Worsening accepted where stable has no requests at the same time."""
    reason: str
    """Of the failure, where it is a revision's own: CamelCase, stable, in docs/runbooks.md."""

    def min_effect(self, chosen: float | None, *, sessions: bool) -> float:
        """The worsening that is accepted: what spec says, or the default.

        Args:
            chosen: spec's, a share; None without one.
            sessions: each session stays with a revision.
        """
        if chosen is not None:
            return chosen
        return self.session_effect if sessions else self.default_effect
