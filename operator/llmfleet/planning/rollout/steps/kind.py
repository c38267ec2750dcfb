"""What every kind of step says of itself, and what it may know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from llmfleet.api import Analysis, HeaderRoute, Mirror, Step
from llmfleet.planning.analysis.judge import Judgement, Verdict
from llmfleet.planning.rollout.attempt import Position
from llmfleet.planning.rollout.capacity import pods_for
from llmfleet.planning.rollout.failures import Failure

Routes = tuple[HeaderRoute | None, Mirror | None]
"""What reaches a canary beside its weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the steps so far let the new revision have."""

    weight: int = 0
    """Percent of the traffic."""
    routes: Routes = (None, None)
    least_pods: int = 0
    """Pods that it shall have even where its weight asks for fewer."""

    def pods(self, replicas: int) -> int:
        """Pods that it shall have: ceil(N·w), the least asked for, one where it is routed to.

        Args:
            replicas: N, the fleet's size.
        """
        return max(pods_for(replicas, self.weight), self.least_pods, int(any(self.routes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What all steps depend on besides where the rollout is."""

    steps: Sequence[Step]
    replicas: int
    """N, the fleet's size."""
    surge: int
    """S, replicas beyond N that the rollout may take."""
    share: int
    """Percent that the new revision is commanded to get now."""
    routes: Routes
    """What is commanded to reach it beside that."""
    ready: int
    """Its ready pods."""
    confirmed: bool
    """Every Ready router serves that command."""
    analysis: Analysis
    judgement: Judgement
    """Of all requests of the attempt."""
    own_judgement: Judgement
    """Of the requests since the clock of the step under way started."""
    needed_requests: int = 0
    """Requests the new revision must have had before a timed pause ends."""

    @property
    def lacks_requests(self) -> bool:
        """Whether too few requests are known to end a timed pause."""
        return (self.judgement.requests or 0) < self.needed_requests

    def shown(self, position: Position) -> Judgement:
        """The judgement that is told: of an analysis step its own, unless the attempt failed."""
        own = (
            position.step < len(self.steps)
            and self.steps[position.step].analysis is not None
            and position.started_at is not None
            and self.judgement.verdict is not Verdict.FAILED
        )
        return self.own_judgement if own else self.judgement


class StepKind:
    """One kind of step; the defaults are those of one that is done once it is really served."""

    field: str
    """Of ``Step``, whose presence makes a step one of this kind."""

    def applies(self, step: Step) -> bool:
        """Whether a step is of this kind."""
        return getattr(step, self.field, None) is not None

    def allow(self, step: Step, before: Allowance, replicas: int) -> Allowance:
        """What the new revision may have from this step on.

        Args:
            step: of this kind.
            before: what the steps before it allow.
            replicas: N, the fleet's size.
        """
        del step, replicas
        return before

    def due(self, step: Step, context: StepContext, started_at: datetime) -> datetime | None:
        """When time alone ends the step, or its wait for a verdict; None when it does not."""
        del step, context, started_at
        return None

    def done(self, step: Step, context: StepContext, due: datetime | None, now: datetime) -> bool:
        """Whether the step is over; asked only while its clock runs."""
        del step, context, due, now
        return True

    def failure(self, context: StepContext, due: datetime | None, now: datetime) -> Failure | None:
        """Why the rollout goes back because of this step."""
        del context, due, now
        return None

    def needs_person(
        self, step: Step, context: StepContext, due: datetime | None, now: datetime
    ) -> str | None:
        """Why a person has to end the step, "" if that needs no word; None when nobody has to."""
        del step, context, due, now
        return None

    def wait(self, context: StepContext, until: str) -> tuple[str, str] | None:
        """Reason and words while the step waits for time or samples; None when it does not.

        Args:
            context: what steps depend on.
            until: `` until 12:00:00Z`` or nothing.
        """
        del context, until
        return None
