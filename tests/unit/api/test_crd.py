"""The generated CRD: complete, bounded, and the same as the committed file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmfleet.api import crd, reference

JSON = dict[str, Any]
REPOSITORY = Path(__file__).parents[3]
ABSENT = object()
REQUIRED = object()

ROOT: JSON = crd.build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

PRINTED_SPEC: dict[str, Any] = {
    "model.source": REQUIRED,
    "model.revision": ABSENT,
    "model.servedName": REQUIRED,
    "model.aliases": [],
    "model.secretRef.name": REQUIRED,
    "engine.image": ABSENT,
    "engine.chatTemplate": {},
    "engine.toolCallParser": ABSENT,
    "engine.reasoningParser": ABSENT,
    "engine.dtype": "auto",
    "engine.maxModelLen": ABSENT,
    "engine.maxNumSeqs": ABSENT,
    "engine.quantization": "none",
    "engine.kvCache.gpuMemoryUtilization": ABSENT,
    "engine.kvCache.dtype": "auto",
    "engine.kvCache.prefixCaching": ABSENT,
    "engine.kvCache.offloadGiB": 0,
    "engine.kvCache.blockSize": ABSENT,
    "engine.chunkedPrefill": ABSENT,
    "engine.schedulingPolicy": "fcfs",
    "engine.speculativeDecoding": ABSENT,
    "engine.speculativeDecoding.method": REQUIRED,
    "engine.speculativeDecoding.numSpeculativeTokens": 4,
    "engine.speculativeDecoding.draftModel": {},
    "engine.parallelism.tensor": 1,
    "engine.parallelism.pipeline": 1,
    "engine.parallelism.data": 1,
    "engine.lora.maxRank": 16,
    "engine.lora.adapters": [],
    "engine.extraArgs": [],
    "accelerator": {"resource": "nvidia.com/gpu", "count": 1},
    "accelerator.type": ABSENT,
    "accelerator.resource": ABSENT,  # through the default of accelerator
    "accelerator.count": ABSENT,
    "replicas": ABSENT,  # 1, but a schema default would stand against autoscaling
    "autoscaling": ABSENT,
    "autoscaling.minReplicas": 1,
    "autoscaling.maxReplicas": REQUIRED,
    "autoscaling.metrics": REQUIRED,
    "autoscaling.metrics[].type": REQUIRED,
    "autoscaling.metrics[].target.averageValue": ABSENT,
    "autoscaling.metrics[].target.p95Milliseconds": ABSENT,
    "autoscaling.behavior": {},
    "autoscaling.forecast.enabled": True,
    "autoscaling.fallback.replicas": REQUIRED,
    "rollout.strategy": "Canary",
    "rollout.steps": ABSENT,  # DEFAULT_STEPS, but only with Canary
    "rollout.steps[].setWeight": ABSENT,
    "rollout.steps[].pause.duration": ABSENT,
    "rollout.steps[].analysis": ABSENT,
    "rollout.maxSurge": "25%",
    "rollout.scaleDownDelay": "5m",
    "rollout.progressDeadline": "30m",
    "rollout.revisionHistoryLimit": 5,
    "rollout.analysis.metrics": [{"name": "ErrorRate"}],
    "rollout.analysis.metrics[].name": REQUIRED,
    "rollout.analysis.metrics[].minEffect": ABSENT,
    "rollout.analysis.alpha": 0.01,
    "rollout.analysis.minSamples": 200,
    "rollout.analysis.maxDuration": "30m",
    "rollout.analysis.firstTokenTimeout": "60s",
    "rollout.analysis.onInconclusive": "Hold",
    "rollout.stickiness": "None",
    "drift.action": "Rollback",
    "drift.window": "24h",
    "drift.control": "Probe",
    "router.replicas": 2,
    "router.policy": "PrefixHash",
    "router.prefixBytes": 4096,
    "router.bodyLimit": "8Mi",
    "router.drainTimeout": "600s",
    "scaleToZero.after": "10m",
    "scaleToZero.holdRequests": 100,
    "scaleToZero.holdTimeout": "5m",
    "drain.timeout": "300s",
    "podTemplate": {},
    **{
        f"podTemplate.{name}": ABSENT
        for name in (
            "metadata",
            "nodeSelector",
            "tolerations",
            "affinity",
            "priorityClassName",
            "volumes",
            "mounts",
            "env",
            "resources",
            "runtimeClassName",
        )
    },
}
"""Every spec field that section 4 of the design prints, with its default in the CRD."""

PRINTED_STATUS = (
    "observedGeneration",
    "schema",
    "phase",
    "message",
    "url",
    "ready",
    "canaryWeight",
    "servedRevision",
    "specRevision",
    "traffic[].revision",
    "traffic[].weight",
    "trafficGeneration",
    "rollout.id",
    "rollout.revision",
    "rollout.step",
    "rollout.stepStartedAt",
    "rollout.plan",
    "rollout.metricResults[].name",
    "rollout.metricResults[].verdict",
    "rollout.metricResults[].stable",
    "rollout.metricResults[].canary",
    "rollout.metricResults[].n",
    "rollout.metricResults[].effect",
    "rollout.metricResults[].lower",
    "rollout.metricResults[].upper",
    "rollout.metricResults[].minEffect",
    "revisions[].hash",
    "revisions[].image",
    "revisions[].promotedAt",
    "rejectedRevisions[].hash",
    "rejectedRevisions[].reason",
    "rejectedRevisions[].at",
    "rejectedRevisions[].evidence",
    "handledActs",
    "autoscaling.desired",
    "autoscaling.lastScaleTime",
    "autoscaling.decisions",
    "conditions[].type",
    "conditions[].status",
    "conditions[].reason",
    "conditions[].message",
    "conditions[].observedGeneration",
    "conditions[].lastTransitionTime",
    "replicas",
    "selector",
)


def find(section: str, path: str) -> tuple[JSON, JSON]:
    """Return the schema at a path and the schema of its parent; KeyError when there is none."""
    parent: JSON = ROOT
    node: JSON = ROOT["properties"][section]
    for key in path.split("."):
        name, is_list, _ = key.partition("[]")
        parent, node = node, node["properties"][name]
        if is_list:
            node = node["items"]
    return node, parent


@pytest.mark.parametrize("path", PRINTED_SPEC)
def test_spec_field_when_printed_in_the_design_then_in_the_crd_with_its_default(path: str) -> None:
    node, parent = find("spec", path)
    expected = PRINTED_SPEC[path]
    name = path.rpartition(".")[2]
    assert (name in parent.get("required", [])) == (expected is REQUIRED)
    if expected in (ABSENT, REQUIRED):
        assert "default" not in node
    else:
        assert node["default"] == expected


@pytest.mark.parametrize("path", PRINTED_STATUS)
def test_status_field_when_printed_in_the_design_then_in_the_crd(path: str) -> None:
    node, _ = find("status", path)
    assert node.get("default") == (-1 if path == "observedGeneration" else None)


def walk(node: JSON, path: str = "") -> Iterator[tuple[str, JSON]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walk(node["additionalProperties"], f"{path}{{}}")


NODES = dict(walk(ROOT))


def test_schema_then_every_list_map_and_string_is_bounded() -> None:
    for path, node in NODES.items():
        if path in (".apiVersion", ".kind"):
            continue
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert node["maxItems"] <= (128 if path.startswith(".status") else 64), path
            assert "x-kubernetes-list-type" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_schema_then_every_field_is_described_and_structural() -> None:
    for path, node in NODES.items():
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const"} & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        if path.startswith((".spec", ".status")) and not path.endswith(("[]", "{}")):
            assert node.get("description"), path


def test_schema_then_every_rule_has_a_sentence() -> None:
    found = [rule for node in NODES.values() for rule in node.get("x-kubernetes-validations", [])]
    assert len(found) > 60
    assert all(rule["message"] for rule in found)


def test_committed_crd_then_equal_to_the_models() -> None:
    path = REPOSITORY / crd.DEFAULT_PATH
    assert path.read_text() == crd.render_crd(), "run `make generate`"


def test_committed_reference_then_equal_to_the_models() -> None:
    text = (REPOSITORY / reference.DEFAULT_PATH).read_text()
    assert text == reference.refresh(text), "run `make generate`"


def test_check_when_file_differs_then_fails_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text("old")
    assert crd.main(["--check", str(path)]) == 1
    assert path.read_text() == "old"
    assert "make generate" in capsys.readouterr().err
    assert crd.main([str(path)]) == 0
    assert crd.main(["--check", str(path)]) == 0


def test_render_when_a_key_is_a_boolean_in_kubernetes_yaml_then_it_is_quoted() -> None:
    assert re.search(r"^\s+[\"']n[\"']:$", crd.render_crd(), re.MULTILINE)
    assert not re.search(r"^\s+[yYnN]:", crd.render_crd(), re.MULTILINE)
