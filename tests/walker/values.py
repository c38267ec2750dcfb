"""Values for a leaf, from its schema alone: boundary ones, and ones that must be refused."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]

LONGEST_TEXT = 4096
NOT_MATCHING = "Ünfug ~{}\n"
"""Matches no pattern of the schema."""


def boundaries(schema: JSON) -> list[Any]:
    """Values at the edges of what the schema allows; a rule may still refuse them."""
    if "enum" in schema:
        return list(schema["enum"])
    match schema.get("type"):
        case "boolean":
            found = [True, False]
        case "integer":
            found = _distinct(schema.get("minimum"), schema.get("maximum", 2**31))
        case "number":
            low, high = schema.get("minimum"), schema.get("maximum")
            if schema.get("exclusiveMinimum") and low is not None:
                low = low + 1e-6
            found = _distinct(low, high)
        case "object":
            found = [{}]
        case "string":
            found = ["x" * schema.get("maxLength", LONGEST_TEXT)]
            if not schema.get("minLength"):
                found.append("")
        case None if schema.get("x-kubernetes-int-or-string"):
            found = [0, 1, "0"]
        case _:
            found = []
    return found


def refused(schema: JSON) -> list[Any]:
    """Values that the API server must refuse: outside the bounds, another type, no match."""
    found: list[Any] = [[], {"walker": "walker"}]
    match schema.get("type"):
        case "boolean":
            found += ["yes", 1]
        case "integer":
            found += ["one", 1.5, *_outside(schema)]
        case "number":
            found += ["one", *_outside(schema)]
        case "string":
            found += [7, True, *_outside_text(schema)]
        case "object":
            found = ["walker", 7]
        case None if schema.get("x-kubernetes-int-or-string"):
            found += [-1, "-1", NOT_MATCHING, 1.5]
    if "enum" in schema:
        found += ["no-such-value" if schema.get("type") == "string" else 999_999]
    return found


def _outside(schema: JSON) -> list[Any]:
    found = []
    if "minimum" in schema:
        step = 0 if schema.get("exclusiveMinimum") else 1
        found.append(schema["minimum"] - step)
    if "maximum" in schema:
        found.append(schema["maximum"] + 1)
    return found


def _outside_text(schema: JSON) -> list[Any]:
    found: list[Any] = []
    if "maxLength" in schema:
        found.append("x" * (schema["maxLength"] + 1))
    if schema.get("minLength"):
        found.append("")
    if "pattern" in schema or schema.get("x-kubernetes-validations") or "enum" in schema:
        found.append(NOT_MATCHING[: schema.get("maxLength", LONGEST_TEXT)])
    return found


def _distinct(*values: Any) -> list[Any]:
    return list(dict.fromkeys(value for value in values if value is not None))
