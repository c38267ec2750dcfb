"""LLMDeployments whose engine is the stub of tests/zerolost: releases that start in seconds.

Supervisor, token check, drain and router are the real ones; only vLLM is not (its own rollouts are
tested with the shared fleet). A release is another value of an environment variable, which makes
another revision; ``fault`` makes it a bad one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hack.kube.kubectl import kubectl, wait_for

from tests.e2e.fleet import Fleet, manifest
from tests.zerolost.rig import ENGINES

JSON = dict[str, Any]


class StubFleet(Fleet):
    """One LLMDeployment with stub engines and one router."""

    def __init__(self, name: str, namespace: str, image: str) -> None:
        super().__init__(name, namespace)
        self._image = image

    def start(self, rollout: JSON, *, replicas: int = 2, router: JSON | None = None) -> str:
        """Applies the first release and waits for it; its revision."""
        spec = manifest(self.name, self.namespace)["spec"]
        self.apply(
            replicas=replicas,
            engine={**spec["engine"], "image": self._image},
            rollout=rollout,
            podTemplate=pod_template("1"),
            **({"router": router} if router else {}),
        )
        return str(self.wait_until_healthy()["servedRevision"])

    def release(self, version: str, *, fault: str = "", memory: str = "512Mi") -> str:
        """Asks for another release; its revision, once the operator has seen it."""
        self.patch({"podTemplate": pod_template(version, fault=fault, memory=memory)})
        status = wait_for(
            "the new spec to be seen",
            lambda: self.status() or None,
            timeout_seconds=30,
            describe=self.describe,
        )
        return str(status["specRevision"])

    def weights(self) -> Mapping[str, int]:
        """The commanded split."""
        return {one["revision"]: one["weight"] for one in self.status().get("traffic", [])}

    def act(self, act: str, value: str) -> None:
        """`kubectl annotate`."""
        kubectl(
            "annotate", "llmdep", self.name, "-n", self.namespace, "--overwrite",
            f"llmfleet.dev/{act}={value}",
        )  # fmt: skip

    def wait_for_phase(self, phase: str, *, timeout_seconds: float = 120) -> JSON:
        """Waits until the present generation has this phase; the status."""
        return wait_for(
            f"phase {phase}",
            lambda: status if (status := self.status()).get("phase") == phase else None,
            timeout_seconds=timeout_seconds,
            describe=self.describe,
        )

    def pods_made(self, revision: str) -> set[str]:
        """Names of all engine pods there ever were of a revision, as ReplicaSets count them."""
        made = "-o=jsonpath={range .items[*]}{.message}{'\\n'}{end}"
        listed = kubectl(
            "get", "events", "-n", self.namespace, "--field-selector=reason=SuccessfulCreate", made
        )  # fmt: skip
        pods = {line.rpartition(" ")[2] for line in listed.splitlines()}
        return {pod for pod in pods if pod.startswith(f"{self.name}-rev-{revision}-")}

    def rejected(self) -> dict[str, JSON]:
        """Rejected revisions by hash."""
        return {one["hash"]: one for one in self.status().get("rejectedRevisions", [])}


def pod_template(version: str, *, fault: str = "", memory: str = "512Mi") -> JSON:
    """Small pods; the cache's size would else be a sum over the limit, which has no room for it."""
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "RELEASE": version, "STUB_FAULT": fault}
    resources = json.loads(json.dumps(ENGINES["stub"].resources))
    resources["limits"]["memory"] = memory
    env = [{"name": name, "value": value} for name, value in environment.items() if value]
    return {"resources": resources, "env": env}
