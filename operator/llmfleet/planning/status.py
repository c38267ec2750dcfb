"""The status of an LLMDeployment as a value: no heartbeat, bounded lists, whole every time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from llmfleet.api import STATUS_SCHEMA, RevisionStatus, RolloutStatus
from llmfleet.planning.conditions import (
    Situation,
    Verdict,
    build_conditions,
    decide_conditions,
    format_time,
)
from llmfleet.planning.facts import Facts
from llmfleet.planning.naming import selector_labels
from llmfleet.planning.revisions import Revision
from llmfleet.planning.rollout import RolloutPlan
from llmfleet.planning.snapshot import JSON

PHASES: Final = {"True": "Healthy", "Unknown": "Progressing", "False": "Degraded"}
MAX_REVISIONS: Final = 128


def build_status(
    situation: Situation,
    *,
    spec_revision: str,
    rollout: JSON | None,
    revisions: list[JSON],
    handled_acts: dict[str, str],
    now: datetime,
) -> JSON:
    """The complete status to record."""
    facts, plan = situation.facts, situation.rollout
    deployment, before = facts.deployment, facts.deployment.status
    verdicts = {each.type: each for each in decide_conditions(situation)}
    shown = plan.stable or plan.target
    arm = facts.arm(shown)
    labels = selector_labels(deployment.metadata.name, "engine", shown)
    status: JSON = {
        "observedGeneration": deployment.metadata.generation,
        "schema": STATUS_SCHEMA,
        "phase": PHASES[verdicts["Ready"].status],
        "message": verdicts["Ready"].message,
        "url": deployment.url,
        "ready": f"{arm.ready}/{facts.replicas}",
        "specRevision": spec_revision,
        "replicas": len(arm.live),
        "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        "conditions": build_conditions(
            verdicts.values(), before.conditions, deployment.metadata.generation, now
        ),
        "revisions": revisions[:MAX_REVISIONS],
    }
    optional: JSON = {
        "canaryWeight": plan.traffic.get(plan.target, 0) if plan.target and plan.stable else None,
        "servedRevision": plan.stable,
        "trafficGeneration": next_generation(facts, plan),
        "traffic": [
            {"revision": name, "weight": weight} for name, weight in sorted(plan.traffic.items())
        ],
        "rollout": rollout,
        "handledActs": handled_acts,
        "tokenSecret": before.token_secret.model_dump(mode="json", by_alias=True)
        if before.token_secret
        else None,
        "rejectedRevisions": [
            each.model_dump(mode="json", by_alias=True, exclude_none=True)
            for each in before.rejected_revisions
        ],
    }
    return {
        **status,
        **{key: value for key, value in optional.items() if value not in (None, [], {})},
    }


def next_generation(facts: Facts, plan: RolloutPlan) -> int | None:
    """The present trafficGeneration, or the next one when this plan changes the traffic."""
    return facts.next_generation if traffic_moves(facts, plan) else facts.generation


def traffic_moves(facts: Facts, plan: RolloutPlan) -> bool:
    """Whether the plan commands another split than the recorded one."""
    return dict(plan.traffic) != dict(facts.traffic)


def build_rollout(facts: Facts, plan: RolloutPlan, capacity: Verdict, now: datetime) -> JSON | None:
    """``status.rollout``: the intent, its number and its clock; None outside a rollout.

    While the rollout waits for capacity its clock stands still: ``progressedAt`` is moved by the
    time waited once the wait is over.
    """
    if plan.target is None:
        return None
    before = facts.deployment.status.rollout
    going_on = before is not None and before.revision == plan.target and before.id is not None
    old = before if before is not None and going_on else RolloutStatus()
    number = old.id or 1 + max(facts.memory.rollout_id, (before.id or 0) if before else 0)
    progressed = old.progressed_at or now
    waiting = old.waiting_since
    if capacity.status == "False":
        waiting = waiting or now
    elif waiting is not None:
        progressed, waiting = progressed + (now - waiting), None
    risen = plan.traffic.get(plan.target, 0) > facts.traffic.get(plan.target, 0)
    turned_back = plan.returning and old.aborted is None
    if risen or turned_back:
        progressed = now
    body: JSON = {
        "id": number,
        "revision": plan.target,
        "startedAt": format_time(old.started_at or now),
        "progressedAt": format_time(progressed),
    }
    if waiting is not None:
        body["waitingSince"] = format_time(waiting)
    if plan.returning:
        body["aborted"] = "Superseded"
    return body


def overdue(facts: Facts, plan: RolloutPlan, rollout: JSON | None, now: datetime) -> int | None:
    """ProgressDeadline in seconds once the rollout has exceeded it, else None."""
    due = deadline(facts, plan, rollout)
    seconds = facts.deployment.spec.rollout.progress_deadline_seconds
    return seconds if due is not None and now >= due else None


def deadline(facts: Facts, plan: RolloutPlan, rollout: JSON | None) -> datetime | None:
    """When the rollout counts as failed; None while its clock stands still."""
    if rollout is None or "waitingSince" in rollout or plan.held or facts.replicas == 0:
        return None
    progressed = datetime.fromisoformat(rollout["progressedAt"])
    return progressed + timedelta(seconds=facts.deployment.spec.rollout.progress_deadline_seconds)


def build_revisions(
    facts: Facts,
    plan: RolloutPlan,
    made: Revision | None,
    pruned: tuple[str, ...],
    now: datetime,
) -> list[JSON]:
    """``status.revisions``: the kept ones, newest first."""
    before = {each.hash: each for each in facts.deployment.status.revisions}
    kept = {name: each for name, each in facts.revisions.items() if name not in pruned}
    if made is not None:
        kept.setdefault(made.hash, made)
    newest_first = sorted(kept.values(), key=lambda each: (-each.number, each.hash))
    return [_revision_entry(facts, plan, each, before.get(each.hash), now) for each in newest_first]


def _revision_entry(
    facts: Facts,
    plan: RolloutPlan,
    revision: Revision,
    before: RevisionStatus | None,
    now: datetime,
) -> JSON:
    name = revision.hash
    entry: JSON = {"hash": name, "image": revision.image}
    entry["createdAt"] = format_time(before.created_at if before and before.created_at else now)
    promoted = before.promoted_at if before else None
    if plan.promoted == name:
        promoted = now
    if promoted is not None:
        entry["promotedAt"] = format_time(promoted)
    if name in plan.warm:
        entry["unservedSince"] = format_time(plan.warm[name])
    if name in plan.replicas:
        entry["replicas"] = plan.replicas[name]
        entry["readyReplicas"] = facts.arm(name).ready
    return entry
