"""Everything that would run in a cluster: the chart's manifests and the planner's children."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from llmfleet.api import parse
from llmfleet.planning.children.naming import memory_key
from llmfleet.planning.decide import decide
from llmfleet.planning.snapshot import NetworkSettings, OperatorSettings, Snapshot

JSON = dict[str, Any]

ROOT: Final = Path(__file__).resolve().parents[2]
DIGEST: Final = "sha256:" + "0" * 64
NAMESPACE: Final = "team-a"

SETTINGS: Final = OperatorSettings(
    runtime_image_gpu=f"llmfleet/runtime-gpu@{DIGEST}",
    runtime_image_cpu=f"llmfleet/runtime-cpu@{DIGEST}",
    router_image=f"llmfleet/router@{DIGEST}",
    allow_file_sources=True,
    network=NetworkSettings(
        operator_namespace="llmfleet-system",
        operator_pod_labels=(("app.kubernetes.io/name", "llmfleet"),),
        prometheus_namespace_labels=(("kubernetes.io/metadata.name", "monitoring"),),
        prometheus_pod_labels=(("app.kubernetes.io/name", "prometheus"),),
    ),
)

_MODEL: Final = {"source": "pvc://models/tiny", "servedName": "tiny"}
_SIZED: Final = {"requests": {"cpu": 2, "memory": "8Gi"}, "limits": {"memory": "16Gi"}}

SPECS: Final[Mapping[str, JSON]] = {
    "smallest": {},
    "cpu": {"accelerator": {"type": "cpu"}, "podTemplate": {"resources": _SIZED}},
    "hub": {
        "model": {
            "source": "hf://org/name",
            "revision": "0123456789abcdef",
            "servedName": "big",
            "secretRef": {"name": "hub"},
        }
    },
    "file": {"model": {"source": "file:///data/model", "servedName": "local"}},
    "drafted": {
        "engine": {
            "chatTemplate": {"configMapRef": {"name": "prompts", "key": "chat.jinja"}},
            "speculativeDecoding": {
                "method": "draft",
                "draftModel": {"source": "pvc://drafts/small"},
            },
            "parallelism": {"tensor": 2},
            "image": f"team/runtime@{DIGEST}",
        },
        "accelerator": {"resource": "amd.com/gpu", "count": 2},
    },
    "adapters": {
        "engine": {"lora": {"adapters": [{"name": "law", "source": "pvc://adapters/law"}]}}
    },
    "placed": {
        "router": {
            "replicas": 3,
            "policy": "LeastRequest",
            "drainTimeout": "30s",
            "podTemplate": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
                "nodeSelector": {"pool": "edge"},
                "tolerations": [{"key": "edge", "operator": "Exists"}],
                "priorityClassName": "high",
                "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
            },
        },
        "podTemplate": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "resources": _SIZED,
        },
    },
    "volumes": {
        "podTemplate": {
            "volumes": [
                {"name": "a", "configMap": {"name": "words"}},
                {"name": "b", "secret": {"secretName": "keys", "optional": True}},
                {"name": "c", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "scratch"}},
            ],
            "mounts": [{"name": name, "mountPath": f"/data/{name}"} for name in "abcd"],
            "env": [
                {"name": "PLAIN", "value": "1"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
                {"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "w"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
        }
    },
}
"""Specs that together use every part of the resource that reaches a pod."""


def resources() -> Iterator[tuple[str, JSON]]:
    """LLMDeployments by name: ``SPECS``, and every one under examples/."""
    for name, spec in SPECS.items():
        yield name, _resource({"model": _MODEL, "replicas": 1, **copy.deepcopy(spec)})
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            if body and body["kind"] == "LLMDeployment":
                yield path.stem, _resource(body["spec"])


def children(raw: JSON, settings: OperatorSettings = SETTINGS) -> tuple[JSON, ...]:
    """Bodies of all objects that a first reconcile of ``raw`` makes, its revision included."""
    snapshot = Snapshot(
        settings=settings, deployment=parse(raw), raw=raw, objects={}, pods=(), routers={}
    )
    plan = decide(snapshot, datetime(2026, 3, 1, tzinfo=UTC))
    found = tuple(child.body for child in plan.children)
    kinds = [body["kind"] for body in found]
    if kinds.count("Deployment") < 2:
        raise ValueError(f"{raw['metadata']['name']}: no engine was planned: {plan.summary}")
    return found


def chart(helm: str, *flags: str) -> list[JSON]:
    """The chart's manifests with all images by digest.

    Raises:
        RuntimeError: helm refused; with its words.
    """
    images = [
        word
        for image in ("operator", "router", "runtimeGPU", "runtimeCPU")
        for word in ("--set", f"images.{image}.digest={DIGEST}")
    ]
    command = [helm, "template", "llmfleet", str(ROOT / "charts" / "llmfleet")]
    command += ["--namespace", "llmfleet-system", "--kube-version", "1.35.4", *images, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"helm template: {done.stderr.strip()}")
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def is_memory(body: JSON) -> bool:
    """Whether it is the ownerless memory ConfigMap."""
    owner = (body["metadata"].get("labels") or {}).get("llmfleet.dev/deployment", "")
    return body["kind"] == "ConfigMap" and bool(body["metadata"]["name"] == memory_key(owner).name)


def _resource(spec: JSON) -> JSON:
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {
            "name": "chat",
            "namespace": NAMESPACE,
            "uid": "0f1e2d3c-0000-4000-8000-000000000001",
            "generation": 1,
            "resourceVersion": "1",
        },
        "spec": spec,
    }
