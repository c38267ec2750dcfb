"""How every benchmark and campaign ends: one line per target, the same as JSON, the exit status.

``PASS|MISS|SKIP name: figure (target …)``; a MISS makes the exit status 1.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing that must hold, and what was measured."""

    name: str
    figure: str
    """What was measured, with its unit; for a skipped one, what was absent."""
    target: str
    """The bound in words, e.g. ``at least 0.85x``."""
    holds: bool | None
    """None: it could not be measured here."""

    @property
    def verdict(self) -> str:
        """PASS, MISS or SKIP."""
        return {True: "PASS", False: "MISS", None: "SKIP"}[self.holds]

    def line(self) -> str:
        """The line that is printed.

        >>> Target(name="ratio", figure="0.9x", target="at least 0.85x", holds=True).line()
        'PASS ratio: 0.9x (target at least 0.85x)'
        """
        return f"{self.verdict} {self.name}: {self.figure} (target {self.target})"


def at_least(name: str, value: float, bound: float, unit: str = "", digits: int = 2) -> Target:
    """A target that a figure must reach."""
    return Target(
        name=name,
        figure=f"{value:.{digits}f}{unit}",
        target=f"at least {bound:g}{unit}",
        holds=value >= bound,
    )


def at_most(name: str, value: float, bound: float, unit: str = "", digits: int = 2) -> Target:
    """A target that a figure must not exceed."""
    return Target(
        name=name,
        figure=f"{value:.{digits}f}{unit}",
        target=f"at most {bound:g}{unit}",
        holds=value <= bound,
    )


def skipped(name: str, target: str, absent: str) -> Target:
    """A target that could not be measured, and what was absent."""
    return Target(name=name, figure=absent, target=target, holds=None)


def finish(command: str, targets: Iterable[Target], details: Mapping[str, Any]) -> int:
    """Print the targets, write ``results/COMMAND.json``, and return the exit status.

    Args:
        command: name of the make target.
        targets: what must hold.
        details: everything measured, as JSON.
    """
    listed = list(targets)
    RESULTS.mkdir(exist_ok=True)
    report = {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}",
        "targets": [{"verdict": each.verdict, **asdict(each)} for each in listed],
        "details": details,
    }
    path = RESULTS / f"{command}.json"
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")
    for each in listed:
        sys.stdout.write(each.line() + "\n")
    return int(any(each.holds is False for each in listed))
