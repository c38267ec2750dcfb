"""Writing the files that Envoy watches, and reading the engine token."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

JSON = dict[str, Any]


def write_by_rename(path: Path, content: JSON) -> None:
    """Replaces ``path`` by a rename, which is the only thing Envoy's watch reacts to.

    Readable by this user alone: the bootstrap carries the engine token.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, separators=(",", ":"))
    temporary.replace(path)


def read_token(path: Path) -> str | None:
    """The engine token, or None when there is no file (local use)."""
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
