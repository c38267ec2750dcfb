"""``analysis``: waits until the requests of this step have a verdict."""

from __future__ import annotations

from datetime import datetime, timedelta

from llmfleet.api import Step
from llmfleet.planning.analysis.judge import Verdict
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.steps.kind import StepContext, StepKind


class AnalysisStep(StepKind):
    """Done by a verdict on its own requests, or as ``onInconclusive`` says after maxDuration."""

    field = "analysis"

    def due(self, step: Step, context: StepContext, started_at: datetime) -> datetime | None:
        """``maxDuration`` after the clock started."""
        del step
        return started_at + timedelta(seconds=context.analysis.max_duration_seconds)

    def done(self, step: Step, context: StepContext, due: datetime | None, now: datetime) -> bool:
        """When it is successful, or has none in time and goes on for that."""
        del step
        if _successful(context):
            return True
        return _expired(context, due, now) and context.analysis.on_inconclusive == "Proceed"

    def failure(self, context: StepContext, due: datetime | None, now: datetime) -> Failure | None:
        """No verdict in time, where that means to go back."""
        if not _expired(context, due, now) or context.analysis.on_inconclusive != "Rollback":
            return None
        text = f"no verdict in {context.analysis.max_duration}: {context.own_judgement.message}"
        return Failure(reason="AnalysisInconclusive", message=text, rejected=True)

    def needs_person(
        self, step: Step, context: StepContext, due: datetime | None, now: datetime
    ) -> str | None:
        """No verdict in time, where that means to hold."""
        del step
        if not _expired(context, due, now):
            return None
        return f"the analysis has no verdict ({context.own_judgement.message})"

    def wait(self, context: StepContext, until: str) -> tuple[str, str] | None:
        """What is known so far, and until when."""
        return "Analyzing", f"is judged, {context.own_judgement.message}; at the longest{until}"


def _successful(context: StepContext) -> bool:
    return context.own_judgement.verdict is Verdict.SUCCESSFUL


def _expired(context: StepContext, due: datetime | None, now: datetime) -> bool:
    return due is not None and now >= due and not _successful(context)
