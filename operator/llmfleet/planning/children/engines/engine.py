"""What every engine gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmfleet.api import LLMDeployment
from llmfleet.planning.snapshot import JSON, OperatorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine: what a revision freezes of it. Its pods keep docs/contract.md, Runtime."""

    name: str
    """A word of lower case, its key in ``ENGINES``."""
    image: Callable[[LLMDeployment, OperatorSettings], str]
    """The image of a revision made now."""
    pod_template: Callable[[LLMDeployment, OperatorSettings, str], JSON]
    """The PodTemplateSpec of a revision, by its hash; the same arguments give an equal one."""
