"""``setCanaryScale``: a size of its own for the canary."""

from __future__ import annotations

from dataclasses import replace

from llmfleet.api import Step
from llmfleet.planning.rollout.capacity import pods_for
from llmfleet.planning.rollout.steps.kind import Allowance, StepKind


class SetCanaryScale(StepKind):
    """Done once as many pods are ready as the surge allows."""

    field = "set_canary_scale"

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        """This size instead of the one before; ``matchTrafficWeight`` is none of its own."""
        scale = step.set_canary_scale
        if scale is None:
            return before
        return replace(before, least_pods=scale.replicas or pods_for(replicas, scale.percent or 0))
