"""The state while one decision's inputs are put to the table, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from llmfleet.planning.analysis.judge import Judgement
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.acts import Acts
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.inputs import (
    Context,
    Input,
)
from llmfleet.planning.rollout.served import (
    other_good_revision,
    wanted_revision,
)
from llmfleet.planning.rollout.state import (
    BackingOff,
    Cause,
    State,
    Unreadable,
    attempt_of,
)
from llmfleet.planning.rollout.steps.kind import StepContext
from llmfleet.planning.rollout.transitions import (
    transition,
)

SUPERSEDED_MEANWHILE: Final = "came when spec asked for another revision: it goes back instead"
REPLACED_ANYWAY: Final = "came when another revision was to be rolled out: it has pods of its own"
NOWHERE: Final = "has nowhere to go back to: every other kept revision is rejected"
FAILED_MEANWHILE: Final = "came when the rollout had just failed ({}): it goes back instead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Where the rollout is after this decision, and why."""

    state: State
    stable: str | None
    """The served revision; the new one in the decision that promotes it."""
    acts: Acts
    rejected: Mapping[str, str]
    """Every rejected hash → reason, for memory."""
    spec_revision: str
    """The hash that spec asks for."""
    state_before: State
    """As recorded."""
    failure: Failure | None = None
    """Found in this decision."""
    promoted: str | None = None
    """Set in the one decision that makes a revision the served one."""
    started: str | None = None
    """Set in the one decision that starts an attempt."""
    ended: str | None = None
    """Set in the one decision in which an attempt turns back or is given up."""
    steps: StepContext | None = None
    """What the steps depend on; None for a rollout without, or one that goes back."""
    judgement: Judgement | None = None
    """What is told of its requests."""
    paused: str | None = None
    """What a person has to do for the rollout to go on."""
    by_annotation: bool = False
    """The pause is the annotation's: nothing moves forward."""
    held: str | None = None
    """Why nothing new may be rolled out."""
    due: datetime | None = None
    """When time alone ends the step, or the wait for another try."""

    @property
    def target(self) -> str | None:
        """The revision on its way up or back; None outside a rollout."""
        if isinstance(self.state, Unreadable):
            return self.state.revision
        attempt = attempt_of(self.state)
        return None if attempt is None or isinstance(self.state, BackingOff) else attempt.revision


class Machine:
    """The state while one decision's inputs are put to the table, and the rejections they make."""

    def __init__(self, facts: Facts, state: State, stable: str | None, now: datetime) -> None:
        self.facts, self.state, self.stable, self.now = facts, state, stable, now
        self.rejected: dict[str, str] = dict(facts.rejected)

    def put(self, asked: Input) -> None:
        """Apply one input."""
        self.state = transition(self.state, asked, self._context())

    def reject(self, revision: str, reason: str) -> None:
        """No way up leads to it from here on."""
        self.rejected.setdefault(revision, reason)

    def wanted(self) -> tuple[str | None, Cause | None]:
        """What shall be served in the end, as things are."""
        return wanted_revision(self.facts, self.state, self.stable, self.rejected, self.now)

    def _context(self) -> Context:
        attempt, status = attempt_of(self.state), self.facts.deployment.status
        target = attempt.revision if attempt is not None else None
        recorded = (status.rollout.id or 0) if status.rollout is not None else 0
        share = self.facts.traffic.get(target or "", 0)
        return Context(
            now=self.now,
            stable=self.stable,
            spec=self.facts.deployment.spec.rollout,
            next_id=1 + max(self.facts.memory.rollout_id, recorded),
            rejected=frozenset(self.rejected),
            other_good=other_good_revision(self.facts, (target, self.stable), self.rejected),
            kept=frozenset(self.facts.revisions),
            way_back=not share or self.stable not in self.rejected,
            carried_back=not share or self.facts.arm(self.stable).ready > 0,
        )
