"""``setWeight``: a share of the traffic."""

from __future__ import annotations

from dataclasses import replace

from llmfleet.api import Step
from llmfleet.planning.rollout.steps.kind import Allowance, StepKind


class SetWeight(StepKind):
    """Done once the share is really served."""

    field = "set_weight"

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        """The share of this step instead of the one before."""
        del replicas
        return replace(before, weight=step.set_weight or 0)
