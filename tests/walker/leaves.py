"""The leaves of the CRD's schema: every property that holds a value and not more properties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from hack.controlplane.apiserver import CRD_PATH

JSON = dict[str, Any]
ITEM = "[]"
"""Step into a list's only item."""
ENTRY = "{}"
"""Step into a map's only value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf property.

    Attributes:
        path: steps from the section's root: property names, ``[]`` and ``{}``.
        schema: its own schema.
    """

    path: tuple[str, ...]
    schema: JSON

    def __str__(self) -> str:
        return dotted(self.path)

    @property
    def field(self) -> str:
        """The innermost property name: what a refusal has to mention."""
        return next(step for step in reversed(self.path) if step not in {ITEM, ENTRY})


def dotted(path: tuple[str, ...]) -> str:
    """A path as people write it.

    Example:
        >>> dotted(("engine", "lora", "adapters", "[]", "name"))
        'engine.lora.adapters[].name'
    """
    return ".".join(path).replace(".[]", "[]").replace(".{}", "{}")


def section_schema(section: str) -> JSON:
    """The schema of ``spec`` or ``status`` in the CRD that is shipped."""
    crd = yaml.safe_load(CRD_PATH.read_text(encoding="utf-8"))
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: JSON = root["properties"][section]
    return found


def leaves(schema: JSON, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """All leaves under a schema, in its order."""
    inner = _inner(schema)
    if not inner:
        yield Leaf(path=path, schema=schema)
    for step, child in inner.items():
        yield from leaves(child, (*path, step))


def schema_at(schema: JSON, path: tuple[str, ...]) -> JSON:
    """The schema that a path leads to."""
    for step in path:
        schema = _inner(schema)[step]
    return schema


def _inner(schema: JSON) -> dict[str, JSON]:
    if schema.get("properties"):
        return dict(schema["properties"])
    if isinstance(schema.get("items"), dict):
        return {ITEM: schema["items"]}
    if isinstance(schema.get("additionalProperties"), dict):
        return {ENTRY: schema["additionalProperties"]}
    return {}
