"""What the routers say about the present traffic command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from llmfleet.planning.children.naming import is_ours, router_key
from llmfleet.planning.facts.arms import NO_ARM, Arm, refusal
from llmfleet.planning.facts.pods import Origin, find_origin
from llmfleet.planning.snapshot import RouterReach, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Routers:
    """What the routers say about the present traffic command."""

    ready: int
    confirmed: bool
    """At least one is Ready, and every Ready one serves the present trafficGeneration."""
    silent: tuple[str, ...]
    """Ready pods that do not answer the operator."""
    lagging: tuple[str, ...]
    """Ready pods that answer, but serve another generation."""
    given_up: bool = False
    """A rollout goes back, and what it still waits for are routers that have had drainTimeout to
    end what they were doing: they are not waited for any longer (design, section 6 rule 2)."""
    give_up_at: datetime | None = None
    """When that will be so, as things are."""
    refused: str | None = None
    """The API server's sentence while it refuses router pods."""

    @property
    def let_go(self) -> bool:
        """What the present command does not name gets no request any more."""
        return self.confirmed or self.given_up


def read_routers(snapshot: Snapshot, arms: Mapping[str, Arm], now: datetime) -> Routers:
    """Read what the routers reported.

    Those of a former Deployment count as well: clients reach them as long as they are ready.

    Args:
        snapshot: everything observed.
        arms: by revision hash.
        now: the time of the decision, which tells how long routers have been silent.
    """
    generation = snapshot.deployment.status.traffic_generation
    key = router_key(snapshot.deployment.metadata.name)
    ready = [
        pod.name
        for pod in snapshot.pods
        if pod.component == "router"
        and pod.ready
        and not pod.deleting
        and find_origin(snapshot, key, pod) is not Origin.STRANGER
    ]
    silent, lagging = [], []
    for name in ready:
        report = snapshot.routers.get(name)
        if report is not None and report.reach is RouterReach.SILENT:
            silent.append(name)
        elif report is None or report.traffic_generation != generation:
            lagging.append(name)
    confirmed = bool(ready) and generation is not None and not silent and not lagging
    give_up_at = None if confirmed or lagging else _give_up_at(snapshot, arms, silent)
    found = snapshot.objects.get(key)
    ours = found is not None and is_ours(snapshot.deployment, found)
    return Routers(
        ready=len(ready),
        confirmed=confirmed,
        silent=tuple(silent),
        lagging=tuple(lagging),
        given_up=give_up_at is not None and now >= give_up_at,
        give_up_at=give_up_at,
        refused=refusal(snapshot, found) if ours else None,
    )


def _give_up_at(
    snapshot: Snapshot, arms: Mapping[str, Arm], silent: Iterable[str]
) -> datetime | None:
    """When silent routers, or ones that are not even Ready, are no longer waited for."""
    rollout = snapshot.deployment.status.rollout
    if rollout is None or rollout.aborted is None or rollout.progressed_at is None:
        return None
    if arms.get(rollout.revision or "", NO_ARM).wanted is None:
        return None  # it is over, and only waits for another try
    since = [each for name in silent if (each := snapshot.routers[name].silent_since) is not None]
    drain = timedelta(seconds=snapshot.deployment.spec.router.drain_timeout_seconds)
    return max([rollout.progressed_at, *since]) + drain
