"""What the new revision's requests show."""

from __future__ import annotations

from llmfleet.planning.analysis.judge import Verdict
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.triggers.trigger import Rising


def requests_fail(rising: Rising) -> Failure | None:
    """Rejected on evidence against stable at the same time; on less, only sent back."""
    judgement = rising.judgement
    if judgement is None or judgement.verdict is not Verdict.FAILED:
        return None
    reason = judgement.metric.reason
    return Failure(reason=reason, message=judgement.message, rejected=judgement.concurrent)
