"""``python -m tests.histories``: random histories by the thousand, or bugs planted among them."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import subprocess
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.histories import seeded
from tests.unit.planning.actions import ACTIONS
from tests.unit.planning.history import MODELS
from tests.unit.planning.test_histories import BEGINNINGS, Actions, play

LEAST_HISTORIES = 20_000
LEAST_CAUGHT = 0.95
NOTICED = 3
"""Exit status of a part with a history that failed."""
PART = 1000
"""Histories of one seed; each part is a process, as is each planted bug."""


def main() -> int:
    """Run it; the exit status is 1 when a history fails or a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--count", type=int, default=LEAST_HISTORIES, help="how many histories")
    parser.add_argument("--seed", type=int, default=0, help="of the first part")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeded", action="store_true", help="plant bugs and see them caught")
    parser.add_argument("--bug", action="append", help="only this seeded bug (repeatable)")
    parser.add_argument("--per-bug", type=int, default=2000, help="histories at most (2000)")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        return _part(arguments.seed, arguments.count, (arguments.bug or [None])[0])
    if arguments.seeded or arguments.bug:
        return _seeded(arguments)
    return _histories(arguments)


def _part(number: int, count: int, bug: str | None) -> int:
    """Run histories in this process; with a bug they end at the first that notices."""
    played = 0
    if bug is not None:
        seeded.plant(bug)

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if bug else [Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(
        actions=st.lists(ACTIONS, max_size=25), last=st.sampled_from(MODELS), beginning=BEGINNINGS
    )
    def run(actions: Actions, last: str, beginning: dict[str, int]) -> None:
        nonlocal played
        played += 1
        play(actions, last, **beginning)  # type: ignore[arg-type]

    try:
        run()
    except Exception as error:  # noqa: BLE001 - whatever a decision raises is a failure
        notes = "\n".join(getattr(error, "__notes__", ()))
        sys.stdout.write(f"{played} {type(error).__name__}: {error}\n{notes}\n")
        return NOTICED
    sys.stdout.write(f"{played}\n")
    return 0


def _start(number: int, count: int, bug: str | None = None) -> tuple[int, str]:
    """The exit status and output of a part in a process of its own."""
    command = [sys.executable, "-m", "tests.histories", "--part"]
    command += ["--seed", str(number), "--count", str(count), *(["--bug", bug] if bug else [])]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout or done.stderr[-2000:]


def _histories(arguments: argparse.Namespace) -> int:
    began, passed, failed = time.monotonic(), 0, 0
    parts = range(arguments.seed, arguments.seed + -(-arguments.count // PART))
    size = min(PART, arguments.count)
    with concurrent.futures.ThreadPoolExecutor(arguments.processes) as pool:
        for number, (code, said) in zip(
            parts, pool.map(lambda number: _start(number, size), parts), strict=True
        ):
            passed += size * (code == 0)
            failed += code != 0
            sys.stdout.write(f"seed {number}: {said if code else 'ok'}; {passed} passed\n")
            sys.stdout.flush()
    word = "PASS" if not failed and passed >= min(arguments.count, LEAST_HISTORIES) else "MISS"
    seconds = round(time.monotonic() - began)
    sys.stdout.write(f"{word} histories: {passed} passed, {failed} failures in {seconds} s\n")
    return 0 if word == "PASS" else 1


def _seeded(arguments: argparse.Namespace) -> int:
    names = arguments.bug or sorted(seeded.BUGS)
    caught = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.processes) as pool:
        found = pool.map(lambda name: _start(arguments.seed, arguments.per_bug, name), names)
        for name, (code, said) in zip(names, found, strict=True):
            lines = said.splitlines()
            caught += code == NOTICED
            word = (
                f"caught by history {lines[0]}" if code == NOTICED else f"not caught {lines[-1:]}"
            )
            sys.stdout.write(f"{name}: {word[:150]}\n")
            sys.stdout.flush()
    word = "PASS" if caught >= LEAST_CAUGHT * len(names) else "MISS"
    sys.stdout.write(f"{word} seeded: {caught} of {len(names)}\n")
    return 0 if word == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())
