"""Statuses that no operator of ours has written: by hand, or by a newer one.

Each is a canary in a timed pause with one thing in its status changed. Runs with November's code
only, by ``record``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.unit.planning.canaries import at_share, canary, started
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.recorded.forward import TIMED

EXPECTED = (
    "held: children and traffic unchanged, a condition says so, nothing is promoted, no weight"
    " gained"
)
NOBODY = "ffffffffff"
"""A hash that no revision has."""


@dataclass(frozen=True, kw_only=True)
class Forgery:
    """One change of a status."""

    about: str
    word: str
    """What the condition Ready must name; for a newer schema, which gets no status, an event."""
    change: Callable[[Any, str, str], None]
    """Given the status and the hashes of the served revision and of the canary."""


def mid_canary() -> tuple[Fleet, str, str]:
    world, old, new = started(canary(TIMED))
    at_share(world, new, 25)
    return world, old, new


def _shares(old: int, new: int) -> Callable[[Any, str, str], None]:
    def change(status: Any, served: str, target: str) -> None:
        pairs = sorted(((served, old), (target, new)))
        status["traffic"] = [{"revision": name, "weight": weight} for name, weight in pairs]

    return change


def _rollout(**fields: Any) -> Callable[[Any, str, str], None]:
    return lambda status, served, target: status["rollout"].update(fields)


def _plan(**fields: Any) -> Callable[[Any, str, str], None]:
    return lambda status, served, target: status["rollout"]["plan"].update(fields)


def _status(**fields: Any) -> Callable[[Any, str, str], None]:
    return lambda status, served, target: status.update(fields)


def _canary_renamed(status: Any, served: str, target: str) -> None:
    for each in status["traffic"]:
        each["revision"] = each["revision"].replace(target, NOBODY)


MOON = {"setMoon": {"phase": "full"}}
FORGERIES = {
    "newer-schema": Forgery(
        about="A newer operator wrote the status.", word="schema", change=_status(schema=99)
    ),
    "unknown-step": Forgery(
        about="The step under way is of a kind that a newer operator knows.",
        word="setMoon",
        change=_plan(steps=[TIMED[0], MOON, TIMED[2]]),
    ),
    "unknown-step-ahead": Forgery(
        about="The step after the present pause is of a kind that a newer operator knows.",
        word="setMoon",
        change=_plan(steps=[*TIMED[:2], MOON, TIMED[2]]),
    ),
    "unknown-strategy": Forgery(
        about="The frozen plan has a strategy of a newer operator.",
        word="strategy",
        change=_plan(strategy="Shadow"),
    ),
    "unreadable-plan": Forgery(
        about="A number in the frozen plan is out of bounds.",
        word="setWeight",
        change=_plan(steps=[TIMED[0], TIMED[1], {"setWeight": 500}]),
    ),
    "unknown-abort": Forgery(
        about="The rollout was aborted for a reason of a newer operator.",
        word="SecondTry",
        change=_rollout(aborted="SecondTry"),
    ),
    "unknown-cause": Forgery(
        about="The rollout has a cause of a newer operator.",
        word="Restart",
        change=_rollout(cause="Restart"),
    ),
    "unknown-stickiness": Forgery(
        about="The routers' command has a stickiness of a newer operator.",
        word="stickiness",
        change=_status(routing={"stickiness": "Tenant"}),
    ),
    "negative-step": Forgery(
        about="The step is below the first.", word="rollout.step", change=_rollout(step=-1)
    ),
    "huge-step": Forgery(
        about="The step is far beyond the last.", word="rollout.step", change=_rollout(step=10**12)
    ),
    "negative-weight": Forgery(
        about="The canary's weight is negative.", word="status.traffic", change=_shares(125, -25)
    ),
    "too-little-traffic": Forgery(
        about="The weights sum to 60.", word="status.traffic", change=_shares(40, 20)
    ),
    "too-much-traffic": Forgery(
        about="The weights sum to 150.", word="status.traffic", change=_shares(75, 75)
    ),
    "huge-generation": Forgery(
        about="There is no greater trafficGeneration.",
        word="trafficGeneration",
        change=_status(trafficGeneration=2**63 - 1),
    ),
    "unknown-served": Forgery(
        about="The served revision is one that nobody knows.",
        word=NOBODY,
        change=_status(servedRevision=NOBODY),
    ),
    "unknown-target": Forgery(
        about="The revision being rolled out is one that nobody knows.",
        word=NOBODY,
        change=_rollout(revision=NOBODY),
    ),
    "unknown-share": Forgery(
        about="A quarter of the traffic goes to a revision that nobody knows.",
        word=NOBODY,
        change=_canary_renamed,
    ),
}


def forge(name: str) -> Fleet:
    """The cluster with one of the statuses, which its routers have taken over."""
    world, old, new = mid_canary()
    forgery = FORGERIES[name]
    forgery.change(world.raw["status"], old, new)
    world.routers()
    return world
