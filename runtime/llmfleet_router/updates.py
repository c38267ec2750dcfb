"""Which file to write next: the order of updates as a pure decision.

A request must never meet a route to a cluster Envoy does not have, nor a cluster without endpoints
while another revision has some. So clusters and endpoints come before the routes that use them,
and go after: add clusters → fill endpoints → routes → empty endpoints → remove idle clusters.
Each step is decided again from what Envoy has confirmed and from the newest wish, so a wish that
changes halfway needs no special case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from llmfleet_router.model import Desired, Endpoints, Routes, build_routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What Envoy has confirmed."""

    endpoints: Mapping[str, Endpoints] = field(default_factory=dict)
    """Per cluster; its keys are the clusters Envoy has."""
    routes: Routes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddClusters:
    """New clusters, each with its first endpoints (perhaps none)."""

    endpoints: Mapping[str, Endpoints]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEndpoints:
    """Another set of endpoints for one cluster."""

    revision: str
    endpoints: Endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRoutes:
    """Another route table."""

    routes: Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveClusters:
    """Clusters no route names and no request uses."""

    revisions: frozenset[str]


Step = AddClusters | SetEndpoints | SetRoutes | RemoveClusters


def next_step(applied: Applied, desired: Desired, idle: Collection[str]) -> Step | None:
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
    missing = {r: endpoints for r, endpoints in want.items() if r not in applied.endpoints}
    if missing:
        return AddClusters(endpoints=missing)
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
    gone = frozenset(r for r in unrouted(applied, desired) if r in idle)
    return RemoveClusters(revisions=gone) if gone else None


def unrouted(applied: Applied, desired: Desired) -> frozenset[str]:
    """Clusters that neither the command nor the present routes name."""
    named = set(desired.command.revisions if desired.command else ())
    if applied.routes:
        named |= {revision for revision, _ in applied.routes.split}
    return frozenset(applied.endpoints) - named


def after(applied: Applied, step: Step) -> Applied:
    """What is applied once Envoy has confirmed ``step``."""
    match step:
        case AddClusters(endpoints=added):
            return Applied(endpoints={**applied.endpoints, **added}, routes=applied.routes)
        case SetEndpoints(revision=revision, endpoints=endpoints):
            return Applied(
                endpoints={**applied.endpoints, revision: endpoints}, routes=applied.routes
            )
        case SetRoutes(routes=routes):
            return Applied(endpoints=applied.endpoints, routes=routes)
        case RemoveClusters(revisions=revisions):
            left = {r: e for r, e in applied.endpoints.items() if r not in revisions}
            return Applied(endpoints=left, routes=applied.routes)
