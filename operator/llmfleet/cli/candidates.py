"""What a word on the command line may become: names and revisions, asked of the cluster.

Someone waits for a key press: a cluster that does not answer in time completes nothing, and so does
one that refuses, without a word on the terminal.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

import typer
from rich.markup import escape

from llmfleet.api import clean_line
from llmfleet.api.deployment import LLMDeployment
from llmfleet.cli import annotating
from llmfleet.cli.access import Cluster

LONGEST_WAIT_SECONDS: Final = 2.0

Candidates = list[tuple[str, str]]
"""Each with what a shell shows beside it."""
Complete = Callable[[typer.Context, str], Candidates]


def names(context: typer.Context, incomplete: str) -> Candidates:
    """LLMDeployments of the namespace, with their phases."""

    def ask() -> Iterable[tuple[str, str]]:
        for each in _cluster(context).list(everywhere=False):
            phase = (each.get("status") or {}).get("phase")
            yield each["metadata"]["name"], phase or "Unknown"

    return _in_time(ask, incomplete)


def retryable(context: typer.Context, incomplete: str) -> Candidates:
    """Revisions that ``retry`` may name, with why they went back."""
    return _in_time(lambda: annotating.retryable(_named(context)).items(), incomplete)


def under_way(context: typer.Context, incomplete: str) -> Candidates:
    """The revision that ``promote`` and ``abort`` may name, with its phase."""
    return _in_time(lambda: _rising(_named(context)), incomplete)


def kept(context: typer.Context, incomplete: str) -> Candidates:
    """Revisions that ``undo`` may name, with their images."""
    return _in_time(
        lambda: [(each.hash, each.image or "kept") for each in annotating.kept(_named(context))],
        incomplete,
    )


def _rising(deployment: LLMDeployment) -> list[tuple[str, str]]:
    rollout, phase = deployment.status.rollout, deployment.status.phase
    if rollout is None or rollout.revision is None or rollout.aborted is not None:
        return []
    return [(rollout.revision, phase or "begun")]


def _named(context: typer.Context) -> LLMDeployment:
    """The LLMDeployment named earlier on the command line; IndexError without one."""
    # typer leaves arguments unassigned while an option before them waits for its value.
    name = context.params["name"] or context.args[0]
    return _cluster(context).get(name)[1]


def _cluster(context: typer.Context) -> Cluster:
    before = context.find_root().params
    return Cluster(before.get("context"), before.get("namespace"))


def _in_time(ask: Callable[[], Iterable[tuple[str, str]]], incomplete: str) -> Candidates:
    """What was found within ``LONGEST_WAIT_SECONDS`` and begins with ``incomplete``.

    typer reads markup in what stands beside a candidate.
    """
    logging.disable()  # urllib3 tells of every try
    found: Candidates = []

    def look() -> None:
        # Besides the cluster's refusals: a name that is not there yet, a login that fails.
        with contextlib.suppress(Exception):
            read = ((clean_line(each), escape(clean_line(beside))) for each, beside in ask())
            found.extend(each for each in read if each[0].startswith(incomplete))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(LONGEST_WAIT_SECONDS)
    return list(found)
