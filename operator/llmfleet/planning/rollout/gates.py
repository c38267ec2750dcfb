"""What stands below every decision, whatever led there.

A rejected hash never gains weight (``split``) and is never promoted, and at N = 0 nothing moves and
nothing is promoted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from llmfleet.api import RolloutSpec
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.state import Forward, Undoing

FIRST_REPLICA: Final = "no replicas are wanted; the new revision starts with the first one"


def may_promote(
    facts: Facts, state: Forward | Undoing, rejected: Collection[str], *, stopped: bool
) -> bool:
    """Whether the revision on its way up becomes the served one.

    Args:
        facts: what is observed.
        state: of the rollout.
        rejected: hashes that are never promoted.
        stopped: the pause annotation is set.
    """
    target = state.attempt.revision
    position = state.position if isinstance(state, Forward) else None
    steps = state.attempt.policy.effective_steps if position is not None else ()
    return (
        facts.replicas > 0
        and target not in rejected
        and facts.history.held is None
        and facts.traffic.get(target) == 100
        and facts.arm(target).ready > 0
        and facts.routers.confirmed
        and not stopped
        and (position is None or position.step >= len(steps))
    )


def why_not_begun(facts: Facts, stable: str | None, wanted: str) -> str | None:
    """Why no rollout may begin, beside what holds one that is under way; None when one may."""
    if wanted not in facts.revisions and wanted in facts.history.unusable:
        return facts.history.unusable[wanted]
    if stable is None:
        return None  # the first revision has no steps, and nothing to wait beside
    if facts.unknown_settings:
        fields = ", ".join(facts.unknown_settings[:5])
        return f"this operator does not know {fields}: upgrade the operator, or remove them"
    return FIRST_REPLICA if facts.replicas == 0 else None


def why_held(
    facts: Facts,
    policy: RolloutSpec,
    stable: str | None,
    blocked: str | None,
    *,
    changes: bool,
    going: bool = False,
) -> str | None:
    """Why nothing new may be rolled out now, as a sentence; None when it may.

    Args:
        facts: what is observed.
        policy: settings of the rollout under way, or of the one that would begin.
        stable: the served revision.
        blocked: what spec is not accepted for.
        changes: another revision than the served one is wanted.
        going: a rollout is under way, whose settings are frozen.
    """
    if blocked is not None or facts.history.held is not None:
        return blocked or facts.history.held
    in_place = policy.surge_replicas(facts.replicas) == 0 and facts.replicas == 1
    if changes and stable and in_place and policy.strategy == "Canary":
        fix = "set spec.rollout.maxSurge to 1, or spec.rollout.strategy to RollingUpdate"
        if going:
            fix = "abort the rollout, take spec back, or set spec.replicas to 2"
        return f"one replica without surge cannot be replaced step by step: {fix}"
    if facts.settings.crd_outdated and changes:
        return (
            "the installed CRD is older than the operator, so nothing is rolled out: apply the"
            " CRD of this operator's version"
        )
    return None
