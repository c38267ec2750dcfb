"""Engines: what a revision's pods run, an engine a file and a row of ``ENGINES``.

Only what differs between engines is here, and the pod they all share (``pod``). What is made around
pods does not know which engine runs in them: ``children.pools``, ``children.budgets``. When a pod
is rendered is decided elsewhere (``revisions``).
"""

from __future__ import annotations

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.engines.engine import Engine
from llmfleet.planning.children.engines.vllm import VLLM

ENGINES: dict[str, Engine] = {VLLM.name: VLLM}
"""By name."""


def engine_of(deployment: LLMDeployment) -> Engine:
    """The engine that a deployment asks for; spec names none yet, and so it is vLLM."""
    del deployment
    return ENGINES["vllm"]
