"""What a rollout shall do next: the revision wanted, how far it may go, or why it goes back.

Everything is read from spec, status and memory; the split and the sizes follow in ``rollout``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from llmfleet.api import (
    BlueGreen,
    HeaderRoute,
    Mirror,
    RejectedRevision,
    RolloutSpec,
    RolloutStatus,
)
from llmfleet.planning.analysis.judge import (
    ERROR_RATE,
    STICKY_MIN_EFFECT,
    Judgement,
    Verdict,
    describe_failed,
    judge_requests,
    keep_numbers,
)
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.acts import Acts, decide_acts
from llmfleet.planning.rollout.failures import (
    GENTLE,
    Failure,
    ends_before,
    find_failure,
    retry_time,
)
from llmfleet.planning.rollout.steps import (
    Course,
    Position,
    Routes,
    analysis_expired,
    follow,
    pods_at,
    routes_at,
    step_due,
    weight_at,
)

MAX_REJECTED_IN_STATUS: Final = 10
PAUSED_BY_ANNOTATION: Final = "remove the annotation llmfleet.dev/pause to go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """The intent of one decision."""

    wanted: str | None
    """Hash to serve in the end; None = leave what is served."""
    stable: str | None
    current: str | None
    """The revision of the rollout under way."""
    spec_rejected: str | None = None
    """Spec's own hash when it is rejected."""
    goal: int = 100
    """Percent that the revision wanted may have at most now."""
    pods: int
    """Pods that it shall have now, as far as the surge allows."""
    routes: Routes = (None, None)
    """What shall reach it beside its weight."""
    final: bool = True
    """At 100 % the revision is promoted."""
    course: Course | None = None
    position: Position | None = None
    """Where the rollout is; None for one without steps."""
    due: datetime | None = None
    """When time alone ends the step or the wait for another try."""
    paused: str | None = None
    """What a person has to do for the rollout to go on."""
    failure: Failure | None = None
    """Found in this decision."""
    aborted: str | None = None
    """Reason why the rollout under way goes back, or the last attempt did."""
    aborts: int = 0
    """Attempts of this revision that were aborted without its fault."""
    retry_at: datetime | None = None
    rejected: Mapping[str, str]
    """Every rejected hash → reason, for memory."""
    rejected_in_status: tuple[RejectedRevision, ...] = ()
    acts: Acts
    cause: str | None = None
    """``Undo`` or ``Rollback`` for a rollout to a kept revision, which has no steps."""
    judgement: Judgement | None = None

    @property
    def backing_off(self) -> bool:
        """The revision that spec asks for was aborted, and is not tried now."""
        return self.aborts > 0 and self.aborted is not None

    @property
    def discarded(self) -> frozenset[str]:
        """Revisions whose pods are not kept warm."""
        return frozenset(self.rejected)

    @property
    def at_once(self) -> bool:
        """Traffic leaves whether or not stable can carry it; routers shed the excess."""
        return self.aborted is not None and self.aborted not in GENTLE


def decide_intent(facts: Facts, now: datetime) -> Intent:
    """Decide what shall happen next.

    Args:
        facts: what is observed.
        now: the time of the decision.
    """
    stable = stable_revision(facts)
    current = _current(facts, stable)
    acts = decide_acts(facts, current, stable)
    retried = acts.run.get("retry")
    rejected = {name: why for name, why in facts.rejected.items() if name != retried}
    record = _record(facts, current, retried)
    base = Intent(
        wanted=facts.spec_revision,
        stable=stable,
        current=current,
        pods=facts.replicas,
        aborted=record.aborted if record.aborted != "Superseded" else None,
        aborts=record.attempt or 0,
        retry_at=record.retry_at,
        cause=record.cause,
        rejected=rejected,
        acts=acts,
    )
    found = _follow(facts, base, record, now)
    undone = acts.run.get("undo")
    if undone is not None and undone != stable:
        text = f"undone by hand: {undone} was asked for"
        failure = Failure(reason="UserUndo", message=text, rejected=True)
        found = replace(base, failure=failure, cause="Undo", position=None)
        rejected = {**rejected, facts.spec_revision: "UserUndo"}
        wanted: str | None = undone
    else:
        if found.failure is not None and current is not None:
            said = found.failure.message + describe_failed(facts.requests, current)
            found = replace(found, failure=replace(found.failure, message=said))
            found = _go_back(found, current, now)
        rejected = dict(found.rejected)
        wanted = _wanted(facts, found, record, now)
    found = replace(
        found,
        wanted=wanted,
        rejected=rejected,
        spec_rejected=facts.spec_revision if facts.spec_revision in rejected else None,
        rejected_in_status=_in_status(facts, found, rejected, now),
    )
    return _start(facts, found)


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
    up = {name for name, arm in facts.arms.items() if arm.ready and arm.wanted is not None}
    if wanted in up or not up:
        return None
    if good is not None and good.hash in up:
        return good.hash
    known = [each for each in facts.revisions.values() if each.hash in up]
    return max(known, key=lambda each: each.number).hash if known else None


