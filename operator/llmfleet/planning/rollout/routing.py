"""What routers do besides splitting by weight."""

from __future__ import annotations

from llmfleet.api import HeaderRouting, Mirroring, RolloutSpec, Routing
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.steps.kind import Routes


def decide_routing(
    facts: Facts,
    *,
    policy: RolloutSpec,
    stable: str | None,
    rising: str | None,
    routes: Routes,
    served: frozenset[str],
) -> Routing | None:
    """What reaches a canary beside its weight, and what the preview address leads to.

    Args:
        facts: what is observed.
        policy: settings of the rollout under way; outside one, spec's.
        stable: the revision that the stable address serves, or is about to.
        rising: the revision on its way up beside a served one; None on the way back.
        routes: what shall reach that beside its weight.
        served: revisions that the split names.
    """
    spec = facts.deployment.spec.rollout
    reached = rising if rising is not None and facts.arm(rising).ready else None
    preview = reached if policy.strategy == "BlueGreen" and reached else stable
    route, mirror = routes
    routing = Routing(
        header_route=HeaderRouting(revision=reached, headers=route.headers)
        if route is not None and reached is not None
        else None,
        mirror=Mirroring(revision=reached, percent=mirror.percent)
        if mirror is not None and reached is not None
        else None,
        preview=preview
        if spec.strategy == "BlueGreen" and (preview == reached or preview in served)
        else None,
        stickiness="Session" if policy.stickiness == "Session" and rising is not None else None,
    )
    return routing if routing != Routing() else None
