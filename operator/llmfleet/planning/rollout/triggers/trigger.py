"""What a trigger may know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from llmfleet.planning.analysis.judge import Judgement
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.acts import Acts
from llmfleet.planning.rollout.attempt import Attempt
from llmfleet.planning.rollout.failures import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Rising:
    """A rollout on its way up, as triggers see it."""

    facts: Facts
    attempt: Attempt
    stable: str
    """The served revision."""
    acts: Acts
    judgement: Judgement | None
    """Of its requests; None for a rollout that is not judged."""
    now: datetime


Trigger = Callable[[Rising], Failure | None]
