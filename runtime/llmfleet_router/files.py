"""Writing the files Envoy watches, and the agent's own memory of what it last applied."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from llmfleet_router.model import Command, Desired, Endpoint
from llmfleet_router.routing import parse_routing, routing_as_json

JSON = dict[str, Any]
MEMORY = "last.json"


def write_by_rename(path: Path, content: JSON) -> None:
    """Replaces ``path`` by a rename, which is the only thing Envoy's watch reacts to.

    Readable by this user alone: the bootstrap carries the engine token.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, separators=(",", ":"))
    temporary.replace(path)


def remember(directory: Path, desired: Desired) -> None:
    """Keeps what was applied, for a start while the API server is down."""
    if desired.command is None:
        return
    content: JSON = {
        "generation": desired.command.generation,
        "weights": [list(pair) for pair in desired.command.weights],
        "endpoints": {
            revision: [[e.address, e.port, e.ready_since] for e in endpoints]
            for revision, endpoints in desired.endpoints.items()
        },
    }
    if routing := routing_as_json(desired.command.routing):
        content["routing"] = routing
    if desired.command.object_uid is not None:
        content["objectUid"] = desired.command.object_uid
    write_by_rename(directory / MEMORY, content)


def recall(directory: Path) -> Desired:
    """What was applied last; an empty wish when there is no file or it is damaged."""
    try:
        data = json.loads((directory / MEMORY).read_text())
        return Desired(
            command=Command(
                generation=data["generation"],
                weights=tuple((revision, weight) for revision, weight in data["weights"]),
                routing=parse_routing(data.get("routing")),
                object_uid=data.get("objectUid"),
            ),
            endpoints={
                revision: tuple(
                    Endpoint(address=a, port=p, ready_since=since[0] if since else 0)
                    for a, p, *since in endpoints
                )
                for revision, endpoints in data["endpoints"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Desired()


def read_token(path: Path) -> str | None:
    """The engine token, or None when there is no file (local use)."""
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
