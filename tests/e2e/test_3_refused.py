"""What is refused: a spec at apply, a token by the hub, pods by the API server; with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hack.kube import chart
from hack.kube.kubectl import KubectlError, apply, delete

from tests.e2e import hub
from tests.e2e.fleet import Fleet

IN_FLIGHT = {"type": "InFlightRequests", "target": {"averageValue": 24}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "draft without a draft model": (
        {"engine": {"speculativeDecoding": {"method": "draft"}}},
        "draftModel.source is required",
    ),
    "parallelism does not divide GPUs": (
        {"engine": {"parallelism": {"tensor": 2}}, "accelerator": {"count": 3}},
        "must divide spec.accelerator.count",
    ),
    "replicas with autoscaling": (
        {"replicas": 2, "autoscaling": {"maxReplicas": 2, "metrics": [IN_FLIGHT]}},
        "spec.replicas",
    ),
    "extraArgs repeat a typed field": (
        {"engine": {"extraArgs": ["--max-model-len=99"]}},
        "maxModelLen",
    ),
    "unknown field": ({"engine": {"maxModelLenght": 1024}}, "maxModelLenght"),
    "hf without a commit": ({"model": {"source": "hf://a/b", "servedName": "x"}}, "revision"),
}


@pytest.mark.parametrize(("spec", "named"), REFUSED.values(), ids=REFUSED)
def test_apply_when_the_spec_cannot_work_then_it_is_refused_naming_the_field(
    namespace: str, spec: dict[str, Any], named: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        Fleet("refused", namespace).apply(**spec)

    assert named in str(refusal.value)


def test_download_when_the_hub_refuses_the_token_then_unauthorized_and_degraded(
    namespace: str, other: Callable[[str], Fleet], images: chart.Images
) -> None:
    endpoint = hub.start(namespace, images.operator)
    try:
        apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "wrong-token", "namespace": namespace},
                "stringData": {"token": "wrong"},
            }
        )
        private = other("private")
        private.apply(
            model={
                "servedName": "private",
                "source": "hf://org/private",
                "revision": "0e9e39f",
                "secretRef": {"name": "wrong-token"},
            },
            podTemplate={"env": [{"name": "HF_ENDPOINT", "value": endpoint}]},
        )
        said = private.wait_for_condition(
            "Progressing", "False", "Unauthorized", timeout_seconds=120
        )
        assert "hf://org/private" in said["message"]
        assert private.status()["phase"] == "Degraded"
    finally:
        hub.stop(namespace)


def test_apply_when_the_api_server_does_not_admit_its_pods_then_its_sentence_is_told(
    namespace: str, other: Callable[[str], Fleet]
) -> None:
    limited, largest = other("limited"), {"max": {"memory": "16Mi"}, "type": "Container"}
    limit = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "too-small", "namespace": namespace},
        "spec": {"limits": [largest]},
    }
    apply(limit)
    try:
        limited.apply(model={"servedName": "tiny-llama", "source": "pvc://models/tiny-llama"})
        said = limited.wait_for_condition(
            "CapacityAvailable", "False", "AdmissionRefused", timeout_seconds=60
        )
        assert "maximum memory usage per Container is 16Mi" in said["message"]
    finally:
        delete("limitrange", "too-small", namespace)
