"""Envoy's own verdict on a configuration."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llmfleet_router.envoy import find_envoy
from tests.xds.cases import Case
from tests.xds.rendering import render, static_bootstrap

JSON = dict[str, Any]


def refusal(bootstrap: JSON, directory: Path) -> str | None:
    """Why Envoy refuses it, or None when ``envoy --mode validate`` accepts it."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=directory) as file:
        json.dump(bootstrap, file)
        file.flush()
        command = [find_envoy(), "--mode", "validate", "--log-level", "error", "-c", file.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = (done.stderr + done.stdout)[-1500:]
    return None if done.returncode == 0 else f"exit {done.returncode}: {said}"


def refused_cases(
    cases: Sequence[Case],
    directory: Path,
    *,
    batch: int = 25,
    report: Callable[[int, int], None] = lambda judged, refused: None,
) -> list[tuple[Case, str]]:
    """The cases that Envoy refuses, each with its words.

    Args:
        cases: what is rendered.
        directory: for files.
        batch: renderings that share one Envoy; those of a refused batch are judged one by one.
        report: called after each batch with the cases judged and refused so far.
    """
    found: list[tuple[Case, str]] = []

    def judge(group: Sequence[Case]) -> list[tuple[Case, str]]:
        rendered = [render(case, directory) for case in group]
        together = refusal(static_bootstrap(rendered), directory)
        if together is None:
            return []
        alone = [refusal(static_bootstrap([each]), directory) for each in rendered]
        guilty = [(case, words) for case, words in zip(group, alone, strict=True) if words]
        return guilty or [(group[0], f"its batch is refused, none of it is alone: {together}")]

    groups = [cases[start : start + batch] for start in range(0, len(cases), batch)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, refused in enumerate(pool.map(judge, groups), start=1):
            found += refused
            report(min(number * batch, len(cases)), len(found))
    return found
