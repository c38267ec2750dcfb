"""The steps of a rollout: which one is under way, what it allows, and what ends it.

A step's clock starts when it is really served: the weight and the routes are commanded, every
Ready router has confirmed them, and the pods asked for are ready. If the new revision loses any of
it meanwhile, the clock starts anew. A blue-green rollout is made of such steps, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from llmfleet.api import Analysis, HeaderRoute, Mirror, Step, parse_duration_seconds
from llmfleet.planning.analysis.judge import Judgement, Verdict
from llmfleet.planning.rollout.capacity import old_replicas, pods_for

Routes = tuple[HeaderRoute | None, Mirror | None]
"""What reaches a canary beside its weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a canary is."""

    step: int
    """Index of the step under way; the number of steps = all are done."""
    started_at: datetime | None
    """When its clock started; None = not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What all steps depend on besides the position."""

    steps: Sequence[Step]
    replicas: int
    """N, the fleet's size."""
    surge: int
    """S, replicas beyond N that the rollout may take."""
    share: int
    """Percent that the canary is commanded to get now."""
    routes: Routes
    """What is commanded to reach it beside that."""
    ready: int
    """Its ready pods."""
    confirmed: bool
    """Every Ready router serves that command."""
    analysis: Analysis
    judgement: Judgement
    needed_requests: int = 0
    """Requests the new revision must have had before a timed pause ends."""

    @property
    def lacks_requests(self) -> bool:
        """Whether too few requests are known to end a timed pause."""
        return (self.judgement.requests or 0) < self.needed_requests


def weight_at(steps: Sequence[Step], step: int) -> int:
    """Percent that a step allows: that of the last setWeight so far, 100 after all.

    >>> steps = [Step(set_weight=5), Step(pause={}), Step(set_weight=50)]
    >>> [weight_at(steps, index) for index in range(4)], weight_at(steps[1:2], 0)
    ([5, 5, 50, 100], 0)
    """
    if step >= len(steps):
        return 100
    weights = [each.set_weight for each in steps[: step + 1] if each.set_weight is not None]
    return weights[-1] if weights else 0


def routes_at(steps: Sequence[Step], step: int) -> Routes:
    """What a step lets reach the canary beside its weight; nothing after all.

    >>> steps = [Step(set_mirror={"percent": 10}), Step(pause={}), Step(set_mirror={"percent": 0})]
    >>> [routes_at(steps, index)[1] for index in range(4)]
    [Mirror(percent=10), Mirror(percent=10), None, None]
    """
    if step >= len(steps):
        return None, None
    passed = steps[: step + 1]
    routes = [each.set_header_route for each in passed if each.set_header_route is not None]
    mirrors = [each.set_mirror for each in passed if each.set_mirror is not None]
    route = routes[-1] if routes and routes[-1].headers else None
    return route, mirrors[-1] if mirrors and mirrors[-1].percent else None


def pods_at(steps: Sequence[Step], step: int, replicas: int) -> int:
    """Pods that the canary shall have: ceil(N·w), setCanaryScale's, one where it is routed to.

    >>> steps = [Step(set_canary_scale={"replicas": 2}), Step(set_weight=25), Step(set_weight=75)]
    >>> [pods_at(steps, index, 4) for index in range(4)]
    [2, 2, 3, 4]
    """
    routed = any(routes_at(steps, step))
    by_weight = pods_for(replicas, weight_at(steps, step))
    return max(by_weight, scale_at(steps, step, replicas), int(routed))


def scale_at(steps: Sequence[Step], step: int, replicas: int) -> int:
    """Pods that the last setCanaryScale asks for; 0 without one."""
    found = [each.set_canary_scale for each in steps[: step + 1] if each.set_canary_scale]
    if not found or step >= len(steps):
        return 0
    return found[-1].replicas or pods_for(replicas, found[-1].percent or 0)


def follow(course: Course, position: Position, now: datetime) -> Position:
    """Leave all steps that are done; the same input gives the same position."""
    for _ in range(len(course.steps) + 1):
        position = _start_clock(course, position, now)
        if not _done(course, position, now):
            break
        position = Position(step=position.step + 1, started_at=None)
    return position


def step_due(course: Course, position: Position) -> datetime | None:
    """When time alone ends the step (or its analysis); None when it does not."""
    if position.step >= len(course.steps) or position.started_at is None:
        return None
    step = course.steps[position.step]
    if step.pause is not None and step.pause.duration is not None:
        seconds = parse_duration_seconds(step.pause.duration)
    elif step.analysis is not None:
        seconds = course.analysis.max_duration_seconds
    else:
        return None
    return position.started_at + timedelta(seconds=seconds)


def analysis_expired(course: Course, position: Position, now: datetime) -> bool:
    """Whether an analysis step has lasted maxDuration without a verdict."""
    if position.step >= len(course.steps) or course.steps[position.step].analysis is None:
        return False
    due = step_due(course, position)
    return due is not None and now >= due and course.judgement.verdict is not Verdict.SUCCESSFUL


def _start_clock(course: Course, position: Position, now: datetime) -> Position:
    if position.step >= len(course.steps):
        return position
    if not _commanded(course, position.step):
        return Position(step=position.step, started_at=None)
    if position.started_at is None and course.confirmed:
        return Position(step=position.step, started_at=now)
    return position


def _commanded(course: Course, step: int) -> bool:
    """Whether the canary has what the step gives it, confirmed or not."""
    scale = scale_at(course.steps, step, course.replicas)
    stable = old_replicas(
        course.replicas, course.surge, course.share, course.ready,
        new_pods=pods_at(course.steps, step, course.replicas),
    )  # fmt: skip
    return (
        course.share >= weight_at(course.steps, step)
        and course.routes == routes_at(course.steps, step)
        and course.ready >= min(scale, course.replicas + course.surge - stable)
    )


def _done(course: Course, position: Position, now: datetime) -> bool:
    if position.step >= len(course.steps) or position.started_at is None:
        return False
    step, due = course.steps[position.step], step_due(course, position)
    if step.pause is not None:
        return due is not None and now >= due and not course.lacks_requests
    if step.analysis is not None:
        if course.judgement.verdict is Verdict.SUCCESSFUL:
            return True
        proceeds = course.analysis.on_inconclusive == "Proceed"
        return proceeds and analysis_expired(course, position, now)
    return True
