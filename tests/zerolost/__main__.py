"""Loads a fleet while parts of the cluster are killed; counts every request (see the package)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from hack.bench.report import RESULTS, Target, finish
from hack.cluster.local import LocalCluster
from hack.cluster.settings import read_settings
from hack.kube import chart, local
from hack.kube.kubectl import KubectlError, NotInTimeError, kubectl

from tests.e2e.fleet import Fleet
from tests.e2e.prober import Prober
from tests.zerolost import rig
from tests.zerolost.journal import Journal, keeping_logs, watching
from tests.zerolost.scenarios import SCENARIOS, EnginesKilled, Scenario

JSON = dict[str, Any]
SETTLE_SECONDS = 5
RECOVERY_SECONDS = 30
"""Load goes on for so long after the trouble: what comes back must not lose anything either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    engine: str
    scenarios: tuple[type[Scenario], ...]
    requests: int
    rate: float


def parse() -> Wanted:
    """Reads the command line."""
    names = [each.name for each in SCENARIOS]
    usual = [each.name for each in SCENARIOS if not each.extra]
    parser = argparse.ArgumentParser(prog="tests.zerolost", description=__doc__)
    parser.add_argument("--engine", choices=sorted(rig.ENGINES), default="stub")
    parser.add_argument(
        "--scenario", choices=names, default=usual, nargs="+", help=f"default: {' '.join(usual)}"
    )
    parser.add_argument("--requests", type=int, help="fewest requests of each scenario")
    parser.add_argument("--rate", type=float, help="requests per second")
    given = parser.parse_args()
    engine = rig.ENGINES[given.engine]
    return Wanted(
        engine=given.engine,
        scenarios=tuple(each for each in SCENARIOS if each.name in given.scenario),
        requests=given.requests or engine.requests,
        rate=given.rate or engine.rate,
    )


def say(text: str) -> None:
    """Progress, on stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


class Run:
    """One scenario under load."""

    def __init__(self, wanted: Wanted, kind: type[Scenario], fleet: Fleet, probe: Prober) -> None:
        self.folder = RESULTS / "zero-lost" / f"{wanted.engine}-{kind.name}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.journal = Journal(self.folder / "journal.txt")
        self.cluster = LocalCluster(read_settings())
        self.scenario = kind(fleet, self.cluster, self.journal)
        self._wanted, self._probe, self._fleet = wanted, probe, fleet

    def measure(self) -> JSON:
        """Runs it and returns the prober's final counts, each loss with what happened then."""
        with ExitStack() as stack:
            namespaces = (self._fleet.namespace, chart.NAMESPACE)
            logs = self.cluster.settings.state / "pod-logs"
            stack.enter_context(keeping_logs(logs, self.folder / "logs", *namespaces))
            stack.enter_context(watching(self.journal, self._fleet.namespace))
            stack.callback(self._probe.remove)
            self._probe.start(self._wanted.rate)
            time.sleep(SETTLE_SECONDS)
            turns = self._trouble()
            time.sleep(RECOVERY_SECONDS)
            while self._sent() < self._wanted.requests:
                self._progress("after it")
                time.sleep(5)
            counts = self._probe.stop()
            losses = self._losses()
        for loss in losses:
            loss["cluster"] = self.journal.around(loss["ended"])
        counts |= {"scenario": self.scenario.name, "engine": self._wanted.engine, "turns": turns}
        counts["losses"] = losses
        (self.folder / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")
        return counts

    def _trouble(self) -> int:
        turns = 0
        try:
            self.scenario.begin()
            while turns < self.scenario.turns or self._more_wanted():
                self.scenario.turn()
                turns += 1
                self._progress(f"turn {turns}")
        finally:
            self.scenario.end()
        return turns

    def _losses(self) -> list[JSON]:
        text = kubectl("logs", self._probe.pod, "-n", self._probe.namespace)
        lines = (line for line in text.splitlines() if line.startswith('{"loss"'))
        return [json.loads(line)["loss"] for line in lines]

    def _more_wanted(self) -> bool:
        return self.scenario.repeats and self._sent() < self._wanted.requests

    def _sent(self) -> int:
        return int(self._counts().get("sent", 0))

    def _counts(self) -> JSON:
        try:
            counts = self._probe.counts()
        except KubectlError:  # the API server is down
            return {}
        return counts if "sent" in counts else {}  # the last line may be a loss

    def _progress(self, when: str) -> None:
        counts = self._counts()
        if counts:
            say(
                f"{self.scenario.name}, {when}: {counts['sent']} sent, {counts['failed']} failed, "
                f"{counts['truncated']} truncated"
            )


def target(kind: type[Scenario], counts: JSON, wanted: Wanted) -> Target:
    """None lost, of as many requests as were asked for, each of them accounted for.

    In the control it is the other way round: the prober must notice.
    """
    lost = counts["failed"] + counts["truncated"]
    all_counted = counts["sent"] == counts["succeeded"] + lost
    enough = all_counted and counts["sent"] >= wanted.requests
    return Target(
        name=f"zero lost, {wanted.engine}, {kind.target}",
        figure=f"{counts['failed']} failed and {counts['truncated']} truncated of "
        f"{counts['sent']} ({counts['streams']} streams, {counts['new_connections']} on new "
        f"connections, {counts['sent'] / counts['seconds']:.0f}/s, "
        f"slowest {counts['slowest_seconds']:.1f} s)",
        target="some" if kind.loses else f"0 of at least {wanted.requests}",
        holds=enough and (lost > 0 if kind.loses else lost == 0),
    )


def main() -> int:
    """Runs what is asked for; the exit status is 1 when anything was lost."""
    wanted = asked = parse()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    local.enter()
    images = local.images()
    say(f"a fleet with {wanted.engine} …")
    fleet = Fleet(rig.NAME, rig.namespace(wanted.engine))
    targets, details = [], []
    try:
        rig.start_fleet(fleet, wanted.engine, LocalCluster(read_settings()), images)
        for kind in wanted.scenarios:
            wanted = replace(asked, requests=asked.requests // (10 if kind.loses else 1))
            say(f"{kind.name}: {wanted.requests} requests at {wanted.rate:g}/s")
            # The control loses what is under way: with short answers that is nothing, often enough.
            probe = rig.prober(wanted.engine, fleet, images, long=kind.loses)
            counts = Run(wanted, kind, fleet, probe).measure()
            targets.append(target(kind, counts, wanted))
            details.append(counts)
            say(targets[-1].line())
            if counts["losses"]:
                say(json.dumps(counts["losses"][:2], indent=1))
    except (KubectlError, NotInTimeError) as error:
        say(f"error: {error}")
        name = f"zero lost, {wanted.engine}: every scenario runs to its end"
        targets.append(Target(name=name, figure=str(error)[:200], target="yes", holds=False))
    finally:
        fleet.delete()
    counted = [run for run in details if run["scenario"] != EnginesKilled.name]
    sent = sum(run["sent"] for run in counted)
    lost = sum(run["failed"] + run["truncated"] for run in counted)
    say(f"in all, the control aside: {lost} lost of {sent}")
    whole = {each for each in SCENARIOS if not each.extra} <= set(asked.scenarios)
    suffix = "" if whole else f"-{asked.scenarios[0].name}"
    return finish(f"test-zero-lost-{asked.engine}{suffix}", targets, {"runs": details})


if __name__ == "__main__":
    sys.exit(main())
