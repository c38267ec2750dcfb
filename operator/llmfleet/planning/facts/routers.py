"""What the routers say about the present traffic command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from llmfleet.planning.children.naming import is_ours, router_key
from llmfleet.planning.facts.arms import refusal
from llmfleet.planning.facts.pods import Origin, find_origin
from llmfleet.planning.snapshot import ObservedPod, RouterReach, Snapshot


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


def read_routers(snapshot: Snapshot) -> Routers:
    """Read what the routers reported.

    Those of a former Deployment count as well: clients reach them as long as they are ready.

    Args:
        snapshot: everything observed.
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
    silent, lagging = [], []
    for name in ready:
        report = snapshot.routers.get(name)
        if report is not None and report.reach is RouterReach.SILENT:
            silent.append(report)
        elif report is None or report.traffic_generation != generation:
            lagging.append(name)
    confirmed = bool(ready) and generation is not None and not silent and not lagging
    found = snapshot.objects.get(key)
    ours = found is not None and is_ours(snapshot.deployment, found)
    return Routers(
        ready=len(ready),
        confirmed=confirmed,
        silent=tuple(report.pod for report in silent),
        silent_since=tuple(each.silent_since for each in silent if each.silent_since is not None),
        lagging=tuple(lagging),
        refused=refusal(snapshot, found) if ours else None,
        missing=tuple(pod for pod in live if not pod.ready),
        failed=tuple(pod for pod in made if pod.phase == "Failed"),
    )
