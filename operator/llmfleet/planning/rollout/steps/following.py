"""Which step is under way, and what the steps so far allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from llmfleet.api import Step
from llmfleet.planning.analysis.judge import Judgement, Verdict
from llmfleet.planning.rollout.attempt import Position
from llmfleet.planning.rollout.capacity import old_replicas
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.steps import STEPS
from llmfleet.planning.rollout.steps.kind import Allowance, StepContext, StepKind


def kind_of(step: Step) -> StepKind:
    """The kind of a step.

    Raises:
        LookupError: it is of none that this operator knows.
    """
    found = next((kind for kind in STEPS if kind.applies(step)), None)
    if found is None:
        raise LookupError(f"a step of no known kind: {step}")
    return found


def allowance_at(steps: Sequence[Step], index: int, replicas: int) -> Allowance:
    """What the new revision may have at a step: everything after the last one.

    Args:
        steps: of the rollout.
        index: of the step under way, from 0.
        replicas: N, the fleet's size.

    Example:
        >>> steps = [Step(set_weight=5), Step(set_mirror={"percent": 10}), Step(set_weight=50)]
        >>> found = [allowance_at(steps, index, replicas=4) for index in range(4)]
        >>> [(each.weight, each.pods(4), each.routes[1]) for each in found[1:]]
        [(5, 1, Mirror(percent=10)), (50, 2, Mirror(percent=10)), (100, 4, None)]
    """
    if index >= len(steps):
        return Allowance(weight=100)
    allowance = Allowance()
    for step in steps[: index + 1]:
        allowance = kind_of(step).allow(step, allowance, replicas)
    return allowance


def follow(context: StepContext, position: Position, now: datetime) -> Position:
    """Leave all steps that are done; the same input gives the same position."""
    for _ in range(len(context.steps) + 1):
        position = _start_clock(context, position, now)
        if not _done(context, position, now):
            break
        position = Position(step=position.step + 1)
        context = replace(context, own_judgement=not_counted(context.judgement))
    return position


def step_due(context: StepContext, position: Position) -> datetime | None:
    """When time alone ends the step (or its analysis); None when it does not."""
    step = step_under_way(context, position)
    if step is None or position.started_at is None:
        return None
    return kind_of(step).due(step, context, position.started_at)


def step_failure(context: StepContext, position: Position, now: datetime) -> Failure | None:
    """Why the step under way sends the rollout back."""
    step, due = step_under_way(context, position), step_due(context, position)
    if step is None or position.started_at is None:
        return None
    return kind_of(step).failure(context, due, now)


def waits_for_person(context: StepContext, position: Position, now: datetime) -> str | None:
    """Why a person has to end the step under way, "" if that needs no word; None otherwise."""
    step, due = step_under_way(context, position), step_due(context, position)
    if step is None or position.started_at is None:
        return None
    return kind_of(step).needs_person(step, context, due, now)


def describe_step_wait(
    context: StepContext, position: Position, until: str
) -> tuple[str, str] | None:
    """Reason and words while the step under way waits for time or samples; None otherwise."""
    step = step_under_way(context, position)
    if step is None or position.started_at is None:
        return None
    return kind_of(step).wait(context, until)


def step_under_way(context: StepContext, position: Position) -> Step | None:
    """The step under way; None when all are done."""
    return context.steps[position.step] if position.step < len(context.steps) else None


def not_counted(judgement: Judgement) -> Judgement:
    """What is known of the requests of a step that only just began."""
    return Judgement(
        metric=judgement.metric, min_effect=judgement.min_effect,
        verdict=Verdict.INCONCLUSIVE, message="it is not counted yet",
    )  # fmt: skip


def _start_clock(context: StepContext, position: Position, now: datetime) -> Position:
    if step_under_way(context, position) is None:
        return position
    if context.replicas == 0 or not _commanded(context, position.step):
        return Position(step=position.step)
    if position.started_at is None:
        return replace(position, started_at=now) if context.confirmed else position
    # A clock that was ahead, this one's or another operator's, lengthens no step.
    return replace(position, started_at=min(position.started_at, now))


def _commanded(context: StepContext, index: int) -> bool:
    """Whether the canary has what the step gives it, confirmed or not."""
    allowance = allowance_at(context.steps, index, context.replicas)
    stable = old_replicas(
        context.replicas, context.surge, context.share, context.ready,
        new_pods=allowance.pods(context.replicas),
    )  # fmt: skip
    return (
        context.share >= allowance.weight
        and context.routes == allowance.routes
        and context.ready >= min(allowance.least_pods, context.replicas + context.surge - stable)
    )


def _done(context: StepContext, position: Position, now: datetime) -> bool:
    step = step_under_way(context, position)
    if step is None or position.started_at is None:
        return False
    return kind_of(step).done(step, context, step_due(context, position), now)
