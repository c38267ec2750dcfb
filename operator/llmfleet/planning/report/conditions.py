"""Every condition of an LLMDeployment, from what was observed and decided (docs/conditions.md).

A condition's time changes only with its status, so deciding twice gives the same conditions.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from llmfleet.api import Condition, shorten
from llmfleet.planning.advice import command
from llmfleet.planning.clock import format_time
from llmfleet.planning.facts.routers import Routers
from llmfleet.planning.report.capacity import describe_routers
from llmfleet.planning.report.progress import decide_progress
from llmfleet.planning.report.situation import Situation, count
from llmfleet.planning.snapshot import JSON
from llmfleet.planning.stage import ConditionValue

LONGEST_MESSAGE: Final = 8000
"""What others say is cut where it is read, but there may be many of them; a status with a longer
message than the CRD allows (32,768) would not be written at all."""
MEET: Final = {"NoReadyReplicas": "clients get 503", "NoAddress": "clients do not reach this one"}
"""What clients meet for want of what a reason of Available names."""


def build_conditions(
    values: Iterable[ConditionValue],
    previous: Iterable[Condition],
    generation: int,
    now: datetime,
) -> list[JSON]:
    """Give each condition its time: that of the last change of its status."""
    known = {each.type: each for each in previous}
    conditions = []
    for value in values:
        before = known.get(value.type)
        same = before is not None and before.status == value.status
        since = before.last_transition_time if before is not None and same else now
        conditions.append({
            "type": value.type,
            "status": value.status,
            "observedGeneration": generation,
            "lastTransitionTime": format_time(since),
            "reason": value.reason,
            "message": shorten(value.message, LONGEST_MESSAGE),
        })  # fmt: skip
    return conditions


def decide_conditions(situation: Situation) -> tuple[ConditionValue, ...]:
    """All conditions that apply, in a fixed order."""
    accepted = situation.acceptance
    progressing = decide_progress(situation)
    available = _available(situation)
    ready = _ready(situation, progressing, available)
    values = [
        ConditionValue(
            type="Accepted",
            status="True" if accepted.accepted else "False",
            reason=accepted.reason,
            message=accepted.message,
        ),
        ready,
        available,
        progressing,
        situation.capacity,
    ]
    values += _routers_confirmed(situation)
    values += _exceptions(situation)
    if ready.status == "Unknown":
        values.append(_copy(ready, "Reconciling", progressing.reason))
    elif ready.status == "False":
        values.append(_copy(ready, "Stalled", ready.reason))
    return tuple(values)


def _copy(ready: ConditionValue, kind: str, reason: str) -> ConditionValue:
    return ConditionValue(type=kind, status="True", reason=reason, message=ready.message)


def _available(situation: Situation) -> ConditionValue:
    facts, rollout = situation.facts, situation.rollout
    # Without a status, routers go on with what the last one commanded, which this plan repeats.
    traffic = facts.traffic or ({} if rollout.stable is None else rollout.split.traffic)
    ready = sum(facts.arm(name).ready for name in traffic)
    if not traffic:
        status, reason, text = "False", "NothingServed", "no revision has had a ready pod yet"
        if rollout.stable is not None:
            text = f"nothing is served: {rollout.stable} has no ready pod yet"
    elif ready == 0:
        status, reason = "False", "NoReadyReplicas"
        text = f"none of the engine pods of {', '.join(traffic)} is ready"
    elif facts.routers.ready == 0:
        status, reason, text = "False", "NoReadyRouters", "no router pod is ready"
    elif situation.url is None:
        status, reason = "False", "NoAddress"
        text = f"the Service {facts.deployment.metadata.name} is somebody else's"
    else:
        status, reason = "True", "ReadyReplicas"
        text = (
            f"{count(ready, 'engine pod')} reached through {count(facts.routers.ready, 'router')}"
        )
    router_trouble = describe_routers(facts, situation.now)
    if router_trouble is not None:
        text = f"{text}; {router_trouble}"
    return ConditionValue(type="Available", status=status, reason=reason, message=text)


def _ready(
    situation: Situation, progressing: ConditionValue, available: ConditionValue
) -> ConditionValue:
    served = situation.facts.replicas
    if not situation.acceptance.accepted:
        status, reason, text = "False", "Degraded", situation.acceptance.message
    elif situation.rejected is not None:
        status, reason, text = "False", "Degraded", _rejected_sentence(situation)
    elif progressing.status == "False":
        status, reason, text = "False", "Degraded", progressing.message
    elif progressing.reason != "Stable":
        status, reason, text = "Unknown", "Progressing", progressing.message
    elif served and available.status != "True":
        status, reason, text = "Unknown", "Progressing", available.message
    else:
        status, reason, text = "True", "Ready", progressing.message
    capacity = situation.capacity
    if status != "False" and capacity.status == "False":
        text = f"{capacity.message.rstrip('.')}; {text}"  # what everything else waits for
    outage = _outage(situation, available)
    if outage is not None:
        text = outage if text == available.message else f"{outage}; {text}"
    return ConditionValue(type="Ready", status=status, reason=reason, message=text)


def _outage(situation: Situation, available: ConditionValue) -> str | None:
    """What clients meet while nothing serves that did; it comes before whatever else is told."""
    wanted = situation.facts.replicas and situation.rollout.stable is not None
    if not wanted or available.status == "True":
        return None
    meet = MEET.get(available.reason, "clients get no answer")
    return f"{available.message}, {meet}"


def _routers_confirmed(situation: Situation) -> list[ConditionValue]:
    facts, routers, moved = situation.facts, situation.facts.routers, situation.rollout.moved
    if facts.generation is None:
        return []
    if routers.silent:
        text = f"no answer for 30 s from {', '.join(routers.silent)}; {_kept_for(routers)}"
        status, reason = "Unknown", "Silent"
    elif routers.stale:
        text = f"{'; '.join(routers.stale)}; nothing is taken away"
        status, reason = "Unknown", "Silent"
    elif routers.confirmed and not moved:
        text = f"trafficGeneration {facts.generation} is served by {count(routers.ready, 'router')}"
        status, reason = "True", "Confirmed"
    else:
        what = ", ".join(routers.lagging) or "the routers"
        generation = facts.next_generation if moved else facts.generation
        text = f"waiting for {what} to serve trafficGeneration {generation}"
        status, reason = "False", "Waiting"
    return [ConditionValue(type="RoutersConfirmed", status=status, reason=reason, message=text)]


def _kept_for(routers: Routers) -> str:
    """What silence holds up."""
    if routers.give_up_at is None:
        return "nothing is taken away"
    if routers.given_up:
        return "what the rollout gave up goes away without them"
    return f"what the rollout gave up is kept for them until {format_time(routers.give_up_at)}"


def _exceptions(situation: Situation) -> list[ConditionValue]:
    rollout, found = situation.rollout, []
    if situation.intended.foreign:
        found.append(("NameTaken", "NameTaken", situation.foreign_sentence))
    if situation.rejected is not None:
        found.append(("RolledBack", "RevisionRejected", _rejected_sentence(situation)))
    if rollout.advance.paused is not None and rollout.target is not None:
        found.append(("Paused", "WaitsForPerson", rollout.advance.paused))
    if rollout.advance.acts.refused is not None:
        found.append(("ActRefused", "ActRefused", rollout.advance.acts.refused))
    if situation.facts.history.unreadable:
        text = "; ".join(situation.facts.history.unreadable)
        found.append(("MemoryUnreadable", "MemoryUnreadable", text))
    outdated = _runtime_outdated(situation)
    if outdated:
        found.append(("RuntimeOutdated", "NewerRuntimeAvailable", outdated))
    return [
        ConditionValue(type=kind, status="True", reason=reason, message=text)
        for kind, reason, text in found
    ]


def _rejected_sentence(situation: Situation) -> str:
    rollout = situation.rollout
    why = rollout.advance.rejected.get(situation.rejected or "", "Rejected")
    known = rollout.rejected_in_status
    said = next((each.message for each in known if each.hash == situation.rejected), None)
    return (
        f"revision {situation.rejected} that spec asks for was rejected"
        f" ({why}{': ' + said if said else ''});"
        f" {situation.traffic_sentence}: change spec, or"
        f" {command(situation.facts.deployment, 'retry', situation.rejected)}"
    )


def _runtime_outdated(situation: Situation) -> str | None:
    facts = situation.facts
    served = facts.revisions.get(situation.rollout.stable or "")
    if served is None or (served.payload.get("engine") or {}).get("image"):
        return None
    cpu = (served.payload.get("accelerator") or {}).get("type") == "cpu"
    bundled = facts.settings.runtime_image_cpu if cpu else facts.settings.runtime_image_gpu
    if not served.image or served.image == bundled:
        return None
    return (
        f"{served.hash} runs {served.image}, this operator comes with {bundled}: set"
        " spec.engine.image to take it"
    )
