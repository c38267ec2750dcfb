"""The condition Progressing: ordered checks, the first that applies is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Final

from llmfleet.api import describe_step
from llmfleet.planning.advice import command
from llmfleet.planning.report.capacity import describe_overdue
from llmfleet.planning.report.situation import Situation, count
from llmfleet.planning.rollout.diagnosis import why_undecided
from llmfleet.planning.rollout.downloads import describe_downloads
from llmfleet.planning.rollout.restarting import old_pods
from llmfleet.planning.rollout.stage import deadline, settings_changed, stands_still
from llmfleet.planning.rollout.state import (
    RETRIED,
    SUPERSEDED,
    BackingOff,
    Forward,
    Going,
    Restarting,
    Returning,
)
from llmfleet.planning.rollout.transitions import leaves_at_once
from llmfleet.planning.stage import ConditionValue

Answer = tuple[str, str, str]
"""Status, reason and message."""


def decide_progress(situation: Situation) -> ConditionValue:
    """The first check's answer."""
    for check in CHECKS:
        found = check(situation)
        if found is not None:
            status, reason, text = found
            text += describe_overdue(situation.facts, situation.now)
            if settings_changed(situation.facts, situation.rollout):
                text = f"{text}; changed rollout settings apply to the next rollout"
            return ConditionValue(type="Progressing", status=status, reason=reason, message=text)
    raise AssertionError("the last check always applies")


def _held(situation: Situation) -> Answer | None:
    held = situation.rollout.advance.held
    if held is None:
        return None
    waiting = situation.acceptance.accepted and situation.facts.replicas == 0
    reason = "WaitingForDemand" if waiting else "Blocked"
    return ("True" if waiting else "False"), reason, held


def _hindered(situation: Situation) -> Answer | None:
    """Children that cannot be what they should be."""
    intended = situation.intended
    if intended.foreign:
        return "False", "Blocked", situation.foreign_sentence
    if intended.refused:
        return "False", "ChildRefused", "; ".join(intended.refused)
    if intended.lost:
        names = ", ".join(intended.lost)
        text = (
            f"the ControllerRevision of {names} is gone, so its Deployment is scaled and else left"
            " as it is, not repaired: restore the ControllerRevision, or change spec to roll"
            " out another revision"
        )
        return "False", "TemplateLost", text
    return None


def _overdue(situation: Situation) -> Answer | None:
    rollout = situation.rollout
    due = deadline(situation.facts, rollout)
    if due is None or situation.now < due:
        return None
    back = isinstance(rollout.state, Returning)
    trouble = situation.stable_trouble if back else situation.trouble
    seconds = rollout.policy.progress_deadline_seconds
    words = f": {trouble.message}" if trouble else _undecided(situation, seconds)
    text = f"revision {rollout.target} made no progress for {seconds} s{_meanwhile(situation)}"
    return "False", "ProgressDeadlineExceeded", text + words


def _undecided(situation: Situation, seconds: int) -> str:
    """Why nothing is known to be wrong, as the end of a sentence."""
    arm = situation.facts.arm(situation.rollout.target)
    return why_undecided(arm, situation.now, seconds) or _without_pods(situation)


def _without_pods(situation: Situation) -> str:
    """What may be wrong when nobody makes pods, as the end of a sentence."""
    target = situation.rollout.target
    arm = situation.facts.arm(target)
    if not arm.wanted or arm.pods or arm.refused is not None:
        return ""
    name = f"{situation.facts.deployment.metadata.name}-rev-{target}"
    return (
        f": no pod of its Deployment {name} is made: is that paused, or the cluster's controller?"
    )


def _between_tries(situation: Situation) -> Answer | None:
    state = situation.rollout.state
    if not isinstance(state, BackingOff):
        return None
    what, times = state.attempt.revision, count(state.attempt.tries, "time")
    served = situation.traffic_sentence
    text = f"revision {what} was aborted {times}, last for {state.reason}; {served}"
    if state.retry_at is None:
        act = f"{command(situation.facts.deployment, 'retry', what)}, or change spec"
        return "False", "RetriesExhausted", f"{text}: {act}"
    when = f"{state.retry_at.astimezone(UTC):%H:%M:%SZ}"
    return "True", "WaitingForRetry", f"{text}, tried again at {when}"


