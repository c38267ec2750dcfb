"""What Envoy's launcher tells the agent, in a file of the directory that both have.

The two run in containers of their own, and either may end without the other. So neither holds a
connection to the other, and what one has said is there when the other starts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from llmfleet_router.files import write_by_rename
from llmfleet_router.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of Envoy."""

    start: str
    """Which one: the time of it."""
    stopping: bool = False
    """It was told to stop, and drains."""
    forgotten: bool = False
    """It drains, and no new request comes any more."""


def write_launch(settings: Settings, launch: Launch) -> None:
    """Tell the agent."""
    content = {
        "start": launch.start,
        "stopping": launch.stopping,
        "forgotten": launch.forgotten,
    }
    write_by_rename(settings.launch_file, content)


def read_launch(settings: Settings) -> Launch | None:
    """What the launcher said last; None before its first word."""
    try:
        content = json.loads(settings.launch_file.read_text())
        return Launch(
            start=str(content["start"]),
            stopping=bool(content["stopping"]),
            forgotten=bool(content["forgotten"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
