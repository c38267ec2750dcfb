"""A kind of step and a trigger are a file and a row each: a toy of both, registered and at work."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from llmfleet.api import Step
from llmfleet.planning.rollout import steps, triggers
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.steps.kind import Allowance, StepContext, StepKind
from llmfleet.planning.rollout.triggers.trigger import Rising
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.test_rollout import turn


class HalfAndHalf(StepKind):
    """A toy: ``setWeight: 7`` means half of the traffic, and never ends by itself."""

    field = "set_weight"

    def applies(self, step: Step) -> bool:
        return step.set_weight == 7

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        return replace(before, weight=50)

    def done(self, step: Step, context: StepContext, due: datetime | None, now: datetime) -> bool:
        return False

    def wait(self, context: StepContext, until: str) -> tuple[str, str] | None:
        return "WaitingForMoon", "waits for the moon"


def eclipse(rising: Rising) -> Failure | None:
    """A toy: an annotation sends every rollout back."""
    if "llmfleet.dev/eclipse" not in rising.facts.deployment.metadata.annotations:
        return None
    return Failure(reason="Eclipse", message="the moon is gone", rejected=True)


def test_step_when_its_kind_is_registered_then_it_allows_waits_and_is_told() -> None:
    steps.STEPS.insert(0, HalfAndHalf())
    try:
        world, old, new = started(canary([{"setWeight": 7}, {"setWeight": 60}]))
        at_share(world, new, 50)
        turn(world, 5)
        assert split(world) == {old: 50, new: 50}
        assert world.condition("Progressing")["reason"] == "WaitingForMoon"
    finally:
        steps.STEPS.pop(0)


def test_rollout_when_a_registered_trigger_asks_then_it_goes_back_with_its_reason() -> None:
    triggers.TRIGGERS.append(eclipse)
    try:
        world, old, new = started()
        at_share(world, new, 25)
        annotate(world, "eclipse", "total")
        turn(world)
        assert rejected(world) == {new: "Eclipse"}
        assert split(world) == {old: 100}
    finally:
        triggers.TRIGGERS.remove(eclipse)
