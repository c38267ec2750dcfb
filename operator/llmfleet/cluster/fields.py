"""Field ownership (``metadata.managedFields``) as pure functions.

An object's content is everything but identity, metadata and status. The content belongs to the
intent alone: what another manager added to it, or what an earlier intent of ours left behind, is
*surplus*. Surplus is removed by handing its ownership to our Apply entry (one JSON patch with the
resourceVersion tested) and applying the intent again: the API server then drops exactly the fields
that the intent no longer lists, list items by key included, and no state in between ever differs
from the one before or the one after.

Format of ``fieldsV1``: ``f:NAME`` a field, ``k:{…}`` a list item by its key fields, ``v:…`` a set
member by value, ``i:N`` an item by index, ``.`` the item itself (structured-merge-diff v4).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

from llmfleet.cluster.kinds import FIELD_MANAGER
from llmfleet.planning.snapshot import JSON

NOT_CONTENT: Final = frozenset({"apiVersion", "kind", "metadata", "status"})

RESOURCE_VERSION: Final = "/metadata/resourceVersion"
"""JSON pointer that makes a JSON patch conditional when tested first."""

_KEY_DEFAULTS: Final = {"protocol": "TCP"}
"""Defaults of list keys, which the API server adds to an item and to its key."""

_FOREIGN_BY_DESIGN: Final = frozenset({"ServiceAccount"})
"""Controllers of the cluster add fields to these (token and pull secrets), as they should."""


def surplus_fields(live: JSON, intent: JSON) -> dict[str, tuple[str, ...]]:
    """Content fields that the intent does not list, by the manager that owns them.

    Fields owned by our own Update entry (from the POST) are the API server's defaults beside the
    intent itself, so they do not count. Neither do entries of subresources (status, scale).

    Args:
        live: the object as stored, with managedFields.
        intent: the complete manifest intended.

    Returns:
        Manager → dotted paths, only managers with surplus; ``{}`` when the content is ours alone.

    Example:
        An intent of ``{"spec": {"replicas": 1}}`` whose live object carries an entry of manager
        ``kubectl-edit`` with ``{"f:spec": {"f:paused": {}}}`` gives
        ``{"kubectl-edit": ("spec.paused",)}``.
    """
    if live.get("kind") in _FOREIGN_BY_DESIGN:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for entry in _entries(live):
        if entry.get("subresource") or _is_own_update(entry):
            continue
        paths = tuple(
            path
            for name, fields in _content(entry).items()
            for path in _surplus(fields, intent, name, "")
        )
        if paths:
            manager = str(entry.get("manager"))
            found[manager] = (*found.get(manager, ()), *paths)
    return found


def needs_handover(live: JSON, intent: JSON) -> bool:
    """Whether applying the intent alone could leave surplus behind.

    True when somebody else owns surplus, or when our POST's Update entry still exists: an apply
    does not drop what that entry co-owns.
    """
    return any(_is_own_update(entry) for entry in _entries(live)) or bool(
        surplus_fields(live, intent)
    )


def owners_that_count(live: JSON) -> list[JSON]:
    """What comparisons need of ``managedFields``, as caches keep it.

    Nothing of subresources; and of our own Update entry, which lists every field that was sent,
    only that it is there.
    """
    return [
        {**entry, "fieldsV1": {}} if _is_own_update(entry) else entry
        for entry in _entries(live)
        if not entry.get("subresource")
    ]


def handover_patch(live: JSON) -> list[JSON]:
    """JSON patch that makes our Apply entry the only owner of the object's content.

    Entries of other managers keep their metadata fields (labels, annotations) and subresources;
    their content fields, and our Update entry as a whole, are merged into our Apply entry.
    The patch fails (409 or 422) if the object changed since ``live`` was read.
    """
    kept: list[JSON] = []
    ours: JSON | None = None
    gathered: JSON = {}
    for entry in _entries(live):
        fields = entry.get("fieldsV1") or {}
        if _is_own_apply(entry):
            ours = entry
            _merge(gathered, fields)
        elif _is_own_update(entry):
            _merge(gathered, fields)
        elif entry.get("subresource"):
            kept.append(entry)
        else:
            _merge(gathered, _content(entry))
            rest = {name: part for name, part in fields.items() if name not in _content(entry)}
            if rest:
                kept.append({**entry, "fieldsV1": rest})
    template: JSON = ours or {
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": live["apiVersion"],
        "fieldsType": "FieldsV1",
    }
    entries = [{**template, "fieldsV1": gathered}, *kept]
    return [
        {
            "op": "test",
            "path": RESOURCE_VERSION,
            "value": live["metadata"]["resourceVersion"],
        },
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
    ]


def _entries(live: JSON) -> list[JSON]:
    return live.get("metadata", {}).get("managedFields") or []


def _is_own_apply(entry: JSON) -> bool:
    return (
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def _is_own_update(entry: JSON) -> bool:
    return (
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Update"
        and not entry.get("subresource")
    )


def _content(entry: JSON) -> JSON:
    fields: JSON = entry.get("fieldsV1") or {}
    return {
        name: part
        for name, part in fields.items()
        if name.startswith("f:") and name[2:] not in NOT_CONTENT
    }


def _merge(target: JSON, source: JSON) -> None:
    for name, part in source.items():
        if name in target:
            _merge(target[name], part)
        else:
            target[name] = copy.deepcopy(part)


def _surplus(fields: JSON, parent: Any, element: str, path: str) -> Iterator[str]:
    found, child, label = _step(parent, element)
    here = f"{path}{label}" if label.startswith("[") else f"{path}.{label}".lstrip(".")
    if not found:
        yield here
        return
    for name, part in fields.items():
        if name != ".":
            yield from _surplus(part, child, name, here)


def _step(parent: Any, element: str) -> tuple[bool, Any, str]:
    """Follow one fieldsV1 element into the intent: (listed there?, value, label for people)."""
    sort, _, rest = element.partition(":")
    match sort:
        case "f":
            value = parent.get(rest) if isinstance(parent, dict) else None
            return value is not None, value, rest
        case "k":
            key = json.loads(rest)
            label = "[" + ",".join(str(value) for value in key.values()) + "]"
            for item in parent if isinstance(parent, list) else ():
                if isinstance(item, dict) and all(
                    item.get(name, _KEY_DEFAULTS.get(name)) == value for name, value in key.items()
                ):
                    return True, item, label
            return False, None, label
        case "v":
            value = json.loads(rest)
            return isinstance(parent, list) and value in parent, value, f"[{value}]"
        case _:
            index = int(rest) if rest.isdigit() else -1
            inside = isinstance(parent, list) and 0 <= index < len(parent)
            return inside, parent[index] if inside else None, f"[{rest}]"