def _current(facts: Facts, stable: str | None) -> str | None:
    """The revision of the rollout under way; an aborted one ends when its traffic has returned."""
    record = facts.deployment.status.rollout
    if record is None or record.revision == stable:
        return None
    returned = not facts.reaches(record.revision) and facts.may_shrink
    return None if record.attempt and record.aborted and returned else record.revision


def _record(facts: Facts, current: str | None, retried: str | None) -> RolloutStatus:
    """The recorded rollout as far as it is about the revision in question."""
    record = facts.deployment.status.rollout
    if record is None or record.revision == retried:
        return RolloutStatus()
    return record if record.revision in {facts.spec_revision, current} else RolloutStatus()


def _follow(facts: Facts, base: Intent, record: RolloutStatus, now: datetime) -> Intent:
    """Go on with the rollout under way, or find why it must go back."""
    current, stable, acts = base.current, base.stable, base.acts
    if current is None or stable is None or base.aborted is not None:
        return base
    if acts.run.get("abort") == current or acts.run.get("undo") == stable:
        text = "aborted by hand" if "abort" in acts.run else f"undone by hand: {stable} stays"
        reason = "UserAbort" if "abort" in acts.run else "UserUndo"
        return replace(base, failure=Failure(reason=reason, message=text, rejected=True))
    share = facts.traffic.get(current, 0)
    if not facts.stepwise or base.cause is not None:
        if not acts.paused:
            return base
        return replace(base, goal=share, final=False, paused=PAUSED_BY_ANNOTATION)
    judgement = _judge(facts, stable, current, record, now)
    before = ends_before(facts.arm(current), record.ended_before)
    failure = find_failure(facts, current, judgement, now, before)
    if failure is not None:
        return replace(base, failure=failure, judgement=judgement)
    course = Course(
        steps=facts.policy.effective_steps,
        replicas=facts.replicas,
        surge=facts.surge,
        share=share,
        routes=_commanded_routes(facts, current),
        ready=facts.arm(current).ready,
        confirmed=facts.routers.confirmed,
        analysis=facts.policy.analysis,
        judgement=judgement,
        needed_requests=_needed_requests(facts.policy),
    )
    return _at_step(replace(base, course=course, judgement=judgement), record, now)


def _commanded_routes(facts: Facts, current: str) -> Routes:
    routing = facts.routing
    route = routing.header_route if routing is not None else None
    mirror = routing.mirror if routing is not None else None
    return (
        HeaderRoute(headers=route.headers) if route and route.revision == current else None,
        Mirror(percent=mirror.percent) if mirror and mirror.revision == current else None,
    )


def _needed_requests(policy: RolloutSpec) -> int:
    if policy.strategy != "BlueGreen":
        return 0
    return (policy.blue_green or BlueGreen()).min_preview_requests


def _at_step(base: Intent, record: RolloutStatus, now: datetime) -> Intent:
    course, acts = base.course, base.acts
    if course is None:
        return base
    last = len(course.steps)
    position = Position(step=min(record.step or 0, last), started_at=record.step_started_at)
    if acts.paused:
        placed = _placed(base, course, position)
        goal = min(placed.goal, course.share)
        return replace(placed, goal=goal, final=False, paused=PAUSED_BY_ANNOTATION)
    if acts.run.get("promote") == base.current and position.step < last:
        step = last if acts.full else position.step + 1
        position = Position(step=step, started_at=None)
    position = follow(course, position, now)
    expired = analysis_expired(course, position, now)
    if expired and course.analysis.on_inconclusive == "Rollback":
        text = f"no verdict in {course.analysis.max_duration}: {course.judgement.message}"
        failure = Failure(reason="AnalysisInconclusive", message=text, rejected=True)
        return replace(base, failure=failure)
    return replace(
        _placed(base, course, position),
        final=position.step >= last,
        due=step_due(course, position),
        paused=_waits_for_person(course, position, expired=expired),
    )


def _placed(base: Intent, course: Course, position: Position) -> Intent:
    """What a step allows the new revision."""
    return replace(
        base,
        position=position,
        goal=weight_at(course.steps, position.step),
        pods=pods_at(course.steps, position.step, course.replicas),
        routes=routes_at(course.steps, position.step),
    )


def _waits_for_person(course: Course, position: Position, *, expired: bool) -> str | None:
    if position.step >= len(course.steps) or position.started_at is None:
        return None
    promote = "annotate llmfleet.dev/promote: HASH@TOKEN to go on, llmfleet.dev/abort to go back"
    if expired:
        return f"the analysis has no verdict ({course.judgement.message}): {promote}"
    if course.lacks_requests and course.judgement.requests is None:
        needed = f"the {course.needed_requests} requests that it needs cannot be counted"
        return f"{needed} ({course.judgement.message}): {promote}"
    pause = course.steps[position.step].pause
    return promote if pause is not None and pause.duration is None else None


