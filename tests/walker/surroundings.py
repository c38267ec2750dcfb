"""What a leaf needs beside it: the base that is walked from, union branches, examples.

Keys are dotted paths under ``spec``. A new field needs an entry only if its schema does not say
enough to make a valid value of it, and the walk fails until it has one.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.walker.leaves import ENTRY, ITEM, Leaf, dotted, schema_at

JSON = dict[str, Any]

BASE: JSON = {
    "model": {"source": "pvc://models/one", "servedName": "tiny"},
    "accelerator": {"type": "cpu"},
    "replicas": 1,
    # Nothing old is kept, so that what is there after a revert can equal what was there before.
    "rollout": {
        "strategy": "RollingUpdate",
        "maxSurge": 1,
        "scaleDownDelay": "0s",
        "revisionHistoryLimit": 0,
    },
    "router": {"replicas": 1},
}
"""A spec that rolls at once."""

REMOVE = None
"""As a value in a surrounding: the key must be absent."""

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_HUB = {"source": "hf://org/model", "revision": _COMMIT}
_GPU = {"accelerator": REMOVE}
_AUTOSCALING = {
    "replicas": REMOVE,
    "autoscaling": {
        "maxReplicas": 3,
        "metrics": [{"type": "InFlightRequests", "target": {"averageValue": 8}}],
    },
}
_VOLUME = {"name": "data"}
_TOLERATION = {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute"}


def _header_step(header: JSON) -> JSON:
    step = {"setHeaderRoute": {"headers": [header]}}
    return {"rollout": {"strategy": "Canary", "steps": [step]}}


SURROUNDINGS: dict[str, JSON] = {
    "model.revision": {"model": {"source": "hf://org/model"}},
    "engine.chatTemplate": {"engine": {"chatTemplate": {"configMapRef": {"name": "template"}}}},
    "engine.speculativeDecoding": {"engine": {"speculativeDecoding": {"method": "ngram"}}},
    "engine.speculativeDecoding.draftModel": {
        "model": {"secretRef": {"name": "walker"}},
        "engine": {"speculativeDecoding": {"method": "draft", "draftModel": dict(_HUB)}},
    },
    "engine.kvCache.offloadGiB": _GPU,
    "engine.parallelism": {"accelerator": {"type": REMOVE, "count": 2}},
    "engine.lora": {"engine": {"lora": {"adapters": [{"name": "one", **_HUB}]}}},
    "engine.lora.adapters[].secretRef": {
        "model": {"secretRef": {"name": "walker"}},
        "engine": {"lora": {"adapters": [{"name": "one", **_HUB}]}},
    },
    "accelerator.resource": _GPU,
    "accelerator.count": _GPU,
    "autoscaling": _AUTOSCALING,
    "autoscaling.metrics[].target.p95Milliseconds": {
        "replicas": REMOVE,
        "autoscaling": {
            "maxReplicas": 3,
            "metrics": [
                {"type": "TTFT", "target": {"p95Milliseconds": 500}},
                {"type": "InFlightRequests", "target": {"averageValue": 8}},
            ],
        },
    },
    "autoscaling.metrics[].type": {
        "replicas": REMOVE,
        "autoscaling": {
            "maxReplicas": 3,
            "metrics": [
                {"type": "TPOT", "target": {"p95Milliseconds": 500}},
                {"type": "InFlightRequests", "target": {"averageValue": 8}},
            ],
        },
    },
    "rollout.steps": {"rollout": {"strategy": "Canary"}},
    "rollout.steps[].setHeaderRoute.headers[].name": _header_step({"exact": "1"}),
    "rollout.steps[].setHeaderRoute.headers[].exact": _header_step({"name": "x-tester"}),
    "rollout.steps[].setHeaderRoute.headers[].prefix": _header_step({"name": "x-tester"}),
    "rollout.blueGreen": {"rollout": {"strategy": "BlueGreen"}},
    "podTemplate.tolerations": {"podTemplate": {"tolerations": [dict(_TOLERATION)]}},
    "podTemplate.volumes[].name": {
        "podTemplate": {"volumes": [{**_VOLUME, "emptyDir": {"medium": ""}}]}
    },
    "podTemplate.volumes": {"podTemplate": {"volumes": [dict(_VOLUME)]}},
    "podTemplate.mounts": {
        "podTemplate": {
            "volumes": [{**_VOLUME, "emptyDir": {"medium": ""}}],
            "mounts": [{"name": "data", "mountPath": "/data"}],
        }
    },
    "podTemplate.env": {"podTemplate": {"env": [{"name": "WALKER"}]}},
    "podTemplate.mounts[].name": {
        "podTemplate": {
            "volumes": [
                {"name": "data", "emptyDir": {"medium": ""}},
                {"name": "more", "emptyDir": {"medium": ""}},
            ],
            "mounts": [{"name": "data", "mountPath": "/data"}],
        }
    },
}
"""Of all entries that a leaf's path begins with, the longest is merged into the base."""