def _at_rest(situation: Situation) -> Answer | None:
    """A person, time or samples are waited for."""
    facts, rollout = situation.facts, situation.rollout
    state, advance = rollout.advance.state, rollout.advance
    if not isinstance(state, Going) or rollout.stable is None:
        return None
    kind = "canary" if rollout.policy.strategy == "Canary" else "revision"
    where = f"{kind} {rollout.target} at {facts.traffic.get(rollout.target or '', 0)} %"
    preview, who = situation.preview_url, ""
    if rollout.policy.strategy == "BlueGreen" and preview is not None:
        where = f"{rollout.target} is reached at {preview}, {situation.traffic_sentence}"
        who = f"; {rollout.target}"
    if advance.paused is not None:
        text = f"{where}{who} waits for a person: {advance.paused}{_then(situation)}"
        return "True", "Paused", text
    until = "" if advance.due is None else f" until {advance.due.astimezone(UTC):%H:%M:%SZ}"
    waits = stands_still(rollout, until)
    if waits is None or not isinstance(state, Forward) or state.position is None:
        return None
    step = f"step {state.position.step + 1} of {len(rollout.policy.effective_steps)}"
    return "True", waits[0], f"{where}: {step} {waits[1]}{_then(situation)}"


def _in_trouble(situation: Situation) -> Answer | None:
    trouble, rollout = situation.trouble, situation.rollout
    if trouble is None or isinstance(rollout.state, Returning):
        return None
    lead = "a replica is missing"
    if rollout.target:
        lead = f"revision {rollout.target} does not get ready"
    status = "False" if trouble.fatal else "True"
    return status, trouble.reason, f"{lead}{_meanwhile(situation)}: {trouble.message}"


def _going_back(situation: Situation) -> Answer | None:
    rollout, state = situation.rollout, situation.rollout.state
    if not isinstance(state, Returning):
        return None
    target = state.attempt.revision
    lead = f"{target} was aborted ({state.reason})"
    if state.reason == SUPERSEDED:
        lead = "spec changed again"
    elif state.reason == RETRIED:
        lead = f"{target} is tried anew when it is back"
    then = f", then {state.undo_target} is rolled out" if state.undo_target else ""
    text = f"{lead}: going back to {rollout.stable} first, {target} still has {rollout.share} %"
    at_once = "" if leaves_at_once(state) else " until ready pods can take it over"
    text += f"{at_once if rollout.share else ''}{then}{_of_stable(situation)}"
    return "True", "ShiftingTraffic", text


def _at_zero(situation: Situation) -> Answer | None:
    """In the middle of a rollout, or of what never was served."""
    facts, target = situation.facts, situation.rollout.target
    if facts.replicas > 0 or target is None or facts.arm(target).wanted is None:
        return None
    if situation.rollout.stable is None:
        left = _surplus(len(facts.arm(target).live))
        return left or ("True", "Stable", f"revision {target} is scaled to zero")
    text = f"no replicas are wanted; the rollout of {target} goes on with the first one"
    return "True", "WaitingForDemand", text


def _going_on(situation: Situation) -> Answer | None:
    facts, rollout, target = situation.facts, situation.rollout, situation.rollout.target
    if target is None:
        return None
    arm, wanted = facts.arm(target), rollout.split.replicas.get(target, 0)
    if arm.wanted is None:
        text = f"making revision {target} with {count(wanted, 'replica')}"
        return "True", "CreatingRevision", text + situation.without_comparison
    then = _then(situation)
    if rollout.moved or (facts.reaches(target) and not facts.routers.confirmed):
        text = f"revision {target} gets {rollout.share} % of the traffic; waiting for the routers"
        return "True", "ShiftingTraffic", text + then
    old = facts.arm(rollout.stable)
    if arm.ready >= wanted and old.present > rollout.split.replicas.get(rollout.stable or "", 0):
        text = f"pods of {rollout.stable} are being stopped to make room for {target}"
        return "True", "ScalingDown", text
    text = f"{arm.ready} of {rollout.pods} engine pods of revision {target} are ready"
    text += describe_downloads(arm, situation.now)
    text += why_undecided(arm, situation.now, rollout.policy.progress_deadline_seconds)
    then = _way_out(situation) or then or situation.without_comparison
    return "True", "WaitingForReady", text + then


