"""``decide(snapshot, now) -> Plan``: the pipeline of everything that shall be true next.

read → accept → scale → rollout (triggers, steps, split) → revisions → children → report. Each stage
decides its own part and says so; here they are only put one after the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llmfleet.api import STATUS_SCHEMA
from llmfleet.planning.acceptance import decide_acceptance
from llmfleet.planning.children.intended import decide_children
from llmfleet.planning.facts.read import Facts, read_facts
from llmfleet.planning.plan import Plan, PlannedEvent
from llmfleet.planning.report.capacity import decide_capacity
from llmfleet.planning.report.events import plan_events
from llmfleet.planning.report.outcome import find_outcome
from llmfleet.planning.report.revisions import build_revisions
from llmfleet.planning.report.situation import Situation
from llmfleet.planning.report.status import build_status
from llmfleet.planning.report.unreadable import decide_unremembered
from llmfleet.planning.revisions.keeping import Keeping, decide_keeping
from llmfleet.planning.rollout.remembering import remember
from llmfleet.planning.rollout.stage import (
    Rollout,
    decide_rollout,
    due_times,
    find_trouble,
)
from llmfleet.planning.rollout.state import Returning
from llmfleet.planning.scaling.fixed import decide_scale
from llmfleet.planning.snapshot import Snapshot
from llmfleet.planning.stage import seconds_until


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
    facts = read_facts(snapshot, decide_scale(snapshot.deployment).replicas, now)
    if facts.history.held is not None and snapshot.deployment.status.schema_ is None:
        return decide_unremembered(snapshot.raw, facts.history.held, now)
    acceptance = decide_acceptance(snapshot)
    capacity = decide_capacity(facts, now)
    no_room = any(each.status == "False" for each in capacity.conditions)
    blocked = None if acceptance.accepted else acceptance.message
    facts, rollout = decide_rollout(facts, blocked, now, no_room=no_room)
    history = _history(snapshot, facts, rollout)
    memory = remember(facts, rollout, history)
    intended = decide_children(
        snapshot, history, memory if facts.history.held is None else None,
        replicas=rollout.split.replicas, removed=rollout.split.removed,
        replaced=rollout.split.replaced,
    )  # fmt: skip
    situation = Situation(
        facts=facts, rollout=rollout, acceptance=acceptance, capacity=capacity.conditions[0],
        intended=intended,
        trouble=find_trouble(facts, rollout, rollout.target or rollout.stable, now),
        stable_trouble=find_trouble(facts, rollout, rollout.stable, now), now=now,
    )  # fmt: skip
    status = build_status(
        situation,
        revisions=build_revisions(facts, rollout, history, now),
        handled_acts=dict(memory.handled_acts),
    )
    due = (*capacity.due, *due_times(facts, rollout))
    return Plan(
        status=status,
        children=intended.children,
        deletions=intended.deletions,
        events=plan_events(situation, status),
        outcome=find_outcome(rollout, now),
        requeue_after=seconds_until(due, now),
        summary=status["message"],
    )


def _history(snapshot: Snapshot, facts: Facts, rollout: Rollout) -> Keeping:
    good, state = facts.memory.last_good, rollout.state
    in_use = {*rollout.split.replicas, rollout.target or "", rollout.stable or ""}
    in_use |= {good.hash} if good is not None else set()
    if isinstance(state, Returning) and state.undo_target is not None:
        in_use.add(state.undo_target)
    needed = (rollout.target, rollout.stable)
    return decide_keeping(snapshot, facts, needed=needed, in_use=in_use)


def _newer_schema(schema: int) -> Plan:
    text = (
        f"status.schema is {schema}, this operator knows {STATUS_SCHEMA}: children and traffic are"
        " left as they are; upgrade the operator"
    )
    event = PlannedEvent(type="Warning", reason="NewerStatusSchema", message=text)
    return Plan(status=None, events=(event,), summary=text)
