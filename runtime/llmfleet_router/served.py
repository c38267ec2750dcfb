"""Reads back what is served: from the files that Envoy reads, and nothing else.

The agent may start while Envoy has served for days, or Envoy start again under an agent that runs,
or both after their node did. The files are what Envoy has, or takes first, so they are the memory
of what was applied. An agent that starts goes on from there, and changes nothing before it has
heard what is desired now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmfleet_router import resources, routes
from llmfleet_router.bootstrap import CLUSTER_FILE, PREVIEW, PUBLIC, ROUTE_FILES
from llmfleet_router.model import (
    Command,
    Desired,
    Endpoint,
    Endpoints,
    Routes,
    build_routes,
    command_from_json,
)
from llmfleet_router.settings import Settings
from llmfleet_router.updates import Applied

JSON = dict[str, Any]
Proof = dict[str, str]
"""Stats by name, and the values they have once Envoy has applied a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the files say."""

    applied: Applied
    """Once Envoy shows the ``proof``."""
    command: Command | None
    """What the route tables carry out; None before the first."""
    proof: Proof
    files: Mapping[str, JSON]
    """Their content by name."""

    @property
    def desired(self) -> Desired:
        """The wish that asks for nothing else."""
        filled = {r: endpoints for r, endpoints in self.applied.endpoints.items() if endpoints}
        return Desired(command=self.command, endpoints=filled)


def read_served(settings: Settings) -> Served | None:
    """What the files of ``settings.xds_dir`` say; None when some are missing or damaged."""
    try:
        return _read(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def proof_of_clusters(version: str) -> Proof:
    """What shows that Envoy has taken its clusters from a file of this version."""
    return {"cluster_manager.cds.version_text": version}


def proof_of_endpoints(revision: str, mirrored: bool, version: str) -> Proof:
    """The same of a revision's endpoints, which its cluster for shadow requests reads as well."""
    names = [resources.cluster_name(revision)]
    if mirrored:
        names.append(resources.mirror_name(revision))
    return {f"cluster.{name}.version_text": version for name in names}


def proof_of_table(listener: str, version: str) -> Proof:
    """The same of a listener's route table."""
    _, name = ROUTE_FILES[listener]
    return {f"http.{listener}.rds.{name}.version_text": version}


def _read(settings: Settings) -> Served:
    files = {CLUSTER_FILE: _content(settings, CLUSTER_FILE)}
    version, clusters = _resources(files[CLUSTER_FILE])
    names = [str(cluster["name"]) for cluster in clusters]
    mirrors = frozenset(_prefixed(names, resources.mirror_name("")))
    proof = proof_of_clusters(version) | {"cluster_manager.warming_clusters": "0"}
    endpoints: dict[str, Endpoints] = {}
    for revision in _prefixed(names, resources.cluster_name("")):
        name = resources.endpoints_file(settings.xds_dir, revision).name
        files[name] = _content(settings, name)
        version, (assignment,) = _resources(files[name])
        endpoints[revision] = _endpoints(assignment)
        proof |= proof_of_endpoints(revision, revision in mirrors, version)
    tables: dict[str, JSON] = {}
    for listener, (name, _) in ROUTE_FILES.items():
        files[name] = _content(settings, name)
        version, (tables[listener],) = _resources(files[name])
        proof |= proof_of_table(listener, version)
    command, served = _routes(tables, settings)
    applied = Applied(endpoints=endpoints, mirrors=mirrors, routes=served)
    return Served(applied=applied, command=command, proof=proof, files=files)


def _content(settings: Settings, name: str) -> JSON:
    content: JSON = json.loads((settings.xds_dir / name).read_text())
    return content


def _resources(content: JSON) -> tuple[str, list[JSON]]:
    return str(content["version_info"]), content["resources"]


def _prefixed(names: Iterable[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _endpoints(assignment: JSON) -> Endpoints:
    (group,) = assignment["endpoints"]
    return tuple(sorted(_endpoint(one) for one in group["lb_endpoints"]))


def _endpoint(rendered: JSON) -> Endpoint:
    socket = rendered["endpoint"]["address"]["socket_address"]
    metadata = rendered.get("metadata", {}).get("filter_metadata", {}).get("llmfleet", {})
    return Endpoint(
        address=str(socket["address"]),
        port=int(socket["port_value"]),
        ready_since=int(metadata.get("ready_since", 0)),
    )


def _routes(tables: Mapping[str, JSON], settings: Settings) -> tuple[Command | None, Routes | None]:
    """The command of the tables, and the routes if they are just as this agent would write them.

    Another version of it may have written them otherwise, or was killed between the two files: then
    they are written anew, for the same command.
    """
    metadata = tables[PUBLIC].get("metadata")
    if metadata is None:
        return None, None
    told = metadata["filter_metadata"][routes.COMMAND_METADATA]
    command = command_from_json(told)
    served = build_routes(command, [str(revision) for revision in told["available"]])
    rendered = {
        PUBLIC: routes.build_public_table(served, settings),
        PREVIEW: routes.build_preview_table(served, settings),
    }
    # The preview's is left alone while its revision stays, with the generation that it came with.
    found = {PUBLIC: tables[PUBLIC], PREVIEW: _unbooked(tables[PREVIEW])}
    wanted = {PUBLIC: rendered[PUBLIC], PREVIEW: _unbooked(rendered[PREVIEW])}
    return command, served if all(_equal(found[one], wanted[one]) for one in found) else None


def _unbooked(table: JSON) -> JSON:
    return {key: value for key, value in table.items() if key != "typed_per_filter_config"}


def _equal(found: JSON, rendered: JSON) -> bool:
    written: JSON = json.loads(json.dumps({"@type": routes.ROUTE_TYPE, **rendered}))
    return found == written
