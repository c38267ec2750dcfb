"""The stored JSON against the models: what is hashed, what is unknown, what is not built yet.

All three work on the JSON as stored, not on the parsed model: the model ignores what it does not
know, and the hash must not.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmfleet.api.deployment import LLMDeployment
from llmfleet.api.spec import DEFAULT_ACCELERATOR_RESOURCE, LLMDeploymentSpec

JSON = dict[str, Any]

HASHED_SECTIONS = ("model", "engine", "accelerator", "podTemplate", "drain")
"""Sections of the spec that make a revision; editing others rolls nothing."""

UNBUILT_FIELDS: tuple[str, ...] = (
    "autoscaling.minReplicas",
    "autoscaling.maxReplicas",
    "autoscaling.metrics",
    "autoscaling.behavior",
    "autoscaling.forecast.enabled",
    "autoscaling.fallback",
    "rollout.analysis.metrics",
    "drift.action",
    "drift.window",
    "drift.control",
    "scaleToZero.after",
    "scaleToZero.holdRequests",
    "scaleToZero.holdTimeout",
)
"""Spec fields that are validated and stored, but whose behaviour does not exist yet."""

BUILT_METRICS = frozenset({"ErrorRate"})
"""Metrics of ``rollout.analysis.metrics`` that are judged."""

_IMPLIED: dict[str, JSON] = {
    "accelerator": {"resource": DEFAULT_ACCELERATOR_RESOURCE, "count": 1},
}
"""Defaults that the models cannot carry, since they depend on a neighbour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Property:
    """What the models say of one key, or of the items of a list."""

    required: bool
    default: Any
    """As stored, without the defaults in it; of no use where it is required."""
    model: type[BaseModel] | None
    """Of an object."""
    items: _Property | None
    """Of a list."""


def hash_payload(raw_spec: Mapping[str, Any]) -> JSON:
    """Return the canonical payload of a revision.

    The hashed sections as stored, with keys equal to their default removed (and what is empty
    after that), unknown keys kept, and numbers in their shortest form (1.0 is 1). A section that
    is all default is absent.

    >>> hash_payload({"model": {"source": "pvc://m/x", "servedName": "m", "aliases": []},
    ...               "accelerator": {"resource": "nvidia.com/gpu", "count": 1},
    ...               "drain": {"timeout": "300s"}, "replicas": 3})
    {'model': {'source': 'pvc://m/x', 'servedName': 'm'}}
    """
    payload: JSON = {}
    for section in HASHED_SECTIONS:
        kept = _without_defaults(raw_spec.get(section), _SPEC.get(section), section)
        if kept not in ({}, None):
            payload[section] = kept
    return payload


def unknown_fields(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths, under ``spec``, of hashed keys that this version does not know.

    They come from an object stored by a newer CRD; rolling it out would drop them silently.
    """
    spec = raw.get("spec") or {}
    found: list[str] = []
    for section in HASHED_SECTIONS:
        _collect_unknown(spec.get(section), _SPEC.get(section), section, found)
    return tuple(found)


def unknown_settings(settings: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Return the paths of keys in settings of a rollout that this version does not know.

    They come from a newer version, or a person: following only the rest is another rollout.

    Args:
        settings: ``spec.rollout`` as stored, or what was frozen of it.
        path: of the settings, which the answer begins with.
    """
    found: list[str] = []
    _collect_unknown(settings, _SPEC.get("rollout"), path, found)
    return tuple(found)


def unknown_keys(model: type[BaseModel], value: Any) -> tuple[str, ...]:
    """Return the paths, each with a leading dot, of keys in a value that its model does not know.

    >>> from llmfleet.api import Toleration
    >>> unknown_keys(Toleration, {"key": "gpu", "odd": 1})
    ('.odd',)
    """
    found: list[str] = []
    _collect_unknown(
        value, _Property(required=True, default=None, model=model, items=None), "", found
    )
    return tuple(found)


def unbuilt_fields(resource: LLMDeployment | Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is set to something other than its default without having an effect yet.

    Paths under ``spec``, in the order of ``UNBUILT_FIELDS``.
    """
    if isinstance(resource, LLMDeployment):
        resource = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec = resource.get("spec") or {}
    return tuple(path for path in UNBUILT_FIELDS if _is_set(spec, path))


def _is_set(spec: Mapping[str, Any], path: str) -> bool:
    value: Any = spec
    known: Mapping[str, _Property] = _SPEC
    found: _Property | None = None
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value, found = value[key], known.get(key)
        known = _properties(found.model) if found and found.model else known
    if path == "rollout.analysis.metrics":
        return any(each.get("name") not in BUILT_METRICS for each in value or ())
    if value is None:
        return False
    kept = _without_defaults(value, found, path)
    return found is None or not _equals_default(kept, found)


def _without_defaults(value: Any, known: _Property | None, path: str) -> Any:
    """Remove from a stored value, at every depth, what equals its default."""
    if isinstance(value, Mapping):
        return _without_defaults_in_object(value, known.model if known else None, path)
    if isinstance(value, list):
        items = known.items if known else None
        return [_without_defaults(each, items, path) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _without_defaults_in_object(
    value: Mapping[str, Any], model: type[BaseModel] | None, path: str
) -> JSON:
    kept: JSON = {}
    implied = _IMPLIED.get(path, {})
    properties = _properties(model) if model else {}
    for key, stored in value.items():
        if stored is None or (key in implied and implied[key] == stored):
            continue
        known = properties.get(key)
        cleaned = _without_defaults(stored, known, f"{path}.{key}")
        if known is not None and _equals_default(cleaned, known):
            continue
        kept[key] = cleaned
    return kept


def _equals_default(value: Any, known: _Property) -> bool:
    return (
        not known.required and type(value) is type(known.default) and bool(value == known.default)
    )


def _collect_unknown(value: Any, known: _Property | None, path: str, found: list[str]) -> None:
    if isinstance(value, list):
        items = known.items if known else None
        for index, each in enumerate(value):
            _collect_unknown(each, items, f"{path}[{index}]", found)
    elif isinstance(value, Mapping) and known is not None and known.model is not None:
        properties = _properties(known.model)
        for key, each in value.items():
            if key not in properties:
                found.append(f"{path}.{key}")
            else:
                _collect_unknown(each, properties[key], f"{path}.{key}", found)


@cache
def _properties(model: type[BaseModel]) -> Mapping[str, _Property]:
    """Return the fields of a model by their spelling in the resource."""
    return {
        str(field.alias): _Property(
            required=field.is_required(),
            default=_stored_default(field),
            model=_model_in(field.annotation),
            items=_items_in(field.annotation),
        )
        for field in model.model_fields.values()
    }


def _stored_default(field: FieldInfo) -> Any:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return {}  # what is left of it once its own defaults are removed
    if isinstance(default, tuple):
        return [
            each.model_dump(mode="json", by_alias=True, exclude_none=True)
            if isinstance(each, BaseModel)
            else each
            for each in default
        ]
    return default


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model of an annotation for an object; optional and annotated ones too."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _model_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((m for arg in get_args(annotation) if (m := _model_in(arg))), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _items_in(annotation: Any) -> _Property | None:
    """Return what is said of the items of an annotation for a list."""
    origin = get_origin(annotation)
    if origin is tuple:
        item = get_args(annotation)[0]
        return _Property(required=True, default=None, model=_model_in(item), items=_items_in(item))
    if origin is Annotated:
        return _items_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((i for arg in get_args(annotation) if (i := _items_in(arg))), None)
    return None


_SPEC = _properties(LLMDeploymentSpec)
