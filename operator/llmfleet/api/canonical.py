"""The stored JSON against the models: what is hashed, what is unknown, what is not built yet.

All three work on the JSON as stored, not on the parsed model: the model ignores what it does not
know, and the hash must not.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
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
    "rollout.analysis.alpha",
    "rollout.analysis.firstTokenTimeout",
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
        kept = _without_defaults(raw_spec.get(section), _field(LLMDeploymentSpec, section), section)
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
        _collect_unknown(spec.get(section), _field(LLMDeploymentSpec, section), section, found)
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
    model: type[BaseModel] = LLMDeploymentSpec
    field: FieldInfo | None = None
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value, field = value[key], _field(model, key)
        model = (_nested_model(field) if field else None) or model
    if path == "rollout.analysis.metrics":
        return any(each.get("name") not in BUILT_METRICS for each in value or ())
    if value is None:
        return False
    kept = _without_defaults(value, field, path)
    return field is None or not _equals_default(kept, field)


def _without_defaults(value: Any, field: FieldInfo | None, path: str) -> Any:
    """Remove from a stored value, at every depth, what equals its default."""
    model = _nested_model(field) if field else None
    if isinstance(value, Mapping):
        return _without_defaults_in_object(value, model, path)
    if isinstance(value, list):
        item = _item_field(field)
        return [_without_defaults(each, item, path) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _without_defaults_in_object(
    value: Mapping[str, Any], model: type[BaseModel] | None, path: str
) -> JSON:
    kept: JSON = {}
    implied = _IMPLIED.get(path, {})
    for key, stored in value.items():
        if stored is None or (key in implied and implied[key] == stored):
            continue
        field = _field(model, key) if model else None
        cleaned = _without_defaults(stored, field, f"{path}.{key}")
        if field is not None and _equals_default(cleaned, field):
            continue
        kept[key] = cleaned
    return kept


def _equals_default(value: Any, field: FieldInfo) -> bool:
    if field.is_required():
        return False
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = {}  # what is left of it once its own defaults are removed
    elif isinstance(default, tuple):
        default = [
            each.model_dump(mode="json", by_alias=True, exclude_none=True)
            if isinstance(each, BaseModel)
            else each
            for each in default
        ]
    return type(value) is type(default) and bool(value == default)


def _collect_unknown(value: Any, field: FieldInfo | None, path: str, found: list[str]) -> None:
    model = _nested_model(field) if field else None
    if isinstance(value, list):
        item = _item_field(field)
        for index, each in enumerate(value):
            _collect_unknown(each, item, f"{path}[{index}]", found)
    elif isinstance(value, Mapping) and model is not None:
        for key, each in value.items():
            known = _field(model, key)
            if known is None:
                found.append(f"{path}.{key}")
            else:
                _collect_unknown(each, known, f"{path}.{key}", found)


def _field(model: type[BaseModel], alias: str) -> FieldInfo | None:
    """Return the field of a model that is spelled so in the resource."""
    return next((each for each in model.model_fields.values() if each.alias == alias), None)


def _nested_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that holds an object; optional and annotated ones too."""
    return _model_in(field.annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _model_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((m for arg in get_args(annotation) if (m := _model_in(arg))), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _item_field(field: FieldInfo | None) -> FieldInfo | None:
    """Return the items of a list field, as a field without default."""
    item = _item_in(field.annotation) if field else None
    return None if item is None else FieldInfo(annotation=item)


def _item_in(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is tuple:
        return get_args(annotation)[0]
    if origin is Annotated:
        return _item_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((i for arg in get_args(annotation) if (i := _item_in(arg)) is not None), None)
    return None
