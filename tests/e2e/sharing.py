"""What the workers of one run share: the cluster, work that is done once, and turns to be alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from xdist.scheduler import LoadScopeScheduling

_FIRST = "e2e"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
NAMESPACE = f"{_FIRST}-{WORKER}" if WORKER else _FIRST
"""Each worker's own: names, limits and probers of its tests meet nobody else's."""


def is_ours(namespace: str) -> bool:
    """Whether a namespace belongs to these tests, by whichever worker of whichever run."""
    return re.fullmatch(rf"{_FIRST}(-gw\d+)?", namespace) is not None


SHARED = "shared"
OWN_FLEETS = {
    "test_3_acts.py", "test_3_progressive.py", "test_3_refused.py", "test_4_router_containers.py",
}  # fmt: skip
ARGO_CD = "test_8_argocd.py"


def lane(nodeid: str) -> str:
    """Tests of the same lane follow each other in one worker.

    All are in the lane of the shared LLMDeployment but those that have one of their own.
    """
    path = PurePath(nodeid.partition("::")[0])
    if path.name in OWN_FLEETS or "rollouts" in path.parts:
        return nodeid
    return path.name if path.name == ARGO_CD else SHARED


class Lanes(LoadScopeScheduling):
    """Gives lanes to workers, the longest first.

    ``--dist loadgroup`` would do if pytest-xdist 3.8 still found its groups with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)


@contextlib.contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Waits for a turn: tests run beside each other, but never beside one that must be alone.

    Args:
        folder: the run's own, the same for all workers.
        alone: whether nothing else may happen in the cluster meanwhile.
    """
    with (folder / "turns").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def once(folder: Path, name: str, work: Callable[[], str]) -> str:
    """Does it, unless a worker of this run has done it; who comes in between waits for the end.

    Args:
        folder: the run's own, the same for all workers.
        name: of the work.
        work: is tried again by the next worker where it failed.

    Returns:
        What the work returned, whoever did it.
    """
    with (folder / f"{name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = folder / name
        if not done.exists():
            done.write_text(work())
        return done.read_text()
