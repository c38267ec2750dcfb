"""``make test-xds``: Envoy judges what is rendered from 10,000 random valid resources."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog
from hack.bench.report import Target, finish

from tests.xds.drawing import draw_cases
from tests.xds.envoy import refusal, refused_cases
from tests.xds.rendering import render, static_bootstrap
from tests.xds.seeded import CASE, MISTAKES, with_mistake


def main() -> int:
    """Draw, render, judge, report; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.xds", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="random resources")
    parser.add_argument("--seed", type=int, default=0, help="of the random resources")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        missed = _missed(directory)
        print(f"drawing {chosen.count} resources …", flush=True)
        drawn = draw_cases(chosen.count, chosen.seed)
        refused = refused_cases(drawn, directory, report=_report)
    for case, words in refused[:5]:
        print(f"refused: {case}\n{words}", file=sys.stderr)
    shapes = Counter(len(case.status.get("traffic") or ()) for case in drawn)
    targets = [
        Target(
            name="configurations that Envoy refuses",
            figure=f"{len(refused)} of {len(drawn)}",
            target="0 of at least 10000",
            holds=not refused and len(drawn) >= 10_000,
        ),
        Target(
            name="seeded mistakes that Envoy catches",
            figure=f"{len(MISTAKES) - len(missed)} of {len(MISTAKES)} {' '.join(missed)}".strip(),
            target="all",
            holds=not missed,
        ),
    ]
    details = {
        "seed": chosen.seed,
        "seconds": round(time.monotonic() - started),
        "resources_by_revisions_in_traffic": dict(sorted(shapes.items())),
        "refused": [{"case": str(case), "envoy": words} for case, words in refused[:20]],
    }
    return finish("test-xds", targets, details)


def _report(judged: int, refused: int) -> None:
    if judged % 500 == 0:
        print(f"  {judged} judged, {refused} refused", flush=True)


def _missed(directory: Path) -> list[str]:
    sound = render(CASE, directory)
    if words := refusal(static_bootstrap([sound] * 3), directory):
        return [f"the case without a mistake was refused: {words}"]
    # In the middle of a batch, as the random ones are judged.
    broken = ((each, [sound, with_mistake(sound, each), sound]) for each in MISTAKES)
    return [
        each.__name__.lstrip("_")
        for each, batch in broken
        if refusal(static_bootstrap(batch), directory) is None
    ]


if __name__ == "__main__":
    raise SystemExit(main())
