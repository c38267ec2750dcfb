"""States of an LLMDeployment's life, each reached by running the planner from the beginning."""

from tests.unit.gitops.states import serving, canary, returning, hindered  # isort: skip
from tests.unit.gitops.states.registry import STATES, new, reach

__all__ = ["STATES", "canary", "hindered", "new", "reach", "returning", "serving"]
