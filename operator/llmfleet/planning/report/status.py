"""The status of an LLMDeployment as a value: no heartbeat, bounded lists, whole every time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from llmfleet.api import (
    STATUS_SCHEMA,
    MetricResult,
    RevisionStatus,
    RolloutSpec,
    RolloutStatus,
)
from llmfleet.api.values import ResourceModel
from llmfleet.planning.analysis.judge import ERROR_RATE, Judgement
from llmfleet.planning.children.naming import selector_labels
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.report.conditions import (
    Situation,
    Verdict,
    build_conditions,
    decide_conditions,
    format_time,
)
from llmfleet.planning.report.progress import stands_still
from llmfleet.planning.revisions.revision import Revision
from llmfleet.planning.rollout.failures import ends_before
from llmfleet.planning.rollout.intent import Intent
from llmfleet.planning.rollout.split import RolloutPlan
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
    facts, plan, intent = situation.facts, situation.rollout, situation.intent
    deployment, before = facts.deployment, facts.deployment.status
    verdicts = {each.type: each for each in decide_conditions(situation)}
    shown = plan.stable or plan.target
    arm = facts.arm(shown)
    labels = selector_labels(deployment.metadata.name, "engine", shown)
    status: JSON = {
        "observedGeneration": deployment.metadata.generation,
        "schema": STATUS_SCHEMA,
        "phase": "Paused"
        if "Paused" in verdicts and verdicts["Ready"].status == "Unknown"
        else PHASES[verdicts["Ready"].status],
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
        "previewUrl": deployment.preview_url,
        "trafficGeneration": next_generation(facts, plan),
        "routing": _dump(plan.routing),
        "traffic": [
            {"revision": name, "weight": weight} for name, weight in sorted(plan.traffic.items())
        ],
        "rollout": rollout,
        "handledActs": handled_acts,
        "tokenSecret": _dump(before.token_secret),
        "rejectedRevisions": [
            {
                "hash": each.hash,
                "reason": each.reason,
                "at": format_time(each.at),
                **({"message": each.message} if each.message else {}),
            }
            for each in intent.rejected_in_status
        ],
    }
    return {
        **status,
        **{key: value for key, value in optional.items() if value not in (None, [], {})},
    }


def next_generation(facts: Facts, plan: RolloutPlan) -> int | None:
    """The present trafficGeneration, or the next one when this plan changes the command."""
    return facts.next_generation if traffic_moves(facts, plan) else facts.generation


def traffic_moves(facts: Facts, plan: RolloutPlan) -> bool:
    """Whether the plan commands routers anything else than what is recorded."""
    return dict(plan.traffic) != dict(facts.traffic) or plan.routing != facts.routing


def build_rollout(
    facts: Facts, intent: Intent, plan: RolloutPlan, capacity: Verdict, now: datetime
) -> JSON | None:
    """``status.rollout``: the intent, its number and its clock; None outside a rollout.

    While the rollout is paused, collects samples or waits for capacity its clock stands still:
    ``progressedAt`` is moved by the time waited once the wait is over.
    """
    before = facts.deployment.status.rollout
    if plan.target is None:
        waits = before is not None and intent.backing_off and intent.spec_rejected is None
        return _aborted(before, intent) if before is not None and waits else None
    going_on = (
        before is not None
        and before.revision == plan.target
        and before.id is not None
        and plan.started is None
    )
    old = before if before is not None and going_on else RolloutStatus()
    number = old.id or 1 + max(facts.memory.rollout_id, (before.id or 0) if before else 0)
    progressed = old.progressed_at or now
    waiting = old.waiting_since
    if capacity.status == "False" or stands_still(intent):
        waiting = waiting or now
    elif waiting is not None:
        progressed, waiting = progressed + (now - waiting), None
    risen = plan.traffic.get(plan.target, 0) > facts.traffic.get(plan.target, 0)
    turned_back = plan.returning and old.aborted is None
    if risen or turned_back or (intent.position and intent.position.step != (old.step or 0)):
        progressed = now
    body: JSON = {
        "id": number,
        "revision": plan.target,
        "startedAt": format_time(old.started_at or now),
        "progressedAt": format_time(progressed),
    }
    before_it = ends_before(facts.arm(plan.target), old.ended_before if going_on else None)
    if before_it:
        body["endedBefore"] = before_it
    if waiting is not None:
        body["waitingSince"] = format_time(waiting)
    if plan.returning:
        body["aborted"] = intent.aborted or "Superseded"
    policy = facts.deployment.spec.rollout if plan.started else facts.policy
    body["plan"] = old.plan or _frozen(policy, steps=intent.cause is None)
    body |= _position(intent, old)
    served = old.served_since
    if served is None and facts.reaches(plan.target) and facts.routers.confirmed:
        served = now
    if served is not None:
        body["servedSince"] = format_time(served)
    if intent.judgement is not None and intent.course is not None:
        body["metricResults"] = [_metric_result(intent.judgement)]
    if intent.cause is not None:
        body["cause"] = intent.cause
    return body | _tries(intent)


def _aborted(before: RolloutStatus, intent: Intent) -> JSON:
    """The record of an attempt that is over, while the next one is waited for."""
    kept = _dump(before) or {}
    gone = (
        "step", "stepStartedAt", "servedSince", "waitingSince", "metricResults", "retryAt",
        "endedBefore",
    )  # fmt: skip
    body = {key: value for key, value in kept.items() if key not in gone}
    for key in ("startedAt", "progressedAt"):
        if key in body:
            body[key] = format_time(datetime.fromisoformat(body[key]))
    return {**body, "aborted": intent.aborted, **_tries(intent)}


def _tries(intent: Intent) -> JSON:
    body: JSON = {"attempt": intent.aborts} if intent.aborts else {}
    if intent.retry_at is not None:
        body["retryAt"] = format_time(intent.retry_at)
    return body


def _position(intent: Intent, old: RolloutStatus) -> JSON:
    """The step under way; one that is over, or not followed now, stays as recorded."""
    step, started = old.step, old.step_started_at
    if intent.position is not None:
        step, started = intent.position.step, intent.position.started_at
    body: JSON = {} if step is None else {"step": step}
    return body if started is None else {**body, "stepStartedAt": format_time(started)}


def _metric_result(judgement: Judgement) -> JSON:
    effect = (
        judgement.canary - judgement.stable
        if judgement.canary is not None and judgement.stable is not None
        else None
    )
    result = MetricResult(
        name=ERROR_RATE,
        verdict=judgement.verdict,
        stable=judgement.stable,
        canary=judgement.canary,
        n=judgement.requests,
        effect=effect,
        min_effect=judgement.min_effect,
        message=judgement.message,
    )
    body: JSON = _dump(result) or {}
    return body if judgement.as_of is None else {**body, "asOf": format_time(judgement.as_of)}


def _dump(model: ResourceModel | None) -> JSON | None:
    if model is None:
        return None
    body: JSON = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body


def settings_changed(facts: Facts, intent: Intent, plan: RolloutPlan) -> bool:
    """Whether spec's settings of rollouts are no longer those of the one under way."""
    before, steps = facts.deployment.status.rollout, intent.cause is None
    if before is None or before.plan is None or plan.target is None:
        return False
    if plan.started is not None or plan.returning:
        return False
    # Both read by today's models: one frozen before a field existed is not another for that.
    return _frozen(facts.policy, steps=steps) != _frozen(facts.deployment.spec.rollout, steps=steps)


def _frozen(policy: RolloutSpec, *, steps: bool) -> JSON:
    """The settings as they are when the rollout begins, its steps spelled out."""
    body: JSON = _dump(policy) or {}
    if policy.strategy == "Canary" and steps:
        body["steps"] = [_dump(each) for each in policy.effective_steps]
    if not steps:  # back to a revision that was served before
        body.pop("steps", None)
        if policy.strategy == "Canary":
            body["strategy"] = "RollingUpdate"
    return body


def overdue(facts: Facts, plan: RolloutPlan, rollout: JSON | None, now: datetime) -> int | None:
    """ProgressDeadline in seconds once the rollout has exceeded it, else None."""
    due = deadline(facts, plan, rollout)
    seconds = facts.policy.progress_deadline_seconds
    return seconds if due is not None and now >= due else None


def deadline(facts: Facts, plan: RolloutPlan, rollout: JSON | None) -> datetime | None:
    """When the rollout counts as failed; None while its clock stands still."""
    if plan.target is None:
        return None
    if rollout is None or "waitingSince" in rollout or plan.held or facts.replicas == 0:
        return None
    progressed = datetime.fromisoformat(rollout["progressedAt"])
    return progressed + timedelta(seconds=facts.policy.progress_deadline_seconds)


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
