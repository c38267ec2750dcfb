"""Which revision is served, and which shall be."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.revisions.revision import Revision
from llmfleet.planning.rollout.state import BackingOff, Cause, State, Undoing


def stable_revision(facts: Facts) -> str | None:
    """The served revision; with none recorded, what is up or remembered (a restored object)."""
    if facts.served is not None:
        return facts.served
    good = facts.memory.last_good
    wanted = facts.spec_revision
    if facts.spec_revision in facts.rejected:
        wanted = good.hash if good is not None else facts.spec_revision
    elif (
        facts.deployment.status.schema_ is None
        and facts.memory.in_judgement == facts.spec_revision
        and good is not None
        and good.hash != facts.spec_revision
    ):
        return good.hash
    serving = _serving(facts, good, wanted)
    if serving is not None:
        return serving
    up = {name for name, arm in facts.arms.items() if arm.ready and arm.wanted is not None}
    if wanted in up or not up:
        # In mid-undo what was rejected may still serve more than what is to take over.
        spec = facts.spec_revision
        return spec if wanted != spec and facts.arm(spec).ready > facts.arm(wanted).ready else None
    if good is not None and good.hash in up:
        return good.hash
    known = [each for each in facts.revisions.values() if each.hash in up]
    return max(known, key=lambda each: each.number).hash if known else None


def _serving(facts: Facts, good: Revision | None, wanted: str) -> str | None:
    """What serves beside ``wanted``, ready or not: it has only not been promoted (anew) yet."""
    never = {wanted, *facts.rejected}
    if good is not None and good.hash not in never:
        arm = facts.arms.get(good.hash)
        if good.hash in facts.traffic or (arm is not None and arm.wanted is not None):
            return good.hash
    (alone, *others) = facts.traffic or (None,)
    return alone if not others and alone in facts.revisions and alone not in never else None


def wanted_revision(
    facts: Facts,
    state: State,
    stable: str | None,
    rejected: Collection[str],
    now: datetime,
) -> tuple[str | None, Cause | None]:
    """Hash to serve in the end, None = leave what is served; and why, if it is a kept one.

    Args:
        facts: what is observed.
        state: of the rollout.
        stable: the served revision.
        rejected: hashes that are never wanted.
        now: the time of the decision, which tells whether the next try is due.
    """
    spec = facts.spec_revision
    if isinstance(state, Undoing) and state.attempt.revision not in rejected:
        target = state.attempt.revision
        begun = any(name != stable for name in facts.traffic)
        # A share that another one has, the kept or a given up one, must not go to a rejected one.
        if (spec in rejected and state.cause == "Undo") or (stable in rejected and begun):
            return target, state.cause
    if spec in rejected:
        if stable is not None and stable not in rejected:
            return stable, None
        good = facts.memory.last_good
        if good is None or good.hash in rejected or good.hash == stable:
            return stable, None
        return good.hash, None if stable is None else "Undo"
    if isinstance(state, BackingOff) and state.attempt.revision == spec and not _due(state, now):
        return stable, None
    return spec, _rollback(facts, stable)


def other_good_revision(
    facts: Facts, beside: Collection[str | None], rejected: Collection[str]
) -> str | None:
    """The kept revision promoted last that is not rejected and not one of ``beside``.

    With none of them, what spec asks for: nobody has seen it serve, and nothing else is left.
    """
    promoted = [
        (each.promoted_at, each.hash)
        for each in facts.deployment.status.revisions
        if each.promoted_at is not None
        and each.hash in facts.revisions
        and each.hash not in rejected
        and each.hash not in beside
    ]
    if promoted:
        return max(promoted)[1]
    spec = facts.spec_revision
    return None if spec in rejected or spec in beside else spec


def _rollback(facts: Facts, stable: str | None) -> Cause | None:
    """``Rollback`` when spec asks for a revision served before, within rollbackWindow."""
    promoted = [
        (each.promoted_at, each.hash)
        for each in facts.deployment.status.revisions
        if each.promoted_at is not None and each.hash != stable
    ]
    window = sorted(promoted, reverse=True)[: facts.deployment.spec.rollout.rollback_window]
    return "Rollback" if facts.spec_revision in {name for _, name in window} else None


def _due(state: BackingOff, now: datetime) -> bool:
    return state.retry_at is not None and now >= state.retry_at
