"""Turns pydantic's JSON schema into the structural schema that Kubernetes wants.

Structural means: no ``$ref``, no ``anyOf`` with types inside, every node typed. Objects whose
fields all have defaults get ``default: {}``, so that the API server fills the whole tree in and
a stored object shows every setting it is served with. Below a model marked ``SPARSE`` empty
defaults are left out: there nothing is worth showing, and in the status a default that the API
server fills in would look like a difference to write away.
"""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

from llmfleet.api.values import SPARSE, JsonSchema

_DROPPED = ("title", "$defs", "exclusiveMinimum", "exclusiveMaximum", SPARSE)
_EMPTY: tuple[object, ...] = ("", [], {})
_RULES = "x-kubernetes-validations"


def structural_schema(model: type[BaseModel]) -> JsonSchema:
    """Return the structural schema of a model, descriptions and CEL rules included."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), sparse=False)


def _convert(node: JsonSchema, definitions: dict[str, JsonSchema], *, sparse: bool) -> JsonSchema:
    node = _resolve(node, definitions)
    sparse = sparse or bool(node.get(SPARSE))
    result: JsonSchema = {k: v for k, v in node.items() if k not in _DROPPED and v is not None}
    _convert_bounds(node, result)
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "description" in result:
        result["description"] = _one_paragraph(result["description"])
    if "items" in node:
        result["items"] = _convert(node["items"], definitions, sparse=sparse)
    if "properties" in node:
        result["properties"] = _convert_properties(node, definitions, sparse=sparse)
    additional = node.get("additionalProperties")
    if isinstance(additional, dict):
        result["additionalProperties"] = _convert(additional, definitions, sparse=sparse)
    elif "additionalProperties" in result:
        del result["additionalProperties"]
    if result.get("x-kubernetes-preserve-unknown-fields"):
        result["type"] = "object"
    if "default" in result:
        result["default"] = _without_nulls(result["default"])
    _add_formats(result)
    return result


def _resolve(node: JsonSchema, definitions: dict[str, JsonSchema]) -> JsonSchema:
    """Inline references and the ``| None`` of optional fields; neighbours' keywords win."""
    if "anyOf" in node:
        choices = [each for each in node["anyOf"] if each.get("type") != "null"]
        if len(choices) == 1:
            node = _merge(choices[0], {k: v for k, v in node.items() if k != "anyOf"})
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = _merge(target, {k: v for k, v in node.items() if k != "$ref"})
        return _resolve(node, definitions)
    return node


def _merge(base: JsonSchema, extra: JsonSchema) -> JsonSchema:
    merged = {**base, **extra}
    both = [*base.get(_RULES, []), *extra.get(_RULES, [])]
    if both:
        merged[_RULES] = both
    return merged


def _convert_bounds(node: JsonSchema, result: JsonSchema) -> None:
    """Kubernetes spells exclusive bounds as draft 4 did."""
    for side in ("Minimum", "Maximum"):
        bound = node.get(f"exclusive{side}")
        if bound is not None:
            result[side.lower()] = bound
            result[f"exclusive{side}"] = True


def _convert_properties(
    node: JsonSchema, definitions: dict[str, JsonSchema], *, sparse: bool
) -> JsonSchema:
    required = node.get("required", [])
    properties: JsonSchema = {}
    for name, child in node["properties"].items():
        converted = _convert(child, definitions, sparse=sparse)
        optional = any(each.get("type") == "null" for each in child.get("anyOf", []))
        if optional or (sparse and converted.get("default") in _EMPTY):
            converted.pop("default", None)
        elif name not in required and converted.get("type") == "object" and not sparse:
            converted.setdefault("default", {})
        properties[name] = converted
    return properties


def _add_formats(result: JsonSchema) -> None:
    if result.get("type") == "integer":
        result.setdefault("format", "int32")
    if result.get("format") == "date-time":
        result["maxLength"] = 64
    if result.get("type") == "number":
        result.setdefault("format", "double")


def _one_paragraph(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split())


def _without_nulls(value: Any) -> Any:
    """Unset keys of a default are absent, since a structural schema knows no null."""
    match value:
        case dict():
            return {key: _without_nulls(each) for key, each in value.items() if each is not None}
        case list():
            return [_without_nulls(each) for each in value]
        case _:
            return value