def _judge(
    facts: Facts, stable: str, current: str, record: RolloutStatus, now: datetime
) -> Judgement:
    analysis = facts.policy.analysis
    metric = next((each for each in analysis.metrics if each.name == ERROR_RATE), None)
    if metric is None:
        return Judgement(verdict=Verdict.INCONCLUSIVE, message="spec does not judge ErrorRate")
    effect = metric.min_effect_share
    if effect is None and facts.policy.stickiness == "Session":
        effect = STICKY_MIN_EFFECT
    fresh = judge_requests(
        facts.requests,
        stable=stable,
        canary=current,
        min_samples=analysis.min_samples,
        min_effect=effect,
        alpha=analysis.alpha,
        unknown=facts.requests_problem,
    )
    recorded = next((each for each in record.metric_results if each.name == ERROR_RATE), None)
    return keep_numbers(fresh, recorded, now)


def _go_back(found: Intent, current: str, now: datetime) -> Intent:
    """The rollout under way ends here: rejected, or aborted and tried again later."""
    failure = found.failure
    if failure is None:
        return found
    if failure.rejected:
        rejected = {**found.rejected, current: failure.reason}
        return replace(
            found, aborted=failure.reason, aborts=0, retry_at=None, rejected=rejected, due=None
        )
    aborts = found.aborts + 1
    retry_at = retry_time(aborts, now)
    return replace(found, aborted=failure.reason, aborts=aborts, retry_at=retry_at, due=retry_at)


def _wanted(facts: Facts, found: Intent, record: RolloutStatus, now: datetime) -> str | None:
    if record.cause == "Undo" and found.stable in found.rejected:
        # A share that the kept revision has must not go back to the rejected one.
        begun = facts.traffic.get(record.revision or "", 0) > 0
        if begun or facts.spec_revision in found.rejected:
            return record.revision
    if facts.spec_revision in found.rejected:
        if found.cause == "Undo" and found.current is not None:
            return found.current
        return found.stable if found.stable not in {None, *found.rejected} else _good(facts, found)
    if found.backing_off:
        going = found.current is not None and found.failure is None
        due = found.retry_at is not None and now >= found.retry_at and not going
        return facts.spec_revision if due and found.failure is None else found.stable
    return facts.spec_revision


def _good(facts: Facts, found: Intent) -> str | None:
    """The revision to go back to when none is served, or one that was rejected.

    A status that is lost while a rollout goes back says no more what was served before, and the
    rejected revision may be all that is up.
    """
    good = facts.memory.last_good
    return good.hash if good is not None and good.hash not in found.rejected else found.stable


def _start(facts: Facts, found: Intent) -> Intent:
    """A rollout that is not under way yet begins at its first step, with spec's settings."""
    if found.wanted is None or found.stable is None or found.wanted == found.stable:
        due = found.retry_at if found.backing_off else found.due
        return replace(found, due=due)
    if found.wanted == found.current:
        return found
    cause = found.cause or _cause(facts, found)
    steps = facts.deployment.spec.rollout.effective_steps if cause is None else ()
    retrying = found.backing_off and found.failure is None
    paused = found.acts.paused and cause is None
    return replace(
        found,
        cause=cause,
        goal=0 if paused else weight_at(steps, 0),
        pods=0 if paused else pods_at(steps, 0, facts.replicas),
        paused=PAUSED_BY_ANNOTATION if paused else None,
        position=None,
        aborted=None if retrying else found.aborted,
        retry_at=None if retrying else found.retry_at,
    )


def _cause(facts: Facts, found: Intent) -> str | None:
    """``Rollback`` to a revision served before, within rollbackWindow; ``Undo`` from a rejected."""
    if facts.spec_revision in found.rejected and found.stable in found.rejected:
        return "Undo"
    promoted = [
        (each.promoted_at, each.hash)
        for each in facts.deployment.status.revisions
        if each.promoted_at is not None and each.hash != found.stable
    ]
    window = sorted(promoted, reverse=True)[: facts.deployment.spec.rollout.rollback_window]
    return "Rollback" if found.wanted in {name for _, name in window} else None


def _in_status(
    facts: Facts,
    found: Intent,
    rejected: Mapping[str, str],
    now: datetime,
) -> tuple[RejectedRevision, ...]:
    """The latest rejections; an empty status takes memory's, so that no retry is read into it."""
    before = [each for each in facts.deployment.status.rejected_revisions if each.hash in rejected]
    known = {each.hash for each in before}
    message = found.failure.message if found.failure is not None else None
    fresh = [name for name in rejected if name not in facts.rejected]
    if facts.deployment.status.schema_ is None:
        asked = facts.deployment.metadata.annotations.get("llmfleet.dev/retry", "").split("@")[0]
        named = [name for name in rejected if name in {facts.spec_revision, asked}]
        fresh = [name for name in rejected if name not in named] + named
    entries = [
        RejectedRevision(hash=name, reason=rejected[name], at=now, message=message)
        for name in fresh
        if name not in known
    ]
    return (*before, *entries)[-MAX_REJECTED_IN_STATUS:]
