"""``setHeaderRoute`` and ``setMirror``: what reaches the canary beside its weight."""

from __future__ import annotations

from dataclasses import replace

from llmfleet.api import Step
from llmfleet.planning.rollout.steps.kind import Allowance, StepKind


class SetHeaderRoute(StepKind):
    """Requests with certain headers; a step without headers ends the route."""

    field = "set_header_route"

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        """This route instead of the one before."""
        del replicas
        route = step.set_header_route
        return replace(
            before, routes=(route if route and route.headers else None, before.routes[1])
        )


class SetMirror(StepKind):
    """Copies of requests; 0 % ends it."""

    field = "set_mirror"

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        """These copies instead of those before."""
        del replicas
        mirror = step.set_mirror
        return replace(
            before, routes=(before.routes[0], mirror if mirror and mirror.percent else None)
        )
