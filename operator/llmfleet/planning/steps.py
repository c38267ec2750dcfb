"""The steps of a canary: which one is under way, how much weight it allows, what ends it.

A step's clock starts when its split is really served: the weight is commanded, and every Ready
router has confirmed it. If the canary loses its share meanwhile, the clock starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from llmfleet.api import Analysis, Step, parse_duration_seconds
from llmfleet.planning.analysis import Judgement, Verdict


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
    share: int
    """Percent that the canary is commanded to get now."""
    confirmed: bool
    """Every Ready router serves that split."""
    analysis: Analysis
    judgement: Judgement


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
    if course.share < weight_at(course.steps, position.step):
        return Position(step=position.step, started_at=None)
    if position.started_at is None and course.confirmed:
        return Position(step=position.step, started_at=now)
    return position


def _done(course: Course, position: Position, now: datetime) -> bool:
    if position.step >= len(course.steps) or position.started_at is None:
        return False
    step, due = course.steps[position.step], step_due(course, position)
    if step.set_weight is not None:
        return True
    if step.analysis is not None:
        if course.judgement.verdict is Verdict.SUCCESSFUL:
            return True
        proceeds = course.analysis.on_inconclusive == "Proceed"
        return proceeds and analysis_expired(course, position, now)
    return due is not None and now >= due
