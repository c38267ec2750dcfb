"""What must hold of every two statuses recorded one after the other, and of the clients' counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.acts.history import Seen

JSON = dict[str, Any]
FORWARD = {"Forward", "Undoing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The time without engines that a scenario asked for; clients may be told to wait in it."""

    begun: float
    """Unix time at which zero replicas were asked for."""
    ended: float
    """Unix time at which engines were ready again."""


def judge_statuses(history: Sequence[Seen]) -> list[str]:
    """A sentence for every rule that two statuses in a row break."""
    found = [f"a status with a split that is not whole: {one.traffic}" for one in _torn(history)]
    for before, after in pairwise(history):
        found += _gains(before, after)
        found += _generation(before, after)
        found += _promotion(before, after)
        found += _standstill(before, after)
    return found


def judge_clients(counts: JSON, pause: Pause | None) -> list[str]:
    """A sentence for everything that a client met and should not have met."""
    found = []
    lost = counts["failed"] + counts["truncated"]
    if counts["sent"] != counts["succeeded"] + lost:
        found.append(f"{counts['sent']} requests were sent, and not all of them ended")
    if lost:
        found.append(f"{counts['failed']} requests failed, {counts['truncated']} were cut")
    if pause is None and counts["waits"]:
        found.append(f"clients were told to wait {counts['waits']} times, with engines there")
    if pause is not None:
        found += _outside(counts, pause)
    return found


def _outside(counts: JSON, pause: Pause) -> Iterator[str]:
    if not counts["waits"]:
        yield "no client met the time without engines, so nothing was tried"
        return
    early, late = pause.begun - counts["first_wait"], counts["last_wait"] - pause.ended
    if early > 0:
        yield f"a client was told to wait {early:.1f} s before zero replicas were asked for"
    if late > 0:
        yield f"a client was told to wait {late:.1f} s after engines were ready again"


def _torn(history: Iterable[Seen]) -> Iterator[Seen]:
    return (one for one in history if one.traffic and sum(one.traffic.values()) != 100)


def _gains(before: Seen, after: Seen) -> Iterator[str]:
    """A rejected revision only ever loses: weight, copies, testers and the preview alike."""
    for name in after.rejected:
        had, has = before.traffic.get(name, 0), after.traffic.get(name, 0)
        if has > had:
            yield f"rejected {name} rises from {had} to {has} %"
        for rule in _rules(after, name) - _rules(before, name):
            yield f"rejected {name} is given {rule}"
        going = after.rollout.get("revision") == name and "aborted" not in after.rollout
        if going and after.rollout.get("state") in FORWARD:
            yield f"rejected {name} is on its way up"


def _rules(seen: Seen, name: str) -> set[str]:
    routing = seen.routing
    found = {
        key for key in ("headerRoute", "mirror") if routing.get(key, {}).get("revision") == name
    }
    return found | ({"preview"} if routing.get("preview") == name else set())


def _generation(before: Seen, after: Seen) -> Iterator[str]:
    changed = before.traffic != after.traffic or before.routing != after.routing
    if after.generation < before.generation or (changed and after.generation == before.generation):
        what = "with" if changed else "without"
        yield (
            f"trafficGeneration goes from {before.generation} to {after.generation}"
            f" {what} a change of the split"
        )


def _promotion(before: Seen, after: Seen) -> Iterator[str]:
    if before.served != after.served and after.served in after.rejected:
        yield f"rejected {after.served} becomes the served revision"


def _standstill(before: Seen, after: Seen) -> Iterator[str]:
    """At zero replicas nothing moves and nothing is promoted."""
    if before.spec_replicas or after.spec_replicas or not before.traffic:
        return
    if before.traffic != after.traffic:
        yield f"at zero replicas the split goes from {before.traffic} to {after.traffic}"
    if before.served != after.served:
        yield f"at zero replicas {after.served} is promoted"
