"""How an attempt to roll a revision out ended, told once."""

from __future__ import annotations

from datetime import datetime

from llmfleet.planning.plan import Outcome, Result
from llmfleet.planning.rollout.stage import Rollout
from llmfleet.planning.rollout.state import attempt_of


def find_outcome(rollout: Rollout, now: datetime) -> Outcome | None:
    """The end of the attempt under way, if this decision ends it."""
    advance = rollout.advance
    attempt = attempt_of(advance.state_before)
    seconds = (now - attempt.started_at).total_seconds() if attempt is not None else 0.0
    if advance.promoted is not None:
        return Outcome(
            revision=advance.promoted, result=Result.PROMOTED, reason="Promoted", seconds=seconds
        )
    if advance.ended is None:
        return None
    if advance.failure is not None:
        result = Result.REJECTED if advance.failure.rejected else Result.ABORTED
        reason = advance.failure.reason
    else:
        result, reason = Result.ABORTED, "Superseded"
    return Outcome(revision=advance.ended, result=result, reason=reason, seconds=seconds)
