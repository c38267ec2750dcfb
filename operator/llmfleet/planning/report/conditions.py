"""Every condition of an LLMDeployment, from what was observed and decided (docs/conditions.md).

A condition's time changes only with its status, so deciding twice gives the same conditions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from llmfleet.api import Condition
from llmfleet.planning.acceptance import Acceptance
from llmfleet.planning.facts.read import Facts, Routers
from llmfleet.planning.report.progress import describe_wait, next_sentence
from llmfleet.planning.rollout.diagnosis import Diagnosis
from llmfleet.planning.rollout.intent import Intent
from llmfleet.planning.rollout.split import RolloutPlan
from llmfleet.planning.snapshot import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One condition, before it gets its time."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that conditions and messages are made from."""

    facts: Facts
    intent: Intent
    rollout: RolloutPlan
    acceptance: Acceptance
    trouble: Diagnosis | None
    """The worst pod of the revision on its way up, else of the served one."""
    capacity: Verdict
    taken: tuple[str, ...]
    """Children whose name belongs to somebody else."""
    refused: tuple[str, ...]
    """Sentences about children that the API server refused."""
    lost: tuple[str, ...]
    """Revisions that run although nothing remembers their pod template."""
    rejected: str | None
    """Hash that spec asks for although it was rejected."""
    overdue_seconds: int | None
    """progressDeadline, once it is exceeded."""
    moved: bool
    """This plan changes the traffic command."""
    outdated_settings: bool = False
    """The rollout under way was begun with other settings than spec has now."""


