"""``decide(snapshot, now) -> Plan``: everything that shall be true next, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from llmfleet.api import STATUS_SCHEMA
from llmfleet.planning.acceptance import Acceptance, decide_acceptance
from llmfleet.planning.children.engines.vllm import (
    build_engine_budget,
    build_engine_deployment,
    build_engine_service,
)
from llmfleet.planning.children.naming import (
    controller_revision_key,
    deployment_key,
    is_ours,
    service_key,
    token_name,
)
from llmfleet.planning.children.network import build_network_policies, policy_keys
from llmfleet.planning.children.router import build_router, build_token_secret, preview_key
from llmfleet.planning.facts.read import Facts, read_facts
from llmfleet.planning.plan import Child, Deletion, Plan, PlannedEvent
from llmfleet.planning.report.conditions import Situation, Verdict
from llmfleet.planning.report.events import find_outcome, plan_events
from llmfleet.planning.report.status import (
    build_revisions,
    build_rollout,
    build_status,
    deadline,
    overdue,
    settings_changed,
    traffic_moves,
)
from llmfleet.planning.report.unreadable import decide_unremembered
from llmfleet.planning.revisions.memory import Memory, build_memory
from llmfleet.planning.revisions.revision import (
    Revision,
    build_controller_revision,
    prunable_revisions,
    render_revision,
)
from llmfleet.planning.rollout.diagnosis import (
    UNSCHEDULABLE_SECONDS,
    diagnose_pods,
    waiting_for_capacity,
    waiting_since,
)
from llmfleet.planning.rollout.failures import failure_time
from llmfleet.planning.rollout.intent import Intent, decide_intent
from llmfleet.planning.rollout.split import RolloutPlan, decide_rollout
from llmfleet.planning.snapshot import ObjectKey, Snapshot


def decide(snapshot: Snapshot, now: datetime) -> Plan:
    """Decide the whole intended state of one LLMDeployment.

    Args:
        snapshot: everything observed.
        now: the only clock, an aware datetime; fractions of a second are dropped.

    Returns:
        The plan; the same snapshot and now give an equal one.
    """
    now = now.replace(microsecond=0)
    stored: Any = snapshot.raw.get("status") or {}
    if snapshot.deployment.metadata.deletion_timestamp is not None:
        return Plan(status=stored or None, summary="being deleted: nothing to do")
    schema = stored.get("schema") or 0
    if schema > STATUS_SCHEMA:
        return _newer_schema(schema)
    facts = read_facts(snapshot, now)
    if facts.history.held is not None and snapshot.deployment.status.schema_ is None:
        return decide_unremembered(snapshot.raw, facts.history.held, now)
    acceptance = decide_acceptance(snapshot)
    intent = decide_intent(facts, now)
    held = _held(facts, acceptance, intent)
    rollout = decide_rollout(facts, intent, held=held, now=now)
    return _complete(snapshot, facts, acceptance, intent, rollout, now)


def _newer_schema(schema: int) -> Plan:
    text = (
        f"status.schema is {schema}, this operator knows {STATUS_SCHEMA}: children and traffic are"
        " left as they are; upgrade the operator"
    )
    event = PlannedEvent(type="Warning", reason="NewerStatusSchema", message=text)
    return Plan(status=None, events=(event,), summary=text)


def _held(facts: Facts, acceptance: Acceptance, intent: Intent) -> str | None:
    if not acceptance.accepted:
        return acceptance.message
    if facts.history.held is not None:
        return facts.history.held
    changes = intent.wanted != facts.served
    if changes and intent.wanted is not None and intent.wanted not in facts.revisions:
        unusable = facts.history.unusable.get(intent.wanted)
        if unusable is not None:
            return unusable
    policy = facts.policy if intent.current else facts.deployment.spec.rollout
    in_place = policy.surge_replicas(facts.replicas) == 0 and facts.replicas == 1
    if changes and intent.stable and in_place and policy.strategy == "Canary":
        return (
            "one replica without surge cannot be replaced step by step: set"
            " spec.rollout.maxSurge to 1, or spec.rollout.strategy to RollingUpdate"
        )
    if facts.settings.crd_outdated and changes:
        return (
            "the installed CRD is older than the operator, so nothing is rolled out: apply the"
            " CRD of this operator's version"
        )
    return None


def _complete(
    snapshot: Snapshot,
    facts: Facts,
    acceptance: Acceptance,
    intent: Intent,
    plan: RolloutPlan,
    now: datetime,
) -> Plan:
    made = _revision_to_make(snapshot, facts, plan)
    capacity = _capacity(snapshot, facts, now)
    rollout = build_rollout(facts, intent, plan, capacity, now)
    memory = _memory(facts, intent, plan, made, rollout.get("id") if rollout else None)
    children, taken = _children(snapshot, facts, plan, made, memory)
    pruned = _pruned(facts, plan, memory)
    deletions = _deletions(snapshot, plan, pruned)
    situation = Situation(
        facts=facts,
        intent=intent,
        rollout=plan,
        acceptance=acceptance,
        trouble=diagnose_pods(
            facts.arm(plan.target or plan.stable).live,
            now,
            facts.policy.progress_deadline_seconds,
        ),
        capacity=capacity,
        taken=taken,
        refused=_refused(snapshot, (*children, *deletions)),
        lost=tuple(name for name in sorted(plan.replicas) if name not in _known(facts, made)),
        rejected=intent.spec_rejected,
        overdue_seconds=overdue(facts, plan, rollout, now),
        moved=traffic_moves(facts, plan),
        outdated_settings=settings_changed(facts, intent, plan),
    )
    status = build_status(
        situation,
        spec_revision=facts.spec_revision,
        rollout=rollout,
        revisions=build_revisions(facts, plan, made, pruned, now),
        handled_acts=dict(memory.handled_acts),
        now=now,
    )
    return Plan(
        status=status,
        children=children,
        deletions=deletions,
        events=plan_events(situation, status),
        outcome=find_outcome(situation, now),
        requeue_after=_requeue(facts, intent, plan, deadline(facts, plan, rollout), now),
        summary=status["message"],
    )


def _revision_to_make(snapshot: Snapshot, facts: Facts, plan: RolloutPlan) -> Revision | None:
    """The revision without a ControllerRevision that this plan needs, rendered or remembered."""
    for name in (plan.target, plan.stable):
        if name is None or name in facts.stored_revisions:
            continue
        if name in facts.revisions:
            return facts.revisions[name]
        if name == facts.spec_revision:
            number = 1 + max((each.number for each in facts.revisions.values()), default=0)
            return render_revision(facts.deployment, snapshot.raw, snapshot.settings, number)
    return None


def _memory(
    facts: Facts,
    intent: Intent,
    plan: RolloutPlan,
    made: Revision | None,
    rollout_id: int | None,
) -> Memory:
    good = facts.revisions.get(plan.stable or "") or facts.memory.last_good
    if plan.stable in intent.rejected:
        # An undo is under way: what it goes back to was good once; what spec asks for was not.
        back = intent.wanted if intent.cause == "Undo" else None
        good = facts.revisions.get(back or "") or facts.memory.last_good or good
    if good is None and made is not None and plan.stable == made.hash:
        good = made
    return Memory(
        rejected=intent.rejected,
        last_good=good,
        in_judgement=plan.target,
        handled_acts=intent.acts.handled,
        past_acts=intent.acts.past,
        rollout_id=max(rollout_id or 0, facts.memory.rollout_id),
    )


def _children(
    snapshot: Snapshot, facts: Facts, plan: RolloutPlan, made: Revision | None, memory: Memory
) -> tuple[tuple[Child, ...], tuple[str, ...]]:
    """All children, and the names among them that are somebody else's."""
    deployment = snapshot.deployment
    children: list[Child] = []
    token = deployment.status.token_secret
    if token is None or token.name != token_name(deployment):
        children.append(build_token_secret(deployment))
    # Engines first: they are what takes minutes to start, and refuse everybody but the routers.
    known = _known(facts, made)
    if made is not None:
        children.append(build_controller_revision(deployment, made))
    # One whose template is lost is left as it is.
    sizes = [(name, replicas) for name, replicas in sorted(plan.replicas.items()) if name in known]
    for name, replicas in sizes:
        children.append(build_engine_deployment(deployment, name, known[name].template, replicas))
    if facts.history.held is None:
        children.append(build_memory(deployment, memory))
    children += [build_engine_service(deployment, name) for name, _ in sizes]
    if snapshot.settings.network is not None:
        children += build_network_policies(deployment, snapshot.settings.network)
    children.append(build_engine_budget(deployment))
    children += build_router(deployment, snapshot.settings)
    taken = [
        child.key
        for child in children
        if (found := snapshot.objects.get(child.key)) is not None and not is_ours(deployment, found)
    ]
    free = tuple(child for child in children if child.key not in taken)
    return free, tuple(f"{key.kind} {key.name}" for key in taken)


