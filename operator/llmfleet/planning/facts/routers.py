"""What the routers say about the present traffic command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.children.naming import is_ours, router_key
from llmfleet.planning.facts.arms import refusal
from llmfleet.planning.facts.pods import Origin, find_origin
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import ObservedPod, RouterState, Snapshot

ANSWERS_LAST: Final = timedelta(minutes=3)
"""So long a router's word counts: while nothing is commanded it is asked once a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routers:
    """What the routers say about the present traffic command."""

    ready: int
    confirmed: bool
    """At least one is Ready, and every Ready one serves the present trafficGeneration."""
    silent: tuple[str, ...]
    """Ready pods that do not answer the operator."""
    lagging: tuple[str, ...]
    """Ready pods that answer, but serve another generation, or of which nothing is known now."""
    stale: tuple[str, ...] = ()
    """Why nothing is known of some of them, as sentences."""
    silent_since: tuple[datetime, ...] = ()
    """Since when, as far as known."""
    given_up: bool = False
    """A rollout goes back, and what it still waits for are routers that have had drainTimeout to
    end what they were doing: they are not waited for any longer (design, section 6 rule 2)."""
    give_up_at: datetime | None = None
    """When that will be so, as things are."""
    refused: str | None = None
    """The API server's sentence while it refuses router pods."""
    missing: tuple[ObservedPod, ...] = ()
    """Pods that are meant to stay, and are not ready."""
    failed: tuple[ObservedPod, ...] = ()
    """Those that their nodes ended or never began (phase Failed)."""

    @property
    def drained(self) -> bool:
        """What the present command does not name gets no request any more."""
        return self.confirmed or self.given_up


def read_routers(snapshot: Snapshot, now: datetime) -> Routers:
    """Read what the routers reported.

    Those of a former Deployment count as well: clients reach them as long as they are ready. One
    whose last answer is too old is waited for like one that serves something else: unlike one that
    is silent, it may answer well, and nobody has asked.

    Args:
        snapshot: everything observed.
        now: the time of the decision.
    """
    generation = snapshot.deployment.status.traffic_generation
    key = router_key(snapshot.deployment.metadata.name)
    made = [
        pod
        for pod in snapshot.pods
        if pod.component == "router"
        and not pod.deleting
        and find_origin(snapshot, key, pod) is not Origin.FOREIGN
    ]
    live = [pod for pod in made if pod.phase not in {"Failed", "Succeeded"}]
    ready = [pod.name for pod in live if pod.ready]
    silent: dict[str, Signal[RouterState]] = {}
    lagging, stale = [], []
    for name in ready:
        told = snapshot.routers.get(name)
        if told is not None and told.problem:
            silent[name] = told
            continue
        fresh = told and told.at(now, ANSWERS_LAST, f"the last answer of {name} is")
        if fresh is None or fresh.value is None or fresh.value.traffic_generation != generation:
            lagging.append(name)
        if fresh is not None and fresh.problem:
            stale.append(fresh.problem)
    confirmed = bool(ready) and generation is not None and not silent and not lagging
    found = snapshot.objects.get(key)
    ours = found is not None and is_ours(snapshot.deployment, found)
    return Routers(
        ready=len(ready),
        confirmed=confirmed,
        silent=tuple(silent),
        silent_since=tuple(each.since for each in silent.values() if each.since is not None),
        lagging=tuple(lagging),
        stale=tuple(stale),
        refused=refusal(snapshot, found) if ours else None,
        missing=tuple(pod for pod in live if not pod.ready),
        failed=tuple(pod for pod in made if pod.phase == "Failed"),
    )
