"""A person's ``abort``, or ``undo`` back to the served revision."""

from __future__ import annotations

from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.triggers.trigger import Rising


def aborted_by_hand(rising: Rising) -> Failure | None:
    """Rejected, and left only as fast as ready pods of the served revision can take over."""
    if rising.acts.run.get("abort") == rising.attempt.revision:
        reason, text = "UserAbort", "aborted by hand"
    elif rising.acts.run.get("undo") == rising.stable:
        reason, text = "UserUndo", f"undone by hand: {rising.stable} stays"
    else:
        return None
    return Failure(reason=reason, message=text, rejected=True)
