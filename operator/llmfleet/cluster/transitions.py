"""Publishes transitions by Events, webhook and counters."""

from __future__ import annotations

from llmfleet.cluster import metrics
from llmfleet.cluster.event_recorder import EventRecorder
from llmfleet.cluster.notifying import Notifier
from llmfleet.planning.plan import Plan, PlannedEvent, Result
from llmfleet.planning.snapshot import JSON


class Transitions:
    """Where the events of a plan go.

    Args:
        events: posts Kubernetes Events.
        notifier: sends the same to a webhook.
    """

    def __init__(self, events: EventRecorder, notifier: Notifier) -> None:
        self._events = events
        self._notifier = notifier

    def count(self, plan: Plan) -> None:
        """Count the end of a rollout, once its status is recorded."""
        outcome = plan.outcome
        if outcome is None:
            return
        metrics.ROLLOUTS.labels(outcome.result).inc()
        metrics.ROLLOUT_SECONDS.labels(outcome.result).observe(outcome.seconds)
        if outcome.result is not Result.PROMOTED:
            metrics.ROLLOUT_ABORTS.labels(outcome.reason).inc()

    async def publish(self, raw: JSON, event: PlannedEvent, status: JSON | None) -> None:
        """Post an Event about the LLMDeployment ``raw``; details are not sent to the webhook."""
        if await self._events.post(raw, event) and not event.detail:
            self._notifier.send(raw, event, status or {})
