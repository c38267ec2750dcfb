"""Installs the chart from this checkout with the images that were loaded into the cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack.kube.kubectl import JSON, KubectlError, kubectl

CHART = Path(__file__).parent.parent.parent / "charts" / "llmfleet"
NAMESPACE = "llmfleet-system"
RELEASE = "llmfleet"
OPERATOR = "llmfleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """References of the images in the cluster, each ``repository:tag``."""

    operator: str
    router: str
    runtime: str


def values(images: Images, *, overrides: Mapping[str, object] | None = None) -> JSON:
    """Values for a cluster whose GPUs are fake: the CPU build serves as both runtimes."""

    def split(reference: str) -> JSON:
        repository, _, tag = reference.rpartition(":")
        return {"repository": repository, "tag": tag, "digest": ""}

    return {
        "images": {
            "operator": split(images.operator),
            "router": split(images.router),
            "runtimeGPU": split(images.runtime),
            "runtimeCPU": split(images.runtime),
        },
        "logging": {"level": "info", "format": "json"},
        **(overrides or {}),
    }


def install(images: Images, *, overrides: Mapping[str, object] | None = None) -> None:
    """`helm upgrade --install`, then waits until the operator's pods are ready.

    Raises:
        KubectlError: helm refused, or the operator was not ready in 180 s; with their words.
    """
    command = [
        "helm", "upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE,
        "--create-namespace", "--values", "-",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        input=yaml.safe_dump(values(images, overrides=overrides)),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    if done.returncode:
        raise KubectlError(f"helm: {done.stderr.strip()}")
    kubectl(
        "rollout", "status", f"deployment/{OPERATOR}", "-n", NAMESPACE, "--timeout=180s",
        timeout_seconds=200,
    )  # fmt: skip
