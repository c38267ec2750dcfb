"""Plays acts in the middle of rollouts on the local cluster (see the package)."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from hack.bench.report import RESULTS, Target, finish
from hack.cluster.local import LocalCluster
from hack.cluster.settings import read_settings
from hack.kube import chart, local, models
from hack.kube.kubectl import KubectlError, NotInTimeError, delete

from tests.acts.arena import STRATEGIES, Arena, Strategy
from tests.acts.history import following
from tests.acts.playing import Played, play, prober, unique
from tests.acts.scenarios import SCENARIOS
from tests.e2e.stub import StubFleet
from tests.zerolost import rig
from tests.zerolost.journal import Journal, keeping_logs, watching

JSON = dict[str, Any]
NAMESPACE = "acts"
RATE = 20.0
FOLDER = RESULTS / "acts"
HOLDS = "0 failed, a rejected revision never gains, the end as asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    strategies: tuple[Strategy, ...]
    scenarios: tuple[str, ...]
    rate: float


def parse() -> Wanted:
    """Reads the command line."""
    told = "\n".join(f"  {name:12} {what.__doc__}" for name, what in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="tests.acts", description=__doc__, epilog=f"scenarios:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--strategy", choices=list(STRATEGIES), nargs="+", help="default: both")
    parser.add_argument("--scenario", choices=list(SCENARIOS), nargs="+", help="default: all")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second")
    given = parser.parse_args()
    return Wanted(
        strategies=tuple(STRATEGIES[name] for name in given.strategy or STRATEGIES),
        scenarios=tuple(given.scenario or SCENARIOS),
        rate=given.rate,
    )


def say(text: str) -> None:
    """Progress, on stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


class Run:
    """The scenarios of one strategy, one after the other, in one fleet as long as all goes well.

    So releases pile up as they do in life: some served before, some rejected.
    """

    def __init__(self, wanted: Wanted, strategy: Strategy, images: chart.Images) -> None:
        self._wanted, self._strategy, self._images = wanted, strategy, images
        self._cluster = LocalCluster(read_settings())
        self._engine = rig.stub_image(self._cluster)
        self._left = list(wanted.scenarios)
        self.targets: list[Target] = []
        self.details: list[JSON] = []

    def measure(self) -> None:
        """Plays all; after a scenario that does not end, the others begin in a new fleet."""
        while self._left:
            fleet = StubFleet(unique(self._strategy.name.lower()), NAMESPACE, self._engine)
            say(f"{self._strategy.name}: fleet {fleet.name} …")
            try:
                self._play_in(fleet)
            except (KubectlError, NotInTimeError) as error:
                self._add(self._left.pop(0), f"{error}; {fleet.describe()}"[:600], holds=False)
            finally:
                fleet.delete()
                delete("configmap", f"{fleet.name}-llmfleet-memory", NAMESPACE)

    def _play_in(self, fleet: StubFleet) -> None:
        folder, fit = FOLDER / fleet.name, True
        with ExitStack() as stack:
            logs = self._cluster.settings.state / "pod-logs"
            stack.enter_context(keeping_logs(logs, folder / "logs", NAMESPACE, chart.NAMESPACE))
            stack.enter_context(watching(Journal(folder / "journal.txt"), NAMESPACE))
            history = stack.enter_context(following(fleet, folder / "statuses.jsonl"))
            probe = prober(fleet, self._images.router)
            arena = Arena(fleet=fleet, strategy=self._strategy, history=history, probe=probe)
            arena.start()
            while self._left and fit:
                say(f"{self._strategy.name}, {self._left[0]}: {SCENARIOS[self._left[0]].__doc__}")
                played = play(arena, self._left[0], rate=self._wanted.rate)
                played.write(folder / f"{played.name}.json")
                self._judged(self._left.pop(0), played)
                fit = played.ended

    def _judged(self, scenario: str, played: Played) -> None:
        self._add(scenario, played.figure(), holds=not played.problems)
        self.details.append({"strategy": self._strategy.name, **asdict(played)})

    def _add(self, scenario: str, figure: str, *, holds: bool) -> None:
        name = f"acts, {self._strategy.name}, {scenario}"
        self.targets.append(Target(name=name, figure=figure, target=HOLDS, holds=holds))
        say(self.targets[-1].line())


def main() -> int:
    """Runs what is asked for; the exit status is 1 when anything was not as it must be."""
    wanted = parse()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    local.enter()
    images = local.images()
    shutil.rmtree(FOLDER, ignore_errors=True)
    chart.install(images)
    models.ensure(NAMESPACE, images.runtime)
    targets: list[Target] = []
    details: list[JSON] = []
    for strategy in wanted.strategies:
        run = Run(wanted, strategy, images)
        run.measure()
        targets += run.targets
        details += run.details
    return finish("test-acts", targets, {"played": details})


if __name__ == "__main__":
    sys.exit(main())
