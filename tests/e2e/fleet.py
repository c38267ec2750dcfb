"""One LLMDeployment under test: what a user does to it and sees of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import yaml
from hack.demo import conversation
from hack.kube.kubectl import (
    apply,
    condition,
    delete,
    get,
    kubectl,
    list_objects,
    port_forward,
    wait_for,
)
from hack.kube.local import ROOT
from openai import OpenAI

JSON = dict[str, Any]
START_SECONDS = 180
"""Longest an engine may take to become ready; alone on two cores it takes 30 to 60 s."""


def manifest(name: str, namespace: str, **spec: Any) -> JSON:
    """The quickstart's manifest under another name; ``spec`` replaces top-level keys."""
    document: JSON = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    document["metadata"] = {"name": name, "namespace": namespace}
    document["spec"] |= spec
    return document


class Fleet:
    """Reads and changes one LLMDeployment with kubectl."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name, self.namespace = name, namespace
        self.model = manifest(name, namespace)["spec"]["model"]["servedName"]

    def apply(self, **spec: Any) -> None:
        """`kubectl apply` of the quickstart with these top-level keys of spec replaced."""
        apply(manifest(self.name, self.namespace, **spec))

    def patch(self, spec: JSON) -> None:
        """`kubectl patch --type=merge`."""
        kubectl(
            "patch", "llmdep", self.name, "-n", self.namespace, "--type=merge",
            "-p", json.dumps({"spec": spec}),
        )  # fmt: skip

    def scale(self, replicas: int) -> None:
        """`kubectl scale`."""
        kubectl("scale", "llmdep", self.name, "-n", self.namespace, f"--replicas={replicas}")

    def object(self) -> JSON:
        """The resource as stored; empty when there is none."""
        return get("llmdep", self.name, self.namespace) or {}

    def status(self) -> JSON:
        """Its status; empty until the operator has seen this generation of the spec."""
        stored = self.object()
        status: JSON = stored.get("status") or {}
        generation = stored.get("metadata", {}).get("generation")
        return status if status.get("observedGeneration") == generation else {}

    def condition(self, kind: str) -> JSON:
        """One of its conditions, empty when absent."""
        return condition({"status": self.status()}, kind)

    def describe(self) -> str:
        """Phase, message and pods in one line, for messages."""
        status = self.object().get("status") or {}
        pods = ", ".join(
            f"{pod['metadata']['name']} {'ready' if _ready(pod) else pod['status'].get('phase')}"
            for pod in self.pods("engine") + self.pods("router")
        )
        return f"{status.get('phase')}: {status.get('message')} (pods: {pods or 'none'})"

    def wait_until_healthy(self, *, timeout_seconds: float = START_SECONDS) -> JSON:
        """Waits for phase Healthy of the present generation and returns the status."""
        return wait_for(
            f"{self.name} to be Healthy",
            lambda: status if (status := self.status()).get("phase") == "Healthy" else None,
            timeout_seconds=timeout_seconds,
            describe=self.describe,
        )

    def wait_for_condition(
        self, kind: str, status: str, reason: str, *, timeout_seconds: float = 60
    ) -> JSON:
        """Waits until a condition has this status and reason, and returns it."""

        def matching() -> JSON | None:
            found = self.condition(kind)
            same = found.get("status") == status and found.get("reason") == reason
            return found if same else None

        return wait_for(
            f"{self.name} to have {kind}={status}/{reason}",
            matching,
            timeout_seconds=timeout_seconds,
            describe=lambda: f"{self.condition(kind)}; {self.describe()}",
        )

    def pods(self, component: str) -> list[JSON]:
        """Its ``engine`` or ``router`` pods that are not ending."""
        selector = f"llmfleet.dev/deployment={self.name},llmfleet.dev/component={component}"
        found = list_objects("pods", self.namespace, selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def wait_for_engines(self, count: int, *, timeout_seconds: float = START_SECONDS) -> list[JSON]:
        """Waits until exactly so many engine pods exist and all are ready."""

        def settled() -> list[JSON] | None:
            pods = self.pods("engine")
            return pods if len(pods) == count and all(_ready(pod) for pod in pods) else None

        return wait_for(
            f"{count} ready engine pods of {self.name}",
            settled,
            timeout_seconds=timeout_seconds,
            describe=self.describe,
        )

    @contextlib.contextmanager
    def address(self) -> Iterator[str]:
        """A URL on loopback that leads to its Service while the block runs."""
        with port_forward(f"svc/{self.name}", 80, self.namespace) as port:
            yield f"http://127.0.0.1:{port}"

    @contextlib.contextmanager
    def client(self) -> Iterator[OpenAI]:
        """The `openai` client, talking to its Service."""
        with self.address() as url:
            yield conversation.connect(url)

    def engine_metrics(self) -> str:
        """The metrics pages of all its engine pods, joined."""
        pages = []
        for pod in self.pods("engine"):
            with port_forward(f"pod/{pod['metadata']['name']}", 8081, self.namespace) as port:
                pages.append(conversation.metrics(port))
        return "\n".join(pages)

    def delete(self) -> None:
        """Deletes it and waits until its pods are gone."""
        delete("llmdep", self.name, self.namespace)
        selector = f"llmfleet.dev/deployment={self.name}"
        wait_for(
            f"the pods of {self.name} to be gone",
            lambda: not list_objects("pods", self.namespace, selector),
            timeout_seconds=150,
            describe=self.describe,
        )


def _ready(pod: JSON) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
