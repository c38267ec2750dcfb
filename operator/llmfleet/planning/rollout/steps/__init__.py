"""The steps of a rollout: which one is under way, what it allows, and what ends it.

A step's clock starts when it is really served: the weight and the routes are commanded, every
Ready router has confirmed them, and the pods asked for are ready. If the new revision loses any of
it meanwhile, the clock starts anew. A blue-green rollout is made of such steps, too.

A kind of step is a file here and a row of ``STEPS``. Steps only allow: no weights are set here, and
no replicas (``rollout.split``).
"""

from __future__ import annotations

from llmfleet.planning.rollout.steps.analysis import AnalysisStep
from llmfleet.planning.rollout.steps.kind import StepKind
from llmfleet.planning.rollout.steps.pause import Pause
from llmfleet.planning.rollout.steps.routes import SetHeaderRoute, SetMirror
from llmfleet.planning.rollout.steps.scale import SetCanaryScale
from llmfleet.planning.rollout.steps.weight import SetWeight

STEPS: list[StepKind] = [
    SetWeight(), Pause(), AnalysisStep(), SetHeaderRoute(), SetMirror(), SetCanaryScale(),
]  # fmt: skip
"""Every kind of step, one row each."""
