"""What people do while a release is half way up, and what it has to end with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from hack.kube.kubectl import wait_for

from tests.acts.arena import Arena
from tests.acts.history import Seen
from tests.acts.oracles import Pause

WAITING = 20
"""Answers that tell clients to come again, before engines come back."""
FOLLOWED_SECONDS = 3
"""From a pod's readiness until clients meet it: kubelet, EndpointSlice, router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What was asked for."""

    served: str
    """The revision to be served."""
    phase: str = "Healthy"
    rejected: Mapping[str, str] | None = None
    """Reasons of those that are rejected meanwhile; None = none are."""
    pause: Pause | None = None
    """The time without engines."""
    note: str = ""
    """What the act met."""
    problem: str = ""
    """Why this did not try what it should have."""


def undo(arena: Arena) -> Ending:
    """Undo to the kept revision: the third release is rejected, the second one left."""
    arena.act("undo", arena.kept)
    return _undone(arena, "UserUndo")


def abort_undo(arena: Arena) -> Ending:
    """Abort the third release, then undo before its traffic has returned."""
    arena.act("abort", arena.rising)
    met = arena.act("undo", arena.kept)
    return _undone(arena, "UserAbort", met)


def promote_undo(arena: Arena) -> Ending:
    """Promote the third release, then undo to the kept one while it takes over, or just has."""
    arena.promote()
    met = arena.act("undo", arena.kept)
    ending = _undone(arena, "UserUndo")
    share = met.traffic.get(arena.rising, 0)
    word = "just served" if met.served == arena.rising else "on its way up"
    return replace(ending, note=f"the undo met it {word}, at {share} %")


def revert(arena: Arena) -> Ending:
    """Spec goes back to what is served: nothing is wrong with the third release."""
    arena.revert()
    return Ending(served=arena.served)


def retry(arena: Arena) -> Ending:
    """Abort the third release, ask for another try before its traffic has returned, promote it."""
    arena.act("abort", arena.rising)
    met = arena.act("retry", arena.rising)
    before = arena.middle.rollout.get("id", 0) if arena.middle else 0
    arena.wait_for_the_middle(after=before)
    arena.promote()
    return _met(arena, Ending(served=arena.rising), met)


def zero(arena: Arena) -> Ending:
    """Replicas to zero and back, then the third release is promoted."""
    pods = len(arena.fleet.pods("engine"))
    pause = _without_engines(arena, lambda: None)
    arena.fleet.wait_for_engines(pods)
    arena.wait_for_the_middle()
    arena.promote()
    return Ending(served=arena.rising, pause=pause)


def zero_undo(arena: Arena) -> Ending:
    """Undo to the kept revision while there are no replicas."""
    pause = _without_engines(arena, lambda: arena.act("undo", arena.kept))
    rejected = {arena.rising: "UserUndo"}
    return Ending(served=arena.kept, phase="Degraded", rejected=rejected, pause=pause)


def restart(arena: Arena) -> Ending:
    """Promote the third release, then replace its pods one by one."""
    arena.promote()
    arena.settle(arena.rising, "Healthy")
    old = _engines(arena)
    arena.act("restart", arena.rising)
    wait_for(
        "all pods to be new ones",
        lambda: not old & _engines(arena),
        timeout_seconds=180,
        describe=arena.fleet.describe,
    )
    return Ending(served=arena.rising, note=f"{len(old)} pods replaced")


SCENARIOS: Mapping[str, Callable[[Arena], Ending]] = {
    "undo": undo,
    "abort-undo": abort_undo,
    "promote-undo": promote_undo,
    "revert": revert,
    "retry": retry,
    "restart": restart,
    "zero": zero,
    "zero-undo": zero_undo,
}


def _engines(arena: Arena) -> set[str]:
    """Uids of the engine pods that are not on their way out."""
    return {pod["metadata"]["uid"] for pod in arena.fleet.pods("engine")}


def _undone(arena: Arena, reason: str, met: Seen | None = None) -> Ending:
    rejected = {arena.rising: reason}
    return _met(arena, Ending(served=arena.kept, phase="Degraded", rejected=rejected), met)


def _met(arena: Arena, ending: Ending, met: Seen | None) -> Ending:
    """Notes whether the second act found the third release on its way back."""
    if met is None:
        return ending
    returning = met.rollout.get("state") == "Returning"
    share = met.traffic.get(arena.rising, 0)
    where = f"on its way back, at {share} %" if returning else "back already"
    late = arena.strategy.returns_slowly and not returning
    problem = "the second act came when the traffic had returned: nothing was tried" if late else ""
    return replace(ending, note=f"the second act met it {where}", problem=problem)


def _without_engines(arena: Arena, meanwhile: Callable[[], object]) -> Pause:
    """No replicas until clients have met it; what is done meanwhile, and replicas again."""
    begun = time.time()
    arena.fleet.scale(0)
    wait_for(
        "clients that are told to wait",
        lambda: arena.probe.counts().get("waits", 0) >= WAITING,
        timeout_seconds=120,
        describe=arena.fleet.describe,
    )
    meanwhile()
    arena.fleet.scale(arena.strategy.replicas)
    first = wait_for(
        "the first ready engine",
        lambda: min(_ready_times(arena), default=None),
        timeout_seconds=180,
        describe=arena.fleet.describe,
    )
    return Pause(begun=begun, ended=first + FOLLOWED_SECONDS)


def _ready_times(arena: Arena) -> list[float]:
    """Since when the engines are ready that clients are led to; a preview is none of them."""
    led_to = arena.history.seen[-1].traffic
    conditions = (
        each
        for pod in arena.fleet.pods("engine")
        if pod["metadata"]["labels"]["llmfleet.dev/revision"] in led_to
        for each in pod["status"].get("conditions") or ()
        if each["type"] == "Ready" and each["status"] == "True"
    )
    return [datetime.fromisoformat(each["lastTransitionTime"]).timestamp() for each in conditions]
