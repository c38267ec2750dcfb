"""A case on the way it takes in a cluster: planner → environment → agent → Envoy's files."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hack import native

from llmfleet.api import parse
from llmfleet.planning.children.router import build_router
from llmfleet.planning.snapshot import OperatorSettings
from llmfleet_router import resources, routes
from llmfleet_router.bootstrap import build_bootstrap
from llmfleet_router.kube import ready_endpoints
from llmfleet_router.model import Desired, parse_command
from llmfleet_router.routing import UnreadableTrafficError
from llmfleet_router.settings import Settings, read_settings
from llmfleet_router.updates import Applied, Clusters, after, next_step
from tests.xds.cases import Case

JSON = dict[str, Any]

OPERATOR = OperatorSettings(runtime_image_gpu="g", runtime_image_cpu="c", router_image="r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Everything that the agent hands to Envoy, in one stage of an update."""

    bootstrap: JSON
    clusters: list[JSON]
    endpoints: list[JSON]
    routes: JSON
    """The table of the public port."""
    preview: JSON
    """The table of the preview port."""


def render(case: Case, xds_dir: Path) -> Rendered:
    """What Envoy has once the agent has nothing left to do for this case."""
    settings = _settings(case, xds_dir)
    command = None
    with contextlib.suppress(UnreadableTrafficError):  # the agent keeps what it serves
        command = parse_command(case.status)
    desired = Desired(command=command, endpoints=ready_endpoints(list(case.slices)))
    applied = Applied()
    while step := next_step(applied, desired, idle=Clusters()):
        applied = after(applied, step)
    return Rendered(
        bootstrap=build_bootstrap(settings, case.token),
        clusters=resources.build_clusters(applied.endpoints, applied.mirrors, settings),
        endpoints=[
            resources.build_endpoints(revision, applied.endpoints[revision])
            for revision in sorted(applied.endpoints)
        ],
        routes=routes.build_public_table(applied.routes, settings),
        preview=routes.build_preview_table(applied.routes, settings),
    )


def static_bootstrap(batch: Sequence[Rendered]) -> JSON:
    """The same as one static bootstrap: ``--mode validate`` opens no xDS file.

    Each cluster takes its endpoints inline, and each route table stands in its listener, where
    Envoy also checks that every cluster it names exists. Several renderings share one bootstrap,
    since most of the time is Envoy's start: what must differ in one process (names, the listeners'
    ports) is numbered.

    Raises:
        ValueError: renderings differ in a part that the first one alone would be judged for.
    """
    first = batch[0].bootstrap
    listeners: list[JSON] = []
    clusters: list[JSON] = []
    for number, rendered in enumerate(batch):
        if _common(rendered.bootstrap) != _common(first):
            raise ValueError("bootstraps differ outside listener, node and xDS directory")
        if not all(isinstance(value, str) for value in rendered.bootstrap["node"].values()):
            raise ValueError("a node has something else than two texts")
        prefix = f"{number}-" if len(batch) > 1 else ""
        listeners += _listeners(rendered, prefix, number)
        clusters += _clusters(rendered, prefix)
    kept = {key: value for key, value in first.items() if key != "dynamic_resources"}
    return {**kept, "static_resources": {"listeners": listeners, "clusters": clusters}}


def _common(bootstrap: JSON) -> JSON:
    """What all routers of one version have in common; the node is two strings."""
    varying = {"static_resources", "dynamic_resources", "node"}
    return {key: value for key, value in bootstrap.items() if key not in varying}


def _clusters(rendered: Rendered, prefix: str) -> list[JSON]:
    assignments = {each["cluster_name"]: each for each in rendered.endpoints}
    return [_cluster(cluster, assignments, prefix) for cluster in rendered.clusters]


def _cluster(cluster: JSON, assignments: dict[str, JSON], prefix: str) -> JSON:
    name = prefix + cluster["name"]
    resource = cluster["eds_cluster_config"].get("service_name", cluster["name"])
    return {
        **{key: value for key, value in cluster.items() if key != "eds_cluster_config"},
        "name": name,
        "type": "STATIC",
        "load_assignment": {**assignments[resource], "cluster_name": name},
    }


def _listeners(rendered: Rendered, prefix: str, number: int) -> list[JSON]:
    listeners: list[JSON] = copy.deepcopy(rendered.bootstrap["static_resources"]["listeners"])
    for listener, table in zip(listeners, (rendered.routes, rendered.preview), strict=True):
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        if manager.pop("rds")["route_config_name"] != table["name"]:
            raise ValueError("a listener asks for a table of another name")
        # Through text: the paths share one action, which a deep copy would share too.
        manager["route_config"] = {**json.loads(json.dumps(table)), "validate_clusters": True}
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            action = route.get("route", {})
            for share in action.get("weighted_clusters", {}).get("clusters", ()):
                share["name"] = prefix + share["name"]
            for mirror in action.get("request_mirror_policies", ()):
                mirror["cluster"] = prefix + mirror["cluster"]
        listener["name"] = prefix + listener["name"]
        listener["address"]["socket_address"]["port_value"] += number * len(listeners)
    return listeners


def _settings(case: Case, xds_dir: Path) -> Settings:
    raw: JSON = {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": case.name, "namespace": case.namespace, "uid": "0f1e2d3c-1"},
        "spec": {"model": {"source": "pvc://a/b", "servedName": "m"}, "router": case.router},
    }
    (router,) = (
        child.body for child in build_router(parse(raw), OPERATOR) if child.key.kind == "Deployment"
    )
    container = router["spec"]["template"]["spec"]["containers"][0]  # the environment is the same
    variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    variables["LLMFLEET_POD_NAME"] = f"{case.name}-router-5d41c0ffee-x2x4z"
    variables["LLMFLEET_ACCESS_LOG"] = case.access_log
    return replace(read_settings(variables), xds_dir=xds_dir, module_file=native.module_file())