def _restarting(situation: Situation) -> Answer | None:
    facts, state = situation.facts, situation.rollout.state
    if not isinstance(state, Restarting):
        return None
    left, ready = len(old_pods(facts, state)), facts.arm(state.revision).ready
    text = f"pods of {state.revision} are replaced one by one: {count(left, 'old one')} left"
    return "True", "Restarting", f"{text}, {ready} of {facts.replicas} ready"


def _steady(situation: Situation) -> Answer:
    facts, rollout = situation.facts, situation.rollout
    served, spec = facts.arm(rollout.stable), facts.spec_revision
    if rollout.stable not in {None, spec} and spec not in rollout.advance.rejected:
        # Another spec came with the end of the rollout before it.
        return "True", "CreatingRevision", f"{rollout.stable} is served; {spec} is rolled out next"
    if served.ready < facts.replicas:
        text = f"{served.ready} of {facts.replicas} engine pods of {rollout.stable} are ready"
        text += describe_downloads(served, situation.now)
        return "True", "WaitingForReady", text
    surplus = _surplus(len(served.live) - facts.replicas)
    if surplus is not None:
        return surplus
    if rollout.moved:
        return "True", "ShiftingTraffic", f"all traffic goes to {rollout.stable}"
    if facts.replicas == 0:
        what = f"{rollout.stable} is scaled" if rollout.stable else "nothing is served: scaled"
        return "True", "Stable", f"{what} to zero"
    return "True", "Stable", f"{rollout.stable} is served by {count(facts.replicas, 'replica')}"


def _surplus(pods: int) -> Answer | None:
    """Pods beyond the size that is wanted."""
    if pods <= 0:
        return None
    return "True", "ScalingDown", f"{count(pods, 'surplus engine pod')} being stopped"


def _meanwhile(situation: Situation) -> str:
    """Who serves while a revision does not get on, as part of a sentence."""
    rollout = situation.rollout
    if not rollout.stable or not rollout.target:
        return ""
    if set(rollout.split.traffic) == {rollout.stable}:
        ready = situation.facts.arm(rollout.stable).ready
        if ready and situation.facts.routers.ready:
            return f"; {rollout.stable} keeps serving"
        return "" if ready else _way_out(situation)
    return f"; {situation.traffic_sentence}"


def _way_out(situation: Situation) -> str:
    """What a person can do when only the revision that is to be judged has ready pods.

    It is not served by itself: there is nothing to compare it with.
    """
    facts, rollout = situation.facts, situation.rollout
    steps = isinstance(rollout.state, Forward) and rollout.state.attempt.stepwise
    if not steps or facts.arm(rollout.stable).ready or not facts.arm(rollout.target).ready:
        return ""
    act = command(facts.deployment, "promote", rollout.target, "--full")
    way = f"; {rollout.target} is ready, and to serve it unjudged {act}"
    return way + _of_stable(situation)


def _of_stable(situation: Situation) -> str:
    """What is wrong with the served revision while another one is told of."""
    trouble = situation.stable_trouble
    return f"; {trouble.message}" if trouble is not None else ""


def _then(situation: Situation) -> str:
    """What follows the step under way, as the end of a sentence; nothing without steps."""
    state, steps = situation.rollout.advance.state, situation.rollout.policy.effective_steps
    position = state.position if isinstance(state, Forward) else None
    if situation.rollout.advance.steps is None or position is None or position.step >= len(steps):
        return ""
    at = steps[position.step]
    if position.started_at is None and (at.pause is not None or at.analysis is not None):
        return f"; then {describe_step(at)}"  # promoted to before its weight was served
    following = position.step + 1
    if following >= len(steps):
        return "; then 100 % and promotion"
    return f"; then {describe_step(steps[following])}"


CHECKS: Final[tuple[Callable[[Situation], Answer | None], ...]] = (
    _held, _hindered, _overdue, _between_tries, _at_rest, _in_trouble, _going_back, _at_zero,
    _going_on, _restarting, _steady,
)  # fmt: skip
"""In the order in which they are told."""
