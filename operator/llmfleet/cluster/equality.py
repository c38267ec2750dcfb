"""Whether a child already is what it is meant to be, as pure functions.

A child equals its intent when its digest annotation matches, every intended leaf is found in the
live object after normalisation, and nobody else owns a field of its content (``fields``). Then
nothing is sent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from llmfleet.api import clean_line
from llmfleet.cluster.fields import NOT_CONTENT, owners_that_count, surplus_fields
from llmfleet.cluster.kinds import DIGEST_ANNOTATION
from llmfleet.planning.snapshot import JSON

_LIST_KEYS: Final = (
    ("containerPort", "protocol"),
    ("port", "protocol"),
    ("mountPath",),
    ("devicePath",),
    ("topologyKey", "whenUnsatisfiable"),
    ("uid",),
    ("ip",),
    ("name",),
)
"""Key fields of the lists that the API merges by key, the most specific first."""

_KEY_DEFAULTS: Final = {"protocol": "TCP"}

_QUANTITY_PARENTS: Final = frozenset({"requests", "limits", "sizeLimit", "storage", "divisor"})

_SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
"""Suffixes of a Kubernetes quantity (apimachinery, api/resource)."""

_QUANTITY: Final = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i|)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Why a child is written.

    Attributes:
        digest_changed: the intent itself is another one than at the last write.
        leaves: dotted paths of intended values that the live object lacks or has otherwise.
        surplus: manager → paths of fields the intent does not list.
    """

    digest_changed: bool
    leaves: tuple[str, ...]
    surplus: dict[str, tuple[str, ...]]

    @property
    def edited_by_others(self) -> bool:
        """The intent is unchanged, so somebody else made the difference."""
        return not self.digest_changed

    def sentence(self) -> str:
        """What was changed and by whom, for an Event."""
        parts = [f"{', '.join(self.leaves[:5])} had another value"] if self.leaves else []
        parts.extend(
            f"{manager} set {', '.join(paths[:5])}" for manager, paths in self.surplus.items()
        )
        return clean_line("; ".join(parts))


def difference(live: JSON, intent: JSON) -> Difference | None:
    """Compare a live child with its intent; None when they are equal and nothing is to be sent."""
    digest = _digest(intent)
    changed = digest is not None and _digest(live) != digest
    leaves = tuple(differing_leaves(live, intent))
    surplus = surplus_fields(live, intent)
    if not changed and not leaves and not surplus:
        return None
    return Difference(digest_changed=changed, leaves=leaves, surplus=surplus)


def differing_leaves(live: JSON, intent: JSON) -> Iterator[str]:
    """Dotted paths of intended leaves that the live object lacks or has otherwise.

    What the API server adds (defaults, status, revision annotations) is never looked at.
    """
    meta = intent.get("metadata", {})
    for name in ("labels", "annotations", "ownerReferences"):
        if meta.get(name):
            yield from _leaves(live.get("metadata", {}).get(name), meta[name], f"metadata.{name}")
    for name, value in intent.items():
        if name not in NOT_CONTENT:
            yield from _leaves(live.get(name), value, name)


def content_fingerprint(live: JSON) -> str:
    """Hash of everything that ``difference`` looks at in a live object, in 64 hex digits."""
    meta = live.get("metadata", {})
    seen = {name: value for name, value in live.items() if name not in NOT_CONTENT}
    seen["metadata"] = [
        meta.get("uid"),
        meta.get("labels"),
        own_annotations(meta),
        meta.get("ownerReferences"),
    ]
    seen["owners"] = [
        [entry.get("manager"), entry.get("operation"), entry.get("fieldsV1")]
        for entry in owners_that_count(live)
        if "f:spec" in (entry.get("fieldsV1") or {})
    ]
    return json_hash(seen)


def json_hash(value: JSON) -> str:
    """SHA-256 of an object's JSON with sorted keys, in 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def own_annotations(meta: JSON) -> JSON:
    """An object's annotations without those that the Deployment controller keeps for itself."""
    return {
        name: value
        for name, value in (meta.get("annotations") or {}).items()
        if not name.startswith("deployment.kubernetes.io/")
    }


def parse_quantity(value: Any) -> Decimal | None:
    """A Kubernetes quantity as a number; None when it is not one.

    Example:
        >>> parse_quantity("500m") == parse_quantity(0.5)
        True
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    return Decimal(found[1]) * _SUFFIXES[found[2]]


def _digest(body: JSON) -> str | None:
    annotations = body.get("metadata", {}).get("annotations") or {}
    value = annotations.get(DIGEST_ANNOTATION)
    return None if value is None else str(value)


def _leaves(live: Any, intended: Any, path: str) -> Iterator[str]:
    if live == intended and live is not None:
        return  # mostly, and found out at once
    if isinstance(intended, dict) and isinstance(live, dict):
        for name, value in intended.items():
            yield from _leaves(live.get(name), value, f"{path}.{name}")
    elif isinstance(intended, list) and isinstance(live, list):
        yield from _list_leaves(live, intended, path)
    elif not _same_value(live, intended, path):
        yield path


def _list_leaves(live: list[Any], intended: list[Any], path: str) -> Iterator[str]:
    keys = _keys_of(intended)
    if keys is None:
        if len(live) != len(intended):
            yield path
            return
        for index, (one, other) in enumerate(zip(live, intended, strict=True)):
            yield from _leaves(one, other, f"{path}[{index}]")
        return
    by_key = {_key(item, keys): item for item in live if isinstance(item, dict)}
    for item in intended:
        key = _key(item, keys)
        label = f"{path}[{','.join(str(part) for part in key)}]"
        if key in by_key:
            yield from _leaves(by_key[key], item, label)
        else:
            yield label


def _keys_of(items: list[Any]) -> tuple[str, ...] | None:
    """Key fields under which the items are distinct, or None for a list without keys."""
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for names in _LIST_KEYS:
        if all(name in item or name in _KEY_DEFAULTS for item in items for name in names):
            keys = [_key(item, names) for item in items]
            return names if len(set(keys)) == len(keys) else None
    return None


def _key(item: JSON, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(item.get(name, _KEY_DEFAULTS.get(name))) for name in names)


def _same_value(live: Any, intended: Any, path: str) -> bool:
    if live is None:
        # The API server drops empty optional values; an empty intent is met by absence.
        return intended is None or intended in (False, "", 0) or intended in ({}, [])
    if type(live) is type(intended) and live == intended:
        return True
    parents = path.rsplit(".", 2)[-2:]
    if any(parent in _QUANTITY_PARENTS for parent in parents):
        one, other = parse_quantity(live), parse_quantity(intended)
        return one is not None and one == other
    return False
