"""A fleet in which one release is served, an earlier one is kept, and a third is half way up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hack.kube.kubectl import NotInTimeError

from tests.acts.history import History, Seen
from tests.e2e.prober import Prober
from tests.e2e.stub import StubFleet, pod_template

JSON = dict[str, Any]
START_SECONDS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How releases are rolled out, and where they stop for a person."""

    name: str
    replicas: int
    share: int
    """Percent of the traffic that the third release has where it stops."""
    returns_slowly: bool
    """Whether going back needs another pod, so that another act can meet it on its way."""
    rollout: JSON


def canary(*, replicas: int, share: int) -> Strategy:
    """One weight, then a person is asked.

    Args:
        replicas: of the fleet, which may have one pod more in a rollout.
        share: percent at which a release stops.
    """
    beside = replicas + 1 - -(-replicas * share // 100)
    return Strategy(
        name="Canary", replicas=replicas, share=share, returns_slowly=beside < replicas,
        rollout={
            "strategy": "Canary", "maxSurge": 1, "scaleDownDelay": "1s",
            "steps": [{"setWeight": share}, {"pause": {}}],
        },
    )  # fmt: skip


def blue_green(*, replicas: int) -> Strategy:
    """A whole second set beside the served one, and a person is asked."""
    return Strategy(
        name="BlueGreen", replicas=replicas, share=0, returns_slowly=False,
        rollout={
            "strategy": "BlueGreen", "scaleDownDelay": "1s",
            "blueGreen": {"promotion": "Manual"},
        },
    )  # fmt: skip


# Two of three pods within a surge of one leave the served release two, which carry 66 % at once:
# the rest of the way back waits for a third to start, and another act can meet it there.
STRATEGIES: Mapping[str, Strategy] = {
    each.name: each for each in (canary(replicas=3, share=66), blue_green(replicas=2))
}


@dataclass(slots=True, kw_only=True)
class Arena:
    """The fleet, what is released there, and what has been seen of it."""

    fleet: StubFleet
    strategy: Strategy
    probe: Prober
    history: History
    versions: dict[str, str] = field(default_factory=dict)
    """By revision, what its release was made of."""
    kept: str = ""
    """A revision that was served earlier."""
    served: str = ""
    rising: str = ""
    """The revision half way up."""
    middle: Seen | None = None
    """The status when it stopped there."""

    def start(self) -> None:
        """The first release is served, and then the second one."""
        first = self.fleet.start(self.strategy.rollout, replicas=self.strategy.replicas)
        self.versions[first] = "1"
        self.settle(first, "Healthy")
        self.release()
        self.promote()
        self.settle(self.rising, "Healthy")

    def release(self) -> None:
        """The next release, up to where it stops; who is served and who is kept is noted."""
        served = self.history.seen[-1].served
        self.kept, self.served = self._kept(served), served
        version = str(len(self.versions) + 1)
        self.rising = self.fleet.release(version)
        self.versions[self.rising] = version
        self.middle = self.wait_for_the_middle()

    def wait_for_the_middle(self, *, after: int = -1) -> Seen:
        """The third release stands where a person is asked, in an attempt later than ``after``."""

        def holds(seen: Seen) -> bool:
            rollout = seen.rollout
            there = seen.traffic.get(self.rising, 0) == self.strategy.share
            if self.strategy.name == "BlueGreen":
                there = there and seen.routing.get("preview") == self.rising
            going = rollout.get("revision") == self.rising and rollout.get("state") == "Forward"
            later = going and rollout.get("id", 0) > after
            return seen.current and seen.phase == "Paused" and there and later

        what = f"{self.rising} to wait for a person at {self.strategy.share} %"
        return self.history.wait_for(what, holds, timeout_seconds=START_SECONDS)

    def act(self, act: str, revision: str) -> Seen:
        """Annotates, and waits until the operator has handled it; the status before that one.

        Raises:
            NotInTimeError: it was refused, or not handled in time.
        """
        value = f"{revision}@{time.time_ns()}"
        self.fleet.act(act, value)
        told = self.history.wait_for(
            f"{act} {value} to be handled", lambda seen: seen.handled.get(act) == value,
            timeout_seconds=30,
        )  # fmt: skip
        refused = told.condition("ActRefused")
        if value in refused.get("message", ""):
            raise NotInTimeError(f"{act} of {value} was refused: {refused['message']}")
        seen = self.history.seen
        index = next(i for i, one in enumerate(seen) if one.handled.get(act) == value)
        return seen[max(0, index - 1)]

    def promote(self) -> None:
        """All steps of the release half way up are ended."""
        self.act("promote", f"{self.rising}/full")

    def revert(self) -> None:
        """Spec asks for what is served again."""
        self.fleet.patch({"podTemplate": pod_template(self.versions[self.served])})

    def settle(self, served: str, phase: str) -> Seen:
        """Waits until a revision has everything, in this phase, and only its pods are left."""
        found = self.history.wait_for(
            f"{served} to serve alone, {phase}",
            lambda seen: (
                seen.current
                and (seen.served, seen.phase) == (served, phase)
                and seen.traffic == {served: 100}
                and not seen.rollout
            ),
            timeout_seconds=START_SECONDS,
        )
        self.fleet.wait_for_engines(self.strategy.replicas)
        return found

    def _kept(self, served: str) -> str:
        """The revision served last before, if it is one that may be undone to."""
        last = self.history.seen[-1]
        promoted = [
            (one["promotedAt"], one["hash"])
            for one in last.status.get("revisions", ())
            if one.get("promotedAt") and one["hash"] not in {served, *last.rejected}
        ]
        return max(promoted)[1] if promoted else ""
