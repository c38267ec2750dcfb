"""What must be true of a settled LLMDeployment, worked out apart from the operator's code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llmfleet.api.canonical import BUILT_METRICS, UNBUILT_FIELDS
from tests.faults.player import Room

JSON = dict[str, Any]
Path = tuple[str, ...]

PROMOTE = "llmfleet.dev/promote"
BY_WALKER = "@walker-"
"""In the values of the walker's own acts, which a person would have to carry out as well."""
SETTLED = {"Healthy", "Degraded"}
_FRESH = (
    (re.compile(r'(\\"number\\": ?)\d+'), r"\1N"),
    (re.compile(r"revision \d+ of"), "revision N of"),
)
"""Numbers that only have to rise."""


def fresh(state: JSON) -> JSON:
    """A namespace's state (``Run.state``) without what depends on how it came about.

    Numbers of revisions and rollouts only rise; which rollout was the last, and what the walker
    promoted by hand, is history.
    """
    text = json.dumps(state, sort_keys=True)
    for pattern, instead in _FRESH:
        text = pattern.sub(instead, text)
    found: JSON = json.loads(text)
    for revision in found.get("controllerrevisions", {}).values():
        revision.pop("revision", None)
    for memory in found.get("configmaps", {}).values():
        data = memory.get("data") or {}
        for name in {"handledActs", "pastActs"} & set(data):
            data[name] = _acts_of_others(json.loads(data[name]))
    for resource in found.get("llmdeployments", {}).values():
        resource["status"].pop("rollout", None)
        for condition in resource["status"].get("conditions", []):
            condition.pop("observedGeneration", None)
        resource["status"].pop("observedGeneration", None)
        acts = _acts_of_others(resource["status"].pop("handledActs", {}))
        if acts:
            resource["status"]["handledActs"] = acts
        resource["metadata"].pop("generation", None)
        annotations = resource["metadata"].pop("annotations", {})
        annotations.pop(PROMOTE, None)
        if annotations:
            resource["metadata"]["annotations"] = annotations
    return found


def _acts_of_others(acts: Any) -> Any:
    """Acts, by kind or as a list, without the walker's promotions."""
    if isinstance(acts, dict):
        return {act: value for act, value in acts.items() if BY_WALKER not in value}
    return [act for act in acts if BY_WALKER not in act]


def problems(resource: JSON, room: Room, root: JSON) -> Iterator[str]:
    """What the conditions of a settled resource say that is not so."""
    status = resource["status"]
    generation = resource["metadata"]["generation"]
    conditions = {one["type"]: one for one in status["conditions"]}
    for one in conditions.values():
        if one["observedGeneration"] != generation:
            yield f"{one['type']} is of generation {one['observedGeneration']}, not {generation}"
        if not one["message"].strip():
            yield f"{one['type']} has no message"
    yield from _acceptance(resource["spec"], conditions["Accepted"], root)
    ready = conditions["Ready"]["status"]
    phase = {"True": "Healthy", "Unknown": "Progressing", "False": "Degraded"}[ready]
    if status["phase"] != phase:
        yield f"Ready is {ready}, but the phase is {status['phase']}"
    if ("Reconciling" in conditions) != (ready == "Unknown"):
        yield "Reconciling does not go with Ready"
    if ("Stalled" in conditions) != (ready == "False"):
        yield "Stalled does not go with Ready"
    yield from _pods(resource, room, conditions, ready)


def _acceptance(spec: JSON, accepted: JSON, root: JSON) -> Iterator[str]:
    if accepted["reason"] in {"UnknownField", "InvalidSpec"}:
        yield f"Accepted says {accepted['reason']}: {accepted['message']}"
        return
    unbuilt = {path for path in UNBUILT_FIELDS if _is_set(spec, root, tuple(path.split(".")))}
    if accepted["reason"] == "SourceNotAllowed":
        return
    if (accepted["reason"] == "NotYetBuilt") != bool(unbuilt):
        yield f"Accepted says {accepted['reason']}, unbuilt fields set: {sorted(unbuilt)}"
    for path in unbuilt:
        if path not in accepted["message"]:
            yield f"Accepted does not name {path}"


def _is_set(value: Any, schema: JSON, path: Path) -> bool:
    """Whether something in a spec differs from the default that the schema gives it."""
    full = ".".join(path)
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return False
        value, schema = value[step], schema["properties"][step]
    if full == "rollout.analysis.metrics":
        return any(one.get("name") not in BUILT_METRICS for one in value or [])
    return _without_defaults(value, schema) not in (schema.get("default"), {}, [])


def _without_defaults(value: Any, schema: JSON) -> Any:
    if isinstance(value, list):
        return [_without_defaults(one, schema.get("items", {})) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, one in value.items():
        inner = schema.get("properties", {}).get(key, {})
        one = _without_defaults(one, inner)  # noqa: PLW2901 - the same value, cleaned
        if one != inner.get("default") and one != {}:
            kept[key] = one
    return kept


def _pods(resource: JSON, room: Room, conditions: JSON, ready: str) -> Iterator[str]:
    """Ready and Available agree with the pods."""
    status = resource["status"]
    by_revision: dict[str, int] = {}
    routers = 0
    for pod in room.objects["pods"].values():
        if not _pod_is_ready(pod):
            continue
        labels = pod["metadata"]["labels"]
        if labels["llmfleet.dev/component"] == "router":
            routers += 1
        else:
            revision = labels["llmfleet.dev/revision"]
            by_revision[revision] = by_revision.get(revision, 0) + 1
    shares = [one["revision"] for one in status.get("traffic", []) if one["weight"]]
    reachable = routers > 0 and any(by_revision.get(one) for one in shares)
    if (conditions["Available"]["status"] == "True") != reachable:
        yield f"Available is {conditions['Available']['status']}, ready pods: {by_revision}"
    wanted = resource["spec"].get("replicas")
    if wanted is None:
        scaling = resource["spec"].get("autoscaling")
        wanted = max(1, scaling["minReplicas"]) if scaling else 1
    served = by_revision.get(status.get("servedRevision", ""), 0)
    if ready == "True" and served != wanted:
        yield f"Ready, but {served} of {wanted} pods of the served revision are ready"
    if ready == "True" and status["servedRevision"] != status["specRevision"]:
        yield "Ready, but spec's revision is not served"


def _pod_is_ready(pod: JSON) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
