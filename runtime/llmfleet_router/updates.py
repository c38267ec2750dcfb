"""Which file to write next: the order of updates as a pure decision.

A request must never meet a route to a cluster Envoy does not have, nor a cluster without endpoints
while another revision has some. So clusters and endpoints come before the routes that use them,
and go after: add clusters → fill endpoints → routes → empty endpoints → remove idle clusters.
Shadow requests have a cluster of their own beside the revision's, with the same endpoints; it comes
with the revision's or after it, and goes before.

Each step is decided again from what Envoy has confirmed and from the newest wish, so a wish that
changes halfway needs no special case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from llmfleet_router.model import Desired, Endpoints, Routes, build_routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What Envoy has confirmed."""

    endpoints: Mapping[str, Endpoints] = field(default_factory=dict)
    """Per revision; its keys are the revisions whose cluster Envoy has."""
    mirrors: frozenset[str] = frozenset()
    """Those of them that have a cluster for shadow requests too."""
    routes: Routes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Some of Envoy's clusters, by revision."""

    revisions: frozenset[str] = frozenset()
    mirrors: frozenset[str] = frozenset()
    """Clusters for shadow requests."""

    def __bool__(self) -> bool:
        return bool(self.revisions or self.mirrors)

    def __and__(self, other: Clusters) -> Clusters:
        """What both have."""
        return Clusters(
            revisions=self.revisions & other.revisions, mirrors=self.mirrors & other.mirrors
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddClusters:
    """New clusters, each with its first endpoints (perhaps none)."""

    endpoints: Mapping[str, Endpoints]
    mirrors: frozenset[str] = frozenset()
    """Revisions that get a cluster for shadow requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEndpoints:
    """Another set of endpoints for one revision."""

    revision: str
    endpoints: Endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRoutes:
    """Other route tables."""

    routes: Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveClusters:
    """Clusters no route names and no request uses."""

    clusters: Clusters


Step = AddClusters | SetEndpoints | SetRoutes | RemoveClusters


def next_step(applied: Applied, desired: Desired, idle: Clusters) -> Step | None:
    """The next step towards what is desired, or None when nothing is to do now.

    Args:
        applied: what Envoy has confirmed.
        desired: what the API server last said; without a command everything stays.
        idle: clusters without active requests, or past the drain timeout: they may go when no
            route names them.
    """
    command = desired.command
    if command is None:
        return None
    want = {revision: desired.endpoints.get(revision, ()) for revision in command.revisions}
    # A revision whose pods are ready gets its cluster before it is commanded any request: that
    # takes Envoy longer than the routes, and its counters begin at zero before its first request.
    expected = {**desired.endpoints, **want}
    missing = {r: endpoints for r, endpoints in expected.items() if r not in applied.endpoints}
    mirrors = command.routing.mirrors - applied.mirrors
    if missing or mirrors:
        return AddClusters(endpoints=missing, mirrors=mirrors)
    present = {r: desired.endpoints.get(r, ()) for r in sorted(applied.endpoints)}
    for revision, endpoints in present.items():
        if endpoints and endpoints != applied.endpoints[revision]:
            return SetEndpoints(revision=revision, endpoints=endpoints)
    routes = build_routes(command, {r for r, endpoints in want.items() if endpoints})
    if routes != applied.routes:
        return SetRoutes(routes=routes)
    for revision, endpoints in present.items():
        if endpoints != applied.endpoints[revision]:
            return SetEndpoints(revision=revision, endpoints=endpoints)
    gone = unrouted(applied, desired) & idle
    return RemoveClusters(clusters=gone) if gone else None


def unrouted(applied: Applied, desired: Desired) -> Clusters:
    """Clusters that neither the command nor the present routes name, and without endpoints."""
    named = {*desired.endpoints, *(desired.command.revisions if desired.command else ())}
    mirrors = desired.command.routing.mirrors if desired.command else frozenset()
    if applied.routes:
        named |= applied.routes.revisions
        mirrors |= applied.routes.routing.mirrors
    # Both clusters of a revision read one file of endpoints, which goes with the revision's own.
    return Clusters(
        revisions=frozenset(applied.endpoints) - named - applied.mirrors,
        mirrors=applied.mirrors - mirrors,
    )


def after(applied: Applied, step: Step) -> Applied:
    """What is applied once Envoy has confirmed ``step``."""
    match step:
        case AddClusters(endpoints=added, mirrors=mirrors):
            return replace(
                applied,
                endpoints={**applied.endpoints, **added},
                mirrors=applied.mirrors | mirrors,
            )
        case SetEndpoints(revision=revision, endpoints=endpoints):
            return replace(applied, endpoints={**applied.endpoints, revision: endpoints})
        case SetRoutes(routes=routes):
            return replace(applied, routes=routes)
        case RemoveClusters(clusters=gone):
            left = {r: e for r, e in applied.endpoints.items() if r not in gone.revisions}
            return replace(applied, endpoints=left, mirrors=applied.mirrors - gone.mirrors)
