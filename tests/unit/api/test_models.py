"""The models as planning reads them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llmfleet.api import (
    ALLOWED_EXTRA_ARGS,
    DEFAULT_STEPS,
    TYPED_ARGS,
    Accelerator,
    EngineSpec,
    LLMDeploymentSpec,
    SourceScheme,
    parse,
    source_claim,
    source_scheme,
)

JSON = dict[str, Any]
MODEL: JSON = {"source": "pvc://models/tiny", "servedName": "tiny"}


def resource(**spec: Any) -> JSON:
    return {"metadata": {"name": "chat", "namespace": "team-a"}, "spec": {"model": MODEL, **spec}}


def test_parse_when_minimal_then_defaults() -> None:
    deployment = parse(resource())
    assert deployment.url == "http://chat.team-a.svc"
    assert deployment.status.observed_generation == -1
    assert deployment.spec.wanted_replicas == 1
    assert deployment.spec.rollout.effective_steps == DEFAULT_STEPS
    assert [step.set_weight for step in DEFAULT_STEPS if step.set_weight] == [5, 10, 25, 50]


def test_parse_when_keys_are_unknown_then_ignored() -> None:
    raw = resource(engine={"future": 1}, future={})
    raw["status"] = {"future": 1, "phase": "Healthy"}
    assert parse(raw).status.phase == "Healthy"


def test_parse_when_value_does_not_fit_then_names_the_field() -> None:
    with pytest.raises(ValidationError, match=r"spec\.engine\.maxModelLen"):
        parse(resource(engine={"maxModelLen": "many"}))


def test_model_when_changed_then_refused() -> None:
    deployment = parse(resource())
    with pytest.raises(ValidationError, match="frozen"):
        deployment.spec.router.replicas = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("raw", "name", "count"),
    [
        ({}, "nvidia.com/gpu", 1),
        ({"count": 4}, "nvidia.com/gpu", 4),
        ({"resource": "amd.com/gpu"}, "amd.com/gpu", 1),
        ({"type": "cpu"}, None, 0),
    ],
    ids=str,
)
def test_accelerator_then_resource_and_count(raw: JSON, name: str | None, count: int) -> None:
    accelerator = Accelerator.model_validate(raw)
    assert (accelerator.resource_name, accelerator.resource_count) == (name, count)
    assert accelerator.is_cpu == (name is None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, 1),
        ({"replicas": 0}, 0),
        ({"replicas": 3}, 3),
        ({"autoscaling": {"minReplicas": 2, "maxReplicas": 8}}, 2),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 8}}, 1),
    ],
    ids=str,
)
def test_wanted_replicas_then_fixed_count(spec: JSON, expected: int) -> None:
    if "autoscaling" in spec:
        metric = {"type": "InFlightRequests", "target": {"averageValue": 24}}
        spec["autoscaling"]["metrics"] = [metric]
    assert parse(resource(**spec)).spec.wanted_replicas == expected


def test_claims_when_several_sources_then_each_claim_once() -> None:
    engine = {
        "speculativeDecoding": {"method": "draft", "draftModel": {"source": "pvc://drafts/d"}},
        "lora": {
            "adapters": [
                {"name": "a", "source": "pvc://models/lora"},
                {"name": "b", "source": "file:///b"},
            ]
        },
    }
    assert parse(resource(engine=engine)).spec.claims == ("drafts", "models")


def test_source_then_scheme_and_claim() -> None:
    assert source_scheme("hf://a/b") is SourceScheme.HF
    assert source_claim("pvc://models") == "models"
    assert source_claim("file:///models") is None
    with pytest.raises(ValueError, match="s3"):
        source_scheme("s3://x/y")


def test_extra_args_then_lists_are_disjoint_and_sorted() -> None:
    assert not set(ALLOWED_EXTRA_ARGS) & set(TYPED_ARGS)
    assert sorted(set(ALLOWED_EXTRA_ARGS)) == list(ALLOWED_EXTRA_ARGS)


def test_typed_args_then_every_field_exists() -> None:
    for path in TYPED_ARGS.values():
        model: Any = LLMDeploymentSpec
        for key in path.split("."):
            field = next(each for each in model.model_fields.values() if each.alias == key)
            model = field.annotation
            choices = getattr(model, "__args__", ())
            model = next((each for each in choices if hasattr(each, "model_fields")), model)


def test_extra_args_when_stored_then_kept_in_order() -> None:
    engine = EngineSpec.model_validate({"extraArgs": ["--seed=7", "--enforce-eager"]})
    assert engine.extra_args == ("--seed=7", "--enforce-eager")
