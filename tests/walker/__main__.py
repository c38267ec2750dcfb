"""``python -m tests.walker``: every leaf of the CRD's schema, on a real API server."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hack.bench.report import Target, finish
from hack.controlplane.apiserver import running_api_server
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults.campaign import world
from tests.walker.forging import walk_status
from tests.walker.leaves import leaves, section_schema
from tests.walker.walk import Visit, walk_all

LANES = 6
PATHS = 40


def main() -> int:
    """Run it; the exit status is 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.walker", description=__doc__)
    parser.add_argument("--only", default="", help="leaves whose path contains this")
    parser.add_argument("--lanes", type=int, default=LANES, help="operators at once")
    parser.add_argument(
        "--paths", type=int, default=PATHS, help="random paths against fresh starts"
    )
    parser.add_argument("--examples", action="store_true", help="one valid value per leaf only")
    parser.add_argument("--status", action="store_true", help="forge the status only")
    parser.add_argument("--seed", type=int, default=0, help="of the random paths")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="llmfleet-walker-"))
    with running_api_server(folder / "api") as server:
        server.install_crd()
        return asyncio.run(_run(server, folder, arguments))


async def _run(server: Any, folder: Path, arguments: argparse.Namespace) -> int:
    root, status = section_schema("spec"), section_schema("status")
    chosen = [leaf for leaf in leaves(root) if arguments.only in str(leaf)]
    forged = [leaf for leaf in leaves(status) if arguments.only in str(leaf)]
    if arguments.status:
        chosen = []
    paths = 0 if arguments.only or arguments.status else arguments.paths
    started = time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    async with world(server, folder) as shared:
        with Progress(*columns) as progress:
            bar = progress.add_task("walk", total=len(chosen) + paths + len(forged))

            def report(visit: Visit) -> None:
                progress.advance(bar)
                for alarm in visit.alarms:
                    progress.console.print(f"ALARM {alarm}", markup=False)

            walked = await walk_all(
                shared,
                root,
                chosen,
                lanes=arguments.lanes,
                paths=paths,
                edges=not arguments.examples,
                seed=arguments.seed,
                report=report,
            )
            lied = await walk_status(shared, root, forged, lanes=arguments.lanes, report=report)
    return _tell(walked, lied, len(chosen), len(forged), time.monotonic() - started)


def _tell(
    walked: list[Visit], lied: list[Visit], leaf_count: int, forged_count: int, seconds: float
) -> int:
    on_leaves = [visit for visit in walked if " → " not in visit.name]
    alarms = [alarm for visit in (*walked, *lied) for alarm in visit.alarms]
    reached = sum(visit.accepted for visit in on_leaves)
    targets = [
        Target(
            name="leaf properties of spec reached with an accepted value",
            figure=f"{reached} of {leaf_count}",
            target="100 %",
            holds=reached == leaf_count,
        ),
        Target(
            name="leaf properties of status forged",
            figure=f"{sum(visit.accepted for visit in lied)} of {forged_count}",
            target="100 %",
            holds=sum(visit.accepted for visit in lied) == forged_count,
        ),
        Target(
            name="unexplained alarms",
            figure=f"{len(alarms)} after {sum(one.values for one in (*walked, *lied))} values"
            f" in {seconds:.0f} s",
            target="0",
            holds=not alarms,
        ),
    ]
    sys.stdout.write("".join(f"ALARM {alarm}\n" for alarm in alarms))
    details = {
        "alarms": alarms,
        "visits": {visit.name: visit.values for visit in (*walked, *lied)},
    }
    return finish("test-walker", targets, details)


if __name__ == "__main__":
    raise SystemExit(main())
