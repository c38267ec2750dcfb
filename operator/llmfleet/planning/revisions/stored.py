"""Reads back what ControllerRevisions and memory hold of a revision, or says why it is not used.

Others can write such objects too. Nothing is taken from one that fails a check: its payload must
hash to its name, and its template must be one that a revision may have (``allowed``).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, TypeGuard

import orjson

from llmfleet.api.text import clean_line
from llmfleet.planning.children.naming import DEPLOYMENT_LABEL
from llmfleet.planning.revisions.allowed import find_forbidden
from llmfleet.planning.revisions.revision import (
    DATA_SCHEMA,
    HASH_LENGTH,
    Revision,
    revision_hash,
)
from llmfleet.planning.revisions.shapes import show
from llmfleet.planning.snapshot import JSON, ObservedObject

MOST: Final = 1 << 53
"""Numbers above it are not whole in every reader of JSON."""
MOST_ANSWERS: Final = 10_000
_HASH: Final = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")


class UnusableError(ValueError):
    """A stored revision fails a check; the message says which one."""


def read_controller_revision(found: ObservedObject, name: str) -> Revision:
    """Read a ControllerRevision of the LLMDeployment called ``name``.

    Raises:
        UnusableError: it is not one that an operator wrote, or not one that this one understands.
    """
    labels = found.body.get("metadata", {}).get("labels") or {}
    if labels.get(DEPLOYMENT_LABEL) != name:
        raise UnusableError(f"it lacks the label {DEPLOYMENT_LABEL}: {name}")
    data = found.body.get("data")
    if isinstance(data, dict) and data.get("schema", DATA_SCHEMA) != DATA_SCHEMA:
        raise UnusableError(f"its schema is {show(data['schema'])}, this operator reads 1")
    number = found.body.get("revision", 0)
    if not is_count(number):
        raise UnusableError(f"its number is {show(number)}")
    revision = found.key.name.removeprefix(f"{name}-rev-")
    return read_revision(data, name=name, revision=revision, number=number)


def read_revision(data: Any, *, name: str, revision: Any, number: int) -> Revision:
    """Read what ``revision_body`` wrote.

    Args:
        data: payload, image and template.
        name: of the LLMDeployment.
        revision: the hash that it must have.
        number: of the revision.

    Raises:
        UnusableError: it fails a check.
    """
    if not isinstance(revision, str) or not _HASH.fullmatch(revision):
        raise UnusableError(f"{show(revision)} is no revision's hash")
    if not isinstance(data, dict):
        raise UnusableError(f"{show(data)} is no revision")
    body: JSON = {key: data.get(key) for key in ("payload", "image", "template")}
    problem = _CHECKED.problem(body, name, revision)
    if problem is not None:
        raise UnusableError(problem)
    return Revision(hash=revision, number=number, **body)


def find_problem(body: JSON, name: str, revision: str) -> str | None:
    """Why a payload, image and template are not those of a revision; None when they may be."""
    payload, image, template = body["payload"], body["image"], body["template"]
    if not _is_payload(payload) or not isinstance(template, dict):
        return "it has no payload or no template"
    if not isinstance(image, str) or not image or clean_line(image) != image:
        return f"its image is {show(image)}"
    actual = revision_hash(payload)
    if actual != revision:
        return f"its payload is that of revision {actual}"
    asked = payload.get("engine", {}).get("image")
    if asked is not None and asked != image:
        return f"its image is {show(image)}, its payload asks for {show(asked)}"
    found = find_forbidden(template, name=name, revision=revision, image=image)
    return None if found is None else f"{found}, which no revision may have"


class _Checked:
    """Answers of ``find_problem`` by what was asked.

    Each pass reads the same revisions again, and the check costs fifty times as much as a digest.
    """

    def __init__(self) -> None:
        self._answers: dict[bytes, str | None] = {}

    def problem(self, body: JSON, name: str, revision: str) -> str | None:
        try:
            # Half surrogates, numbers above 64 bits and what is too deep are refused here, so all
            # that follows can write it.
            # Sorted: memory and ControllerRevision keep the same revision in two orders.
            asked = hashlib.sha256(
                orjson.dumps([name, revision, body], option=orjson.OPT_SORT_KEYS)
            ).digest()
        except TypeError:  # orjson's own error is one
            return "its payload or template is not plain JSON"
        if asked not in self._answers:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            self._answers[asked] = find_problem(body, name, revision)
        return self._answers[asked]


_CHECKED: Final = _Checked()


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number that can be counted on from."""
    return type(value) is int and 0 <= value <= MOST


def _is_payload(value: Any) -> TypeGuard[dict[str, JSON]]:
    """Whether it is an object of sections, each of which is an object."""
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())
