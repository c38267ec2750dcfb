"""What tests of decisions are made of: a resource, its hash, a pod, request counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from llmfleet.planning.revisions.revision import revision_hash, spec_payload
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import (
    JSON,
    ObservedPod,
    OperatorSettings,
    RequestCounts,
    RouterState,
)

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UID = "0f1e2d3c-0000-4000-8000-000000000001"
SETTINGS = OperatorSettings(
    runtime_image_gpu="runtime:gpu", runtime_image_cpu="runtime:cpu", router_image="router:1"
)


def resource(**spec: Any) -> JSON:
    """A stored LLMDeployment."""
    base: JSON = {
        "model": {"source": "pvc://models/one", "servedName": "tiny"},
        "accelerator": {"resource": "nvidia.com/gpu", "count": 1},
        "replicas": 2,
        "rollout": {"strategy": "RollingUpdate", "scaleDownDelay": "10s", "maxSurge": 1},
    }
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {
            "name": "chat",
            "namespace": "team-a",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
        },
        "spec": {**base, **spec},
    }


def counted(total: int, failed: int = 0, *, intervals: int = 10) -> RequestCounts:
    """Requests, and failures among them, spread over intervals."""

    def part(whole: int, number: int) -> int:
        return whole * (number + 1) // intervals - whole * number // intervals

    looks = tuple((part(total, i), part(failed, i)) for i in range(intervals))
    return RequestCounts(total=total, failed=failed, looks=looks)


def silence(since: datetime | None = None) -> Signal[RouterState]:
    """What is known of a router that does not answer."""
    return Signal(problem="it does not answer", since=since)


def hash_of(raw: JSON) -> str:
    """The revision hash that a stored resource asks for."""
    return revision_hash(spec_payload(raw))


def engine_pod(name: str = "chat-rev-x-1", **facts: Any) -> ObservedPod:
    """A starting engine pod; ``facts`` replace its fields."""
    pod = ObservedPod(
        name=name, uid=name, component="engine", revision="x", phase="Pending", ready=False,
        deleting=False, created_at=START, pod_ip=None, unschedulable=None,
        unschedulable_since=None, waiting_reason=None, waiting_message=None, restarts=0,
        last_termination=None, running_since=None,
    )  # fmt: skip
    return replace(pod, **facts)
