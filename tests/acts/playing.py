"""Plays one scenario under load, and says what was wrong with it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hack.kube.kubectl import NotInTimeError, kubectl

from tests.acts.arena import Arena
from tests.acts.history import Seen
from tests.acts.oracles import judge_clients, judge_statuses
from tests.acts.scenarios import SCENARIOS, Ending
from tests.e2e.prober import Prober
from tests.e2e.stub import StubFleet
from tests.zerolost.rig import ENGINES
from tests.zerolost.rig import SCRIPT as LOAD

JSON = dict[str, Any]
WAIT_SECONDS = 240
"""Longest that a client waits for engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A scenario, and what was seen of it."""

    name: str
    ended: bool
    """Whether it came to the end that was asked for; else the fleet is not fit for another."""
    statuses: int
    """Versions of the resource that were read."""
    counts: JSON
    """The prober's final ones."""
    losses: list[JSON]
    """The requests that were lost, one by one."""
    note: str
    problems: list[str]
    """Every rule that was broken, as a sentence; none in a good run."""

    def figure(self) -> str:
        """What was measured, in a line."""
        counts = self.counts
        waits = f", {counts['waits']} waits at zero replicas" if counts["waits"] else ""
        text = (
            f"{counts['failed']} failed and {counts['truncated']} cut of {counts['sent']}{waits};"
            f" {self.statuses} statuses"
        )
        if self.note:
            text += f"; {self.note}"
        return "; ".join((text, *self.problems))

    def write(self, path: Path) -> None:
        """The whole of it, as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def prober(fleet: StubFleet, image: str) -> Prober:
    """Clients that wait while there are no engines; not started yet."""
    tokens = ENGINES["stub"].tokens
    environment = {"TOKENS": str(tokens), "LONG_TOKENS": "100", "WAIT_SECONDS": str(WAIT_SECONDS)}
    return Prober(
        fleet.namespace, fleet.name, fleet.model, image, script=LOAD, environment=environment
    )


def play(arena: Arena, scenario: str, *, rate: float) -> Played:
    """A third release is half way up, the scenario is played, and everything is judged.

    Args:
        arena: started, with one release served and another one kept.
        scenario: by name.
        rate: requests a second.

    Raises:
        NotInTimeError: the load did not start or end.
        KubectlError: the cluster refused something.
    """
    first = len(arena.history.seen) - 1
    ending, problems = Ending(served=""), []
    arena.probe.start(rate)
    try:
        try:
            arena.release()
            ending = SCENARIOS[scenario](arena)
            arena.settle(ending.served, ending.phase)
            arena.probe.wait_for_successes(20)
        except NotInTimeError as error:
            problems.append(str(error))
        counts = arena.probe.stop()
        losses = _losses(arena.probe)
    finally:
        arena.probe.remove()
    ended, seen = not problems, arena.history.seen[first:]
    problems += judge_statuses(seen)
    if ended:
        problems += [ending.problem] if ending.problem else []
        problems += [*judge_clients(counts, ending.pause), *_judge_end(seen[0], seen[-1], ending)]
    if arena.history.gaps:
        problems.append("the watch had a gap: statuses may be missing")
    return Played(
        name=scenario, ended=ended, statuses=len(seen), counts=counts, losses=losses,
        note=ending.note, problems=problems,
    )  # fmt: skip


def _judge_end(before: Seen, last: Seen, ending: Ending) -> Iterator[str]:
    """Only what was asked for is rejected, and the condition says whether spec was left."""
    fresh = {name: why for name, why in last.rejected.items() if name not in before.rejected}
    if fresh != (ending.rejected or {}):
        yield f"rejected are {fresh}, and should be {ending.rejected or {}}"
    told = last.condition("RolledBack").get("status") == "True"
    if told != (ending.phase == "Degraded"):
        yield f"RolledBack is {told} in phase {last.phase}"


def _losses(probe: Prober) -> list[JSON]:
    text = kubectl("logs", probe.pod, "-n", probe.namespace)
    lines = (line for line in text.splitlines() if line.startswith('{"loss"'))
    return [json.loads(line)["loss"] for line in lines]


def unique(name: str) -> str:
    """A name not used before: what is rejected stays so under a name."""
    return f"{name}-{time.time_ns() // 10**9 % 10**6}"