def _known(facts: Facts, made: Revision | None) -> dict[str, Revision]:
    """The revisions whose pod template is at hand, by hash."""
    return {**facts.revisions, **({} if made is None else {made.hash: made})}


def _refused(snapshot: Snapshot, intended: Iterable[Child | Deletion]) -> tuple[str, ...]:
    found = ((each.key, snapshot.refusals.get(each.key)) for each in intended)
    return tuple(f"{key.kind} {key.name} was refused: {text}" for key, text in found if text)


def _pruned(facts: Facts, plan: RolloutPlan, memory: Memory) -> tuple[str, ...]:
    in_use = {name for name, arm in facts.arms.items() if arm.wanted is not None or arm.pods}
    in_use |= set(plan.replicas) | {plan.target or ""}
    if memory.last_good is not None:
        in_use.add(memory.last_good.hash)
    stored = (each for name, each in facts.revisions.items() if name in facts.stored_revisions)
    return prunable_revisions(
        stored,
        in_use=in_use,
        history_limit=facts.deployment.spec.rollout.revision_history_limit,
    )


def _deletions(
    snapshot: Snapshot, plan: RolloutPlan, pruned: Iterable[str]
) -> tuple[Deletion, ...]:
    name = snapshot.deployment.metadata.name
    keys: list[ObjectKey] = [controller_revision_key(name, revision) for revision in pruned]
    if snapshot.settings.network is None:
        keys += policy_keys(name)
    if snapshot.deployment.preview_url is None:
        keys.append(preview_key(name))
    for revision in plan.removed:
        keys += [deployment_key(name, revision), service_key(name, revision)]
    found = (snapshot.objects.get(key) for key in keys)
    return tuple(
        Deletion(key=each.key, uid=each.uid, resource_version=each.resource_version)
        for each in found
        if each is not None and not each.deleting and is_ours(snapshot.deployment, each)
    )