def format_time(when: datetime) -> str:
    """A time as the API writes it, in whole seconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def count(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> count(1, "router"), count(2, "router")
        ('1 router', '2 routers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def build_conditions(
    verdicts: Iterable[Verdict], previous: Iterable[Condition], generation: int, now: datetime
) -> list[JSON]:
    """Give each verdict its time: that of the last change of its status."""
    known = {each.type: each for each in previous}
    conditions = []
    for verdict in verdicts:
        before = known.get(verdict.type)
        same = before is not None and before.status == verdict.status
        since = before.last_transition_time if before is not None and same else now
        conditions.append({
            "type": verdict.type,
            "status": verdict.status,
            "observedGeneration": generation,
            "lastTransitionTime": format_time(since),
            "reason": verdict.reason,
            "message": verdict.message,
        })  # fmt: skip
    return conditions


def decide_conditions(situation: Situation) -> tuple[Verdict, ...]:
    """All conditions that apply, in a fixed order."""
    accepted = situation.acceptance
    progressing, available = _progressing(situation), _available(situation)
    ready = _ready(situation, progressing, available)
    verdicts = [
        Verdict(
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
    verdicts += _routers_confirmed(situation)
    verdicts += _exceptions(situation)
    if ready.status == "Unknown":
        verdicts.append(_copy(ready, "Reconciling", progressing.reason))
    elif ready.status == "False":
        verdicts.append(_copy(ready, "Stalled", ready.reason))
    return tuple(verdicts)


def _copy(ready: Verdict, kind: str, reason: str) -> Verdict:
    return Verdict(type=kind, status="True", reason=reason, message=ready.message)


def _available(situation: Situation) -> Verdict:
    facts = situation.facts
    ready = sum(facts.arm(name).ready for name in facts.traffic)
    if not facts.traffic:
        status, reason, text = "False", "NothingServed", "no revision has had a ready pod yet"
    elif ready == 0:
        status, reason = "False", "NoReadyReplicas"
        text = f"none of the engine pods of {', '.join(facts.traffic)} is ready"
    elif facts.routers.ready == 0:
        status, reason, text = "False", "NoReadyRouters", "no router pod is ready"
    else:
        status, reason = "True", "ReadyReplicas"
        text = (
            f"{count(ready, 'engine pod')} reached through {count(facts.routers.ready, 'router')}"
        )
    return Verdict(type="Available", status=status, reason=reason, message=text)


def _progressing(situation: Situation) -> Verdict:
    status, reason, text = _progress(situation)
    if situation.outdated_settings:
        text = f"{text}; changed rollout settings apply to the next rollout"
    return Verdict(type="Progressing", status=status, reason=reason, message=text)


def _progress(situation: Situation) -> tuple[str, str, str]:  # noqa: PLR0911 - ordered checks
    facts, plan, trouble = situation.facts, situation.rollout, situation.trouble
    if plan.held is not None:
        waiting = situation.acceptance.accepted and facts.replicas == 0
        reason = "WaitingForDemand" if waiting else "Blocked"
        return ("True" if waiting else "False"), reason, plan.held
    if situation.taken:
        return "False", "Blocked", _taken_sentence(situation)
    if situation.refused:
        return "False", "ChildRefused", "; ".join(situation.refused)
    if situation.lost:
        return "False", "TemplateLost", _lost_sentence(situation)
    serves = f"; {plan.stable} keeps serving" if plan.stable and plan.target else ""
    if situation.overdue_seconds is not None:
        what = f"revision {plan.target}" if plan.target else "the fleet"
        words = f": {trouble.message}" if trouble else ""
        text = f"{what} made no progress for {situation.overdue_seconds} s{serves}{words}"
        return "False", "ProgressDeadlineExceeded", text
    waits = describe_wait(facts, situation.intent)
    if waits is not None:
        return waits
    if trouble is not None:
        status = "False" if trouble.fatal else "True"
        return status, trouble.reason, f"{_lead(plan)}{serves}: {trouble.message}"
    if plan.target is not None:
        return "True", *_stage(situation, plan.target)
    served = facts.arm(plan.stable)
    if served.ready < facts.replicas:
        text = f"{served.ready} of {facts.replicas} engine pods of {plan.stable} are ready"
        return "True", "WaitingForReady", text
    if len(served.live) > facts.replicas:
        text = f"{count(len(served.live) - facts.replicas, 'surplus engine pod')} being stopped"
        return "True", "ScalingDown", text
    if situation.moved:
        return "True", "ShiftingTraffic", f"all traffic goes to {plan.stable}"
    return "True", "Stable", f"{plan.stable} is served by {count(facts.replicas, 'replica')}"


def _lead(plan: RolloutPlan) -> str:
    return f"revision {plan.target} does not get ready" if plan.target else "a replica is missing"


def _stage(situation: Situation, target: str) -> tuple[str, str]:
    facts, plan = situation.facts, situation.rollout
    if plan.returning:
        share = plan.traffic.get(target, 0)
        why = situation.intent.aborted
        lead = "spec changed again" if why is None else f"{target} was aborted ({why})"
        text = f"{lead}: going back to {plan.stable} first, {target} still has {share} %"
        return "ShiftingTraffic", text
    arm, wanted = facts.arm(target), plan.replicas.get(target, 0)
    if arm.wanted is None:
        return "CreatingRevision", f"making revision {target} with {count(wanted, 'replica')}"
    if facts.replicas == 0:
        return "Stable", f"revision {target} is scaled to zero"
    then = next_sentence(situation.intent)
    if situation.moved or (facts.reaches(target) and not facts.routers.confirmed):
        share = plan.traffic.get(target, 0)
        text = f"revision {target} gets {share} % of the traffic; waiting for the routers{then}"
        return "ShiftingTraffic", text
    old = facts.arm(plan.stable)
    if arm.ready >= wanted and len(old.pods) > plan.replicas.get(plan.stable or "", 0):
        text = f"pods of {plan.stable} are being stopped to make room for {target}"
        return "ScalingDown", text
    text = (
        f"{arm.ready} of {situation.intent.pods} engine pods of revision {target} are ready{then}"
    )
    return "WaitingForReady", text


def _ready(situation: Situation, progressing: Verdict, available: Verdict) -> Verdict:
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
    return Verdict(type="Ready", status=status, reason=reason, message=text)


def _routers_confirmed(situation: Situation) -> list[Verdict]:
    facts, routers = situation.facts, situation.facts.routers
    if facts.generation is None:
        return []
    if routers.silent:
        text = f"no answer for 30 s from {', '.join(routers.silent)}; {_kept_for(routers)}"
        status, reason = "Unknown", "Silent"
    elif routers.confirmed and not situation.moved:
        text = f"trafficGeneration {facts.generation} is served by {count(routers.ready, 'router')}"
        status, reason = "True", "Confirmed"
    else:
        what = ", ".join(routers.lagging) or "the routers"
        generation = facts.next_generation if situation.moved else facts.generation
        text = f"waiting for {what} to serve trafficGeneration {generation}"
        status, reason = "False", "Waiting"
    return [Verdict(type="RoutersConfirmed", status=status, reason=reason, message=text)]


def _kept_for(routers: Routers) -> str:
    """What silence holds up."""
    if routers.give_up_at is None:
        return "nothing is taken away"
    if routers.given_up:
        return "what the rollout gave up goes away without them"
    return f"what the rollout gave up is kept for them until {format_time(routers.give_up_at)}"


def _exceptions(situation: Situation) -> list[Verdict]:
    found = []
    if situation.taken:
        found.append(("NameTaken", "NameTaken", _taken_sentence(situation)))
    if situation.rejected is not None:
        found.append(("RolledBack", "RevisionRejected", _rejected_sentence(situation)))
    if situation.facts.history.unreadable:
        text = "; ".join(situation.facts.history.unreadable)
        found.append(("MemoryUnreadable", "MemoryUnreadable", text))
    outdated = _runtime_outdated(situation)
    if situation.intent.paused is not None and situation.rollout.target is not None:
        found.append(("Paused", "WaitsForPerson", situation.intent.paused))
    if situation.intent.acts.refused is not None:
        found.append(("ActRefused", "ActRefused", situation.intent.acts.refused))
    if outdated:
        found.append(("RuntimeOutdated", "NewerRuntimeAvailable", outdated))
    return [
        Verdict(type=kind, status="True", reason=reason, message=text)
        for kind, reason, text in found
    ]


def _taken_sentence(situation: Situation) -> str:
    names = ", ".join(situation.taken)
    return f"{names} belongs to somebody else and is left alone: rename or delete it"


def _lost_sentence(situation: Situation) -> str:
    names = ", ".join(situation.lost)
    return (
        f"the ControllerRevision of {names} is gone, so its Deployment is left as it is, neither"
        " scaled nor repaired: restore the ControllerRevision, or change spec to roll out another"
        " revision"
    )


def _rejected_sentence(situation: Situation) -> str:
    why = situation.intent.rejected.get(situation.rejected or "", "Rejected")
    known = situation.intent.rejected_in_status
    said = next((each.message for each in known if each.hash == situation.rejected), None)
    return (
        f"revision {situation.rejected} that spec asks for was rejected"
        f" ({why}{': ' + said if said else ''});"
        f" {situation.rollout.stable or situation.rollout.target or 'nothing'} is served: change"
        f" spec, or annotate llmfleet.dev/retry: {situation.rejected}@TOKEN"
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
