"""What becomes of the new revision's engine pods."""

from __future__ import annotations

from llmfleet.planning.rollout.failures import Failure, ends_before, find_pod_failure
from llmfleet.planning.rollout.triggers.trigger import Rising


def pods_fail(rising: Rising) -> Failure | None:
    """Its own exits reject it; what is not its fault ends only this try."""
    arm, attempt = rising.facts.arm(rising.attempt.revision), rising.attempt
    return find_pod_failure(
        arm, rising.now, attempt.policy.progress_deadline_seconds,
        ends_before(arm, attempt.ended_before), attempt.trouble_since,
    )  # fmt: skip
