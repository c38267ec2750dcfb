"""Which revisions are made, remembered and forgotten by a decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.revisions.revision import Revision, render_revision
from llmfleet.planning.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The revisions after a decision."""

    made: Revision | None
    """The one whose ControllerRevision is made now."""
    known: Mapping[str, Revision]
    """Those whose pod template is at hand, by hash, ``made`` included."""
    pruned: tuple[str, ...]
    """Those whose ControllerRevision goes."""


def decide_keeping(
    snapshot: Snapshot, facts: Facts, *, needed: Iterable[str | None], in_use: Collection[str]
) -> Keeping:
    """Decide which revision is made, and which are beyond the history limit.

    Args:
        snapshot: everything observed.
        facts: the same in the words of decisions.
        needed: hashes that must have a ControllerRevision, the most urgent first.
        in_use: hashes that must not be pruned, besides those that have pods or a Deployment.
    """
    made = _revision_to_make(snapshot, facts, needed)
    busy = {name for name, arm in facts.arms.items() if arm.wanted is not None or arm.present}
    stored = (each for name, each in facts.revisions.items() if name in facts.stored_revisions)
    return Keeping(
        made=made,
        known={**facts.revisions, **({} if made is None else {made.hash: made})},
        pruned=prunable_revisions(
            stored,
            in_use=busy | set(in_use),
            history_limit=facts.deployment.spec.rollout.revision_history_limit,
        ),
    )


def _revision_to_make(
    snapshot: Snapshot, facts: Facts, needed: Iterable[str | None]
) -> Revision | None:
    """The first needed revision without a ControllerRevision, rendered or remembered."""
    for name in needed:
        if name is None or name in facts.stored_revisions:
            continue
        if name in facts.revisions:
            return facts.revisions[name]
        if name == facts.spec_revision:
            number = 1 + max((each.number for each in facts.revisions.values()), default=0)
            return render_revision(facts.deployment, snapshot.raw, snapshot.settings, number)
    return None


def prunable_revisions(
    revisions: Iterable[Revision], *, in_use: Collection[str], history_limit: int
) -> tuple[str, ...]:
    """Hashes beyond the history limit, oldest last kept first to go; those in use never.

    Args:
        revisions: all that have a ControllerRevision.
        in_use: hashes that are served, wanted, warm or last good.
        history_limit: how many others are kept, the newest.
    """
    others = sorted(
        (each for each in revisions if each.hash not in in_use), key=lambda each: -each.number
    )
    return tuple(each.hash for each in others[history_limit:])
