"""A large podTemplate is stored once: in the payload, and not again in the template beside it.

Payload and template of a revision both hold what the author set under ``spec.podTemplate``. Where
that is much, the memory keeps the template without it (``rest``), and puts it back when it reads.
A small revision is kept as operators before this one wrote it, so that they can still read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from llmfleet.planning.children.naming import canonical_json
from llmfleet.planning.revisions.shapes import show
from llmfleet.planning.revisions.stored import UnusableError
from llmfleet.planning.snapshot import JSON

WHOLE_BYTES: Final = 64 * 1024
"""Up to this size a revision is kept whole, in bytes of canonical JSON."""

Path = tuple[str | int, ...]

SHARED: Final[Mapping[str, tuple[Path, Path]]] = {
    "labels": (("metadata", "labels"), ("metadata", "labels")),
    "annotations": (("metadata", "annotations"), ("metadata", "annotations")),
    "nodeSelector": (("spec", "nodeSelector"), ("nodeSelector",)),
    "affinity": (("spec", "affinity"), ("affinity",)),
    "tolerations": (("spec", "tolerations"), ("tolerations",)),
    "volumes": (("spec", "volumes"), ("volumes",)),
    "mounts": (("spec", "containers", 0, "volumeMounts"), ("mounts",)),
    "env": (("spec", "containers", 0, "env"), ("env",)),
}
"""Where the template has, among or after its own, what the payload's podTemplate has where."""


def split_template(body: JSON) -> JSON:
    """A revision's body as memory keeps it: whole while small, else without its second half.

    Where a part of the template is not what the payload has, it stays; ``join_template`` gives
    back exactly the template that was there.
    """
    if len(canonical_json(body).encode()) <= WHOLE_BYTES:
        return body
    rest: Any = body["template"]
    shared: list[str] = []
    for name, (there, beside) in SHARED.items():
        part, given = _get(rest, there), _get(body["payload"].get("podTemplate"), beside)
        left = _without(part, given)
        if left is not None and _with(left, given) == part:
            rest, shared = _put(rest, there, left), [*shared, name]
    kept = {key: value for key, value in body.items() if key != "template"}
    return {**kept, "rest": rest, "shared": shared}


def join_template(body: JSON) -> JSON:
    """The template of a body that ``split_template`` made.

    Raises:
        UnusableError: rest and payload do not belong together.
    """
    template, payload = body["rest"], body.get("payload")
    given = payload.get("podTemplate") if isinstance(payload, dict) else None
    for there, beside in _rows(body.get("shared")):
        whole = _with(_get(template, there), _get(given, beside))
        if whole is None:
            raise UnusableError("what its template shares with its payload is not there")
        template = _put(template, there, whole)
    joined: JSON = template
    return joined


def _rows(shared: Any) -> Iterator[tuple[Path, Path]]:
    known = isinstance(shared, list) and all(each in SHARED for each in map(str, shared))
    if not known or len(set(shared)) < len(shared):
        raise UnusableError(f"{show(shared)} is not what a template shares with its payload")
    yield from (SHARED[name] for name in shared)


def _without(whole: Any, part: Any) -> Any:
    """A list without its end, or an object without some of its fields; None if it lacks them."""
    if isinstance(whole, list) and isinstance(part, list):
        before = len(whole) - len(part)
        return whole[:before] if before >= 0 and whole[before:] == part else None
    if isinstance(whole, dict) and isinstance(part, dict):
        return {key: value for key, value in whole.items() if key not in part}
    return None


def _with(left: Any, part: Any) -> Any:
    if isinstance(left, list) and isinstance(part, list):
        return [*left, *part]
    if isinstance(left, dict) and isinstance(part, dict):
        return {**left, **part}
    return None


def _get(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step == 0 and value:
            value = value[0]
        else:
            return None
    return value


def _put(value: Any, path: Path, new: Any) -> Any:
    """A copy of a value with something else at a path that is there."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [_put(value[0], rest, new), *value[1:]]
    return {**value, step: _put(value[step], rest, new)}
