"""Engines, metrics, step kinds and triggers are a file and a row each: a toy of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import get_args

import pytest

from llmfleet.api import Step
from llmfleet.api.canonical import BUILT_METRICS
from llmfleet.api.rollout import AnalysisMetric
from llmfleet.planning.analysis.metrics import METRICS
from llmfleet.planning.analysis.metrics.metric import Metric
from llmfleet.planning.children.engines import ENGINES, VLLM
from llmfleet.planning.children.engines.engine import Engine
from llmfleet.planning.children.engines.pod import Parts, render_pod_template
from llmfleet.planning.children.naming import RUNTIME_CONFIG_ANNOTATION, deployment_key
from llmfleet.planning.rollout import steps, triggers
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.steps.kind import Allowance, StepContext, StepKind
from llmfleet.planning.rollout.triggers.trigger import Rising
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import Fleet, counted, hash_of, resource
from tests.unit.planning.test_rollout import turn

BY_TOY = {"metrics": [{"name": "TTFT"}], "minSamples": 5}


class MoonStep(StepKind):
    """A toy: ``setWeight: 7`` never ends by itself."""

    field = "set_weight"

    def applies(self, step: Step) -> bool:
        return step.set_weight == 7

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        return replace(before, weight=7)

    def done(self, step: Step, context: StepContext, due: datetime | None, now: datetime) -> bool:
        return False

    def wait(self, context: StepContext, until: str) -> tuple[str, str] | None:
        return "WaitingForMoon", "waits for the moon"


def eclipse(rising: Rising) -> Failure | None:
    """A toy: an annotation sends every rollout back."""
    if "llmfleet.dev/eclipse" not in rising.facts.deployment.metadata.annotations:
        return None
    return Failure(reason="Eclipse", message="the moon is gone", rejected=True)


GLOOM = Metric(
    name="TTFT",
    process=lambda stable, canary, min_effect: 99.0 if canary else 0.0,
    process_alone=lambda stable, canary, min_effect: 0.0,
    default_effect=0.3,
    session_effect=0.4,
    effect_alone=0.5,
    reason="Gloom",
)
"""A toy: whatever is counted by interval is evidence against the canary."""


@pytest.fixture
def gloom() -> Iterator[None]:
    METRICS[GLOOM.name] = GLOOM
    yield
    del METRICS[GLOOM.name]


def test_step_when_its_kind_is_registered_then_it_allows_waits_and_is_told() -> None:
    steps.STEPS.insert(0, MoonStep())
    try:
        world, old, new = started(canary([{"setWeight": 7}, {"setWeight": 60}]))
        at_share(world, new, 7)
        turn(world, 5)
        assert split(world) == {old: 93, new: 7}
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


@pytest.mark.usefixtures("gloom")
@pytest.mark.parametrize(("stickiness", "effect"), [("None", 0.3), ("Session", 0.4)])
def test_rollout_when_its_metric_is_registered_then_its_row_says_how_it_is_judged(
    stickiness: str, effect: float
) -> None:
    steps = [{"setWeight": 25}, {"pause": {}}]
    world, old, new = started(canary(steps, analysis=BY_TOY, stickiness=stickiness))
    at_share(world, new, 25)
    world.requests = {each: replace(counted(10), looks=()) for each in (old, new)}
    world.wait(1)
    turn(world)
    (result,) = world.status()["rollout"]["metricResults"]
    assert (result["name"], result["minEffect"], result["verdict"]) == (
        "TTFT",
        effect,
        "Successful",
    )
    world.requests = {each: counted(10) for each in (old, new)}
    turn(world)
    assert rejected(world) == {new: "Gloom"}


def test_metrics_when_listed_then_the_resource_has_them_and_calls_them_built() -> None:
    known = get_args(AnalysisMetric.model_fields["name"].annotation)
    assert set(METRICS) <= set(known)
    assert set(METRICS) == BUILT_METRICS
    assert all(name == row.name for name, row in METRICS.items())


def test_revision_when_another_engine_is_registered_then_it_runs_that_in_the_same_pod() -> None:
    image = "registry/abacus@sha256:" + "0" * 64
    abacus = Engine(
        name="abacus",
        image=lambda deployment, settings: image,
        pod_template=lambda deployment, settings, revision: render_pod_template(
            deployment, revision, Parts(image=image, config={"beads": 10})
        ),
    )
    ENGINES[VLLM.name] = abacus
    try:
        world = Fleet(resource())
        made = {child.key: child.body for child in world.decide().children}
    finally:
        ENGINES[VLLM.name] = VLLM
    body = made[deployment_key("chat", hash_of(world.raw))]
    template = body["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations[RUNTIME_CONFIG_ANNOTATION] == '{"beads":10}'
    (container,) = template["spec"]["containers"]
    assert container["image"] == image
    assert [each["name"] for each in container["ports"]] == ["http", "health"]