EXAMPLES: dict[str, Any] = {
    "model.source": "pvc://models/two",
    "model.revision": _COMMIT,
    "servedName": "small",
    "source": "hf://org/draft",
    "revision": _COMMIT,
    "engine.image": "example.test/runtime@sha256:" + "a" * 64,
    "engine.kvCache.blockSize": 64,
    "engine.parallelism.data": 1,
    "engine.extraArgs[]": "--seed=7",
    "engine.lora.adapters[].name": "style",
    "engine.speculativeDecoding.method": "suffix",
    "engine.quantization": "int8",
    "engine.kvCache.dtype": "fp8",
    "replicas": 2,
    "autoscaling.minReplicas": 2,
    "autoscaling.metrics[].target.averageValue": 12.5,
    "autoscaling.metrics[].type": "TTFT",
    "autoscaling.fallback.replicas": 2,
    "accelerator.resource": "example.test/gpu",
    "engine.kvCache.gpuMemoryUtilization": 0.8,
    "rollout.analysis.alpha": 0.05,
    "rollout.analysis.metrics[].minEffect": "20%",
    "rollout.analysis.metrics[].name": "TTFT",
    "rollout.maxSurge": "50%",
    "rollout.steps[].setHeaderRoute.headers[].name": "x-canary",
    "router.bodyLimit": "4Mi",
    "router.replicas": 2,
    "timeout": "120s",
    "Timeout": "2m",
    "duration": "90s",
    "Duration": "45m",
    "Delay": "1s",
    "Deadline": "40m",
    "window": "12h",
    "scaleToZero.after": "20m",
    "sizeLimit": "64Mi",
    "podTemplate.resources.requests{}": "64Mi",
    "podTemplate.resources.limits{}": "64Mi",
    "podTemplate.mounts[].name": "more",
    "podTemplate.mounts[].mountPath": "/data",
    "podTemplate.env[].name": "WALKED",
    "fieldRef.fieldPath": "metadata.name",
    "topologyKey": "kubernetes.io/hostname",
    "matchFields[].key": "metadata.name",
    "podTemplate.tolerations[].operator": "Equal",
    "podTemplate.volumes[].emptyDir.medium": "Memory",
    "operator": "In",
}
"""A valid value that differs from the default; the longest key that a leaf's path ends with."""

MAP_KEYS: dict[str, str] = {
    "podTemplate.resources.requests": "memory",
    "podTemplate.resources.limits": "memory",
}
"""The key to use in a map; ``walker`` elsewhere."""


def example(leaf: Leaf) -> Any:
    """A valid value other than the default."""
    path = str(leaf)
    known = [key for key in EXAMPLES if path.endswith(key)]
    if known:
        return EXAMPLES[max(known, key=len)]
    schema, default = leaf.schema, leaf.schema.get("default")
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != default)
    match schema.get("type"):
        case "boolean":
            return not default if default is not None else True
        case "integer" | "number":
            low = schema.get("minimum", 0)
            return next(value for value in (low + 1, low + 2) if value != default)
        case "object":
            return {}
        case _:
            return "walker"


def build(root: JSON, leaf: Leaf, value: Any) -> JSON:
    """A spec in which a leaf has a value and everything else is as plain as it can be.

    Args:
        root: the schema of spec.
        leaf: which property.
        value: what it is set to; also one that the schema refuses.
    """
    spec = copy.deepcopy(BASE)
    known = [key for key in SURROUNDINGS if _begins(str(leaf), key)]
    if known:
        _merge(spec, SURROUNDINGS[max(known, key=len)])
    here: Any = spec
    for number, step in enumerate(leaf.path[:-1]):
        here = _enter(root, here, leaf.path, number, step)
    _put(here, leaf.path, len(leaf.path) - 1, value)
    if isinstance(here, dict) and str(here.get("operator")) in {"In", "NotIn"}:
        here.setdefault("values", ["walker"])  # no schema says that these two need some
    return spec


def _begins(path: str, key: str) -> bool:
    return path == key or (path.startswith(key) and path[len(key)] in ".[{")


def _merge(spec: JSON, patch: JSON) -> None:
    for key, value in patch.items():
        if value is REMOVE:
            spec.pop(key, None)
        elif isinstance(value, dict):
            _merge(spec.setdefault(key, {}), value)
        else:
            spec[key] = copy.deepcopy(value)


def _enter(root: JSON, here: Any, path: tuple[str, ...], number: int, step: str) -> Any:
    """Go one step down, making what is missing with all that it requires."""
    schema = schema_at(root, path[: number + 1])
    following = path[number + 1]
    empty: Any = [] if following == ITEM else {}
    if step == ITEM:
        if not here:
            here.append(empty)
        found = here[0]
    elif step == ENTRY:
        found = here.setdefault(_map_key(path, number), empty)
    else:
        found = here.setdefault(step, empty)
    if isinstance(found, dict):
        for name in schema.get("required", ()):
            if name not in found and name != following:
                found[name] = _required(root, (*path[: number + 1], name))
    return found


def _required(root: JSON, path: tuple[str, ...]) -> Any:
    schema = schema_at(root, path)
    if schema.get("properties") is not None:
        return {
            name: _required(root, (*path, name))
            for name in schema.get("required", ())
        }  # fmt: skip
    if schema.get("type") == "array":
        return [_required(root, (*path, ITEM))]
    return example(Leaf(path=path, schema=schema))


def _put(here: Any, path: tuple[str, ...], number: int, value: Any) -> None:
    step = path[number]
    if step == ITEM:
        here[:1] = [value]
    elif step == ENTRY:
        here[_map_key(path, number)] = value
    else:
        here[step] = value


def _map_key(path: tuple[str, ...], number: int) -> str:
    return MAP_KEYS.get(dotted(path[:number]), "walker")
