"""``spec.replicas``: a person, an HPA or KEDA decides, and is obeyed at once."""

from __future__ import annotations

from dataclasses import dataclass

from llmfleet.api import LLMDeployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The fleet's size."""

    replicas: int
    """N, of all arms together."""
    why: str


def decide_scale(deployment: LLMDeployment) -> Scale:
    """The size that spec names."""
    return Scale(replicas=deployment.spec.wanted_replicas, why="spec.replicas")
