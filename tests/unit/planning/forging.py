"""Memories and revisions as somebody else may write them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from hack.security.rendered import children, resources

from llmfleet.planning.children.naming import controller_revision_key, memory_key
from llmfleet.planning.snapshot import JSON, ObservedObject
from tests.unit.planning.fleet import UID, Fleet

HERE = Path(__file__).parent
MEMORY = memory_key("chat")
OPEN = {"labels", "annotations", "nodeSelector", "matchLabels", "requests", "limits"}
"""Objects of a pod template whose keys are names that the author chose."""


def released() -> dict[str, JSON]:
    """ControllerRevisions of every released version, and of today's for all of podTemplate."""
    found: dict[str, JSON] = {}
    for path in sorted((HERE / "released").glob("*.yaml")):
        found[path.stem] = yaml.safe_load(path.read_text())
    for path in sorted((HERE / "golden").glob("*.yaml")):
        found[f"today: {path.stem}"] = _revision_in(yaml.safe_load_all(path.read_text()))
    for name, raw in resources():
        found[f"today: {name}"] = _revision_in(iter(children(raw)))
    return found


def _revision_in(bodies: Iterator[Any]) -> JSON:
    body = next(each for each in bodies if each["kind"] == "ControllerRevision")
    return {
        "name": body["metadata"]["name"],
        "revision": body["revision"],
        "data": body["data"],
    }


def controller_revision(stored: JSON, **metadata: Any) -> ObservedObject:
    """A ControllerRevision with this content that names us as its controller."""
    revision = stored["name"].removeprefix("chat-rev-")
    labels = {"llmfleet.dev/deployment": "chat"}
    return ObservedObject(
        key=controller_revision_key("chat", revision), uid="forged", resource_version="1",
        owner_uid=UID, deleting=False,
        body={
            "metadata": {"name": stored["name"], "labels": labels, **metadata},
            "data": stored["data"], "revision": stored["revision"],
        },
    )  # fmt: skip


def memory_object(data: Any) -> ObservedObject:
    """A ConfigMap in the memory's place, with its label."""
    labels = {"llmfleet.dev/deployment": "chat"}
    return ObservedObject(
        key=MEMORY, uid="forged", resource_version="1", owner_uid=None, deleting=False,
        body={"metadata": {"name": MEMORY.name, "labels": labels}, "data": data},
    )  # fmt: skip


def put_memory(world: Fleet, data: Any) -> None:
    """The memory as somebody made it before the operator did."""
    world.objects[MEMORY] = memory_object(data)


def edit_memory(world: Fleet, **data: str | None) -> None:
    """The memory with other values of some keys; None takes one away."""
    found = world.objects[MEMORY]
    merged = {**found.body["data"], **data}
    body = {**found.body, "data": {key: each for key, each in merged.items() if each is not None}}
    world.objects[MEMORY] = replace(found, body=body, resource_version=f"{world.counter}e")


def remembered(world: Fleet) -> JSON:
    """What the memory holds, decoded."""
    data = world.objects[MEMORY].body["data"]
    return {key: json.loads(text) for key, text in data.items()}


def forged_template(template: JSON) -> JSON:
    """The same pod with the node's processes in sight and another identity."""
    forged = copy.deepcopy(template)
    forged["spec"] |= {"hostPID": True, "serviceAccountName": "cluster-admin"}
    forged["spec"]["containers"][0]["securityContext"]["privileged"] = True
    return forged


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all objects in a value whose keys are Kubernetes' own."""
    if isinstance(value, dict):
        if not (path and path[-1] in OPEN):
            yield path
            for key, each in value.items():
                yield from places(each, (*path, key))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from places(each, (*path, at))


def changed(value: Any, path: tuple[str | int, ...], key: str, new: Any) -> Any:
    """A copy with another value of a key of the object at a path; ``...`` takes it away."""
    made = copy.deepcopy(value)
    found: Any = made
    for step in path:
        found = found[step]
    if new is ...:
        del found[key]
    else:
        found[key] = new
    return made