def _capacity(snapshot: Snapshot, facts: Facts, now: datetime) -> Verdict:
    """Whether all engine pods found room, in the scheduler's own words."""
    refused = {
        name: text for name, text in snapshot.quota_messages.items() if facts.arm(name).wanted
    }
    waiting = [
        pod
        for arm in facts.arms.values()
        for pod in arm.live
        if waiting_for_capacity(pod)
        and now
        >= (pod.unschedulable_since or pod.created_at) + timedelta(seconds=UNSCHEDULABLE_SECONDS)
    ]
    if refused:
        name, text = min(refused.items())
        message = f"quota refuses pods of revision {name}: {text}"
        return _capacity_verdict("False", "QuotaExceeded", message)
    if waiting:
        first = min(waiting, key=lambda pod: pod.name)
        wait = "one engine pod waits" if len(waiting) == 1 else f"{len(waiting)} engine pods wait"
        message = f"{wait} for room: {first.unschedulable}"
        return _capacity_verdict("False", "Unschedulable", message)
    return _capacity_verdict("True", "Scheduled", "every engine pod found room")


def _capacity_verdict(status: str, reason: str, message: str) -> Verdict:
    return Verdict(type="CapacityAvailable", status=status, reason=reason, message=message)


def _requeue(
    facts: Facts, intent: Intent, plan: RolloutPlan, due: datetime | None, now: datetime
) -> float | None:
    """Seconds until time alone changes a decision; None when only an event can."""
    spec = facts.deployment.spec.rollout
    times = [each for each in (due, intent.due, facts.routers.give_up_at) if each is not None]
    delay = timedelta(seconds=spec.scale_down_delay_seconds)
    times += [since + delay for since in plan.warm.values()]
    for arm in facts.arms.values():
        for pod in arm.live:
            if waiting_for_capacity(pod):
                since = pod.unschedulable_since or pod.created_at
                times.append(since + timedelta(seconds=UNSCHEDULABLE_SECONDS))
            if not pod.ready and (running := waiting_since(pod)) is not None:
                seconds = timedelta(seconds=facts.policy.progress_deadline_seconds)
                times.append(running + seconds)
    if plan.target is not None and facts.stepwise:
        times += [failure_time(pod) for pod in facts.arm(plan.target).live if not pod.ready]
    ahead = [(when - now).total_seconds() for when in times if when > now]
    return max(1.0, min(ahead) + 1.0) if ahead else None
