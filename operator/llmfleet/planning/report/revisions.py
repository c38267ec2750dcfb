"""``status.revisions``: what is kept, with its sizes and times."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from llmfleet.api import RevisionStatus
from llmfleet.planning.clock import format_time
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.revisions.keeping import Keeping
from llmfleet.planning.revisions.revision import Revision
from llmfleet.planning.rollout.stage import Rollout
from llmfleet.planning.snapshot import JSON

MAX_REVISIONS: Final = 128


def build_revisions(facts: Facts, rollout: Rollout, history: Keeping, now: datetime) -> list[JSON]:
    """``status.revisions``: the kept ones, newest first."""
    before = {each.hash: each for each in facts.deployment.status.revisions}
    kept = {name: each for name, each in history.known.items() if name not in history.pruned}
    newest_first = sorted(kept.values(), key=lambda each: (-each.number, each.hash))
    return [_entry(facts, rollout, each, before.get(each.hash), now) for each in newest_first][
        :MAX_REVISIONS
    ]


def _entry(
    facts: Facts,
    rollout: Rollout,
    revision: Revision,
    before: RevisionStatus | None,
    now: datetime,
) -> JSON:
    name = revision.hash
    entry: JSON = {"hash": name, "image": revision.image}
    entry["createdAt"] = format_time(before.created_at if before and before.created_at else now)
    promoted = before.promoted_at if before else None
    if rollout.advance.promoted == name:
        promoted = now
    if promoted is not None:
        entry["promotedAt"] = format_time(promoted)
    if name in rollout.split.warm:
        entry["unservedSince"] = format_time(rollout.split.warm[name])
    if name in rollout.split.replicas:
        entry["replicas"] = rollout.split.replicas[name]
        entry["readyReplicas"] = facts.arm(name).ready
    return entry
