"""What the new revision's requests show."""

from __future__ import annotations

from llmfleet.planning.analysis.judge import Verdict
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.triggers.trigger import Rising


def requests_fail(rising: Rising) -> Failure | None:
    """Rejected on evidence against stable at the same time; on less, only sent back.

    Where most failed because no pod of it could be connected to, and none of its engines has ended,
    a node or the network is down: Kubernetes takes most of a minute to say so.
    """
    judgement = rising.judgement
    if judgement is None or judgement.verdict is not Verdict.FAILED:
        return None
    reason, message = judgement.metric.reason, judgement.message
    counts = (rising.facts.requests.value or {}).get(rising.attempt.revision)
    if counts is None or 2 * counts.unreached <= counts.failed or _has_ended(rising):
        return Failure(reason=reason, message=message, rejected=judgement.concurrent)
    text = f"; no pod of it could be connected to for {counts.unreached} of them"
    return Failure(reason="PodsUnreachable", message=message + text, rejected=False)


def _has_ended(rising: Rising) -> bool:
    """Whether an engine of the revision has ended since the attempt began."""
    before = rising.attempt.ended_before or {}
    pods = rising.facts.arm(rising.attempt.revision).live
    return any(pod.restarts > before.get(pod.name, 0) for pod in pods)
