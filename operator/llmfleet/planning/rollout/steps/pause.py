"""``pause``: waits for a time, or for a person."""

from __future__ import annotations

from datetime import datetime, timedelta

from llmfleet.api import Step, parse_duration_seconds
from llmfleet.planning.rollout.steps.kind import StepContext, StepKind


class Pause(StepKind):
    """Done when its time is over and enough requests are known; without a time, never by itself."""

    field = "pause"

    def due(self, step: Step, context: StepContext, started_at: datetime) -> datetime | None:
        """``duration`` after the clock started."""
        del context
        if step.pause is None or step.pause.duration is None:
            return None
        return started_at + timedelta(seconds=parse_duration_seconds(step.pause.duration))

    def done(self, step: Step, context: StepContext, due: datetime | None, now: datetime) -> bool:
        """When its time is over, and the requests that it waits for have come."""
        del step
        return due is not None and now >= due and not context.lacks_requests

    def needs_person(
        self, step: Step, context: StepContext, due: datetime | None, now: datetime
    ) -> str | None:
        """Without a duration; or when the requests that it waits for cannot be counted."""
        del due, now
        if context.lacks_requests and context.judgement.requests is None:
            needed = f"the {context.needed_requests} requests that it needs cannot be counted"
            return f"{needed} ({context.judgement.message})"
        return "" if step.pause is not None and step.pause.duration is None else None

    def wait(self, context: StepContext, until: str) -> tuple[str, str] | None:
        """Until when it pauses, and for which requests."""
        if context.lacks_requests:
            had = context.judgement.requests
            so_far = "unknown" if had is None else had
            needed = f"{context.needed_requests} requests there ({so_far} so far)"
            until = f"{until}, and until it has had {needed}"
        return "StepPause", f"pauses{until}"
