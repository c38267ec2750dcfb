"""The fleet under load: an LLMDeployment with stub engine or vLLM, two routers, a prober."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.cluster.images import Images
from hack.cluster.imagespec import ImageSpec
from hack.cluster.local import LocalCluster
from hack.kube import chart, models
from hack.kube.kubectl import wait_for

from tests.e2e.fleet import Fleet, manifest
from tests.e2e.prober import Prober
from tests.zerolost.scenarios import is_ready

JSON = dict[str, Any]
NAME = "chat"
SCRIPT = Path(__file__).parent / "load.py"
ROUTERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How a fleet of one kind is made and loaded."""

    replicas: int
    requests: int
    """Fewest requests of a scenario."""
    rate: float
    """Requests per second."""
    tokens: int
    long_tokens: int
    """Length of one answer in a hundred."""
    resources: JSON


ENGINES = {
    "stub": Engine(
        replicas=3, requests=20_000, rate=150, tokens=8, long_tokens=200,
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    ),
    "vllm": Engine(
        replicas=2, requests=2_000, rate=8, tokens=4, long_tokens=48,
        resources={"requests": {"cpu": "250m", "memory": "3Gi"}, "limits": {"memory": "5Gi"}},
    ),
}  # fmt: skip
"""Rates are what two cores carry with all of the cluster on them."""


def namespace(kind: str) -> str:
    """One for each kind of engine, so that both can run at the same time."""
    return f"zerolost-{kind}"


def stub_image(cluster: LocalCluster) -> str:
    """Builds and loads the stub engine's image; its reference by digest."""
    images = Images(cluster)
    return images.add(
        ImageSpec(
            name="stub-engine",
            dockerfile="tests/zerolost/stub/Dockerfile",
            inputs=("tests/zerolost/stub/vllm",),
            arguments=(("RUNTIME_IMAGE", images.identifier("runtime")),),
        )
    )


def start_fleet(fleet: Fleet, kind: str, cluster: LocalCluster, images: chart.Images) -> None:
    """Operator from the chart, models, and this fleet Healthy with two routers."""
    chart.install(images)
    models.ensure(fleet.namespace, images.runtime)
    engine = ENGINES[kind]
    spec = manifest(fleet.name, fleet.namespace)["spec"]
    changes: JSON = {
        "replicas": engine.replicas,
        "router": {**spec["router"], "replicas": ROUTERS},
        "podTemplate": {"resources": engine.resources},
    }
    if kind == "stub":
        # The cache's size is a sum over the memory limit, which has no room for one here.
        environment = [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}]
        changes["engine"] = {**spec["engine"], "image": stub_image(cluster)}
        changes["podTemplate"] = {**changes["podTemplate"], "env": environment}
    fleet.apply(**changes)
    fleet.wait_until_healthy(timeout_seconds=300)
    fleet.wait_for_engines(engine.replicas, timeout_seconds=300)
    wait_for(
        f"{ROUTERS} ready routers",
        lambda: sum(map(is_ready, fleet.pods("router"))) == ROUTERS,
        timeout_seconds=120,
        describe=fleet.describe,
    )


def prober(kind: str, fleet: Fleet, images: chart.Images, *, long: bool = False) -> Prober:
    """Not started yet; with ``long`` every answer is as long as else one in a hundred."""
    engine = ENGINES[kind]
    tokens = engine.long_tokens if long else engine.tokens
    environment = {"TOKENS": str(tokens), "LONG_TOKENS": str(engine.long_tokens)}
    return Prober(
        fleet.namespace, fleet.name, fleet.model, images.router,
        script=SCRIPT, environment=environment,
    )  # fmt: skip
