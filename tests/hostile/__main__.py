"""``make test-hostile``: 100,000 hostile requests at a real router."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from hack.bench.report import Target, at_most, finish

from tests.hostile.campaign import Report, run

FLAT: float = 1.10
"""Growth after the warm-up that still counts as flat: allocators keep some fragments."""


def main() -> int:
    """Attack, print a table of answers and the targets; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="requests")
    parser.add_argument("--seed", type=int, default=0, help="of the random requests")
    chosen = parser.parse_args()
    started = time.monotonic()

    def progress(sent: int) -> None:
        if sent % 5000 == 0:
            print(
                f"  {sent} of {chosen.count} after {time.monotonic() - started:.0f} s", flush=True
            )

    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(run(Path(directory), chosen.count, chosen.seed, progress=progress))
    _print_answers(report)
    targets = [
        Target(
            name="answers that are not documented",
            figure=f"{len(report.outcome.wrong)} of {report.outcome.sent} requests",
            target="0 of at least 100000",
            holds=not report.outcome.wrong and report.outcome.sent >= 100_000,
        ),
        Target(
            name="requests an engine should not have seen",
            figure=f"{len(report.engine_trouble)} of {report.reached_engine} that reached one",
            target="0",
            holds=not report.engine_trouble and report.reached_engine > 0,
        ),
        Target(
            name="crashes",
            figure="none, and a plain request is answered" if report.alive else "it is down",
            target="none",
            holds=report.alive,
        ),
        at_most("memory of Envoy after warm-up", report.growth("envoy"), FLAT, "x"),
        at_most("memory of the agent after warm-up", report.growth("agent"), FLAT, "x"),
    ]
    details = {
        "seed": chosen.seed,
        "seconds": round(time.monotonic() - started),
        "answers": {f"{kind}: {s}": n for (kind, s), n in sorted(report.outcome.answers.items())},
        "wrong": report.outcome.wrong[:50],
        "engine": report.engine_trouble[:50],
        "resident_bytes": report.memory,
    }
    return finish("test-hostile", targets, details)


def _print_answers(report: Report) -> None:
    by_kind: dict[str, list[str]] = defaultdict(list)
    for (kind, status), count in sorted(report.outcome.answers.items()):
        by_kind[kind].append(f"{status or 'none'}: {count}")
    for kind, counts in by_kind.items():
        print(f"  {kind:18} {', '.join(counts)}")
    for wrong in [*report.outcome.wrong[:20], *report.engine_trouble[:20]]:
        print(f"  wrong: {wrong}")
    for process, samples in report.memory.items():
        print(f"  {process}: {samples[0] / 2**20:.0f} … {samples[-1] / 2**20:.0f} MiB")


if __name__ == "__main__":
    raise SystemExit(main())
