"""Publishes transitions by Events, webhook and counters, and what is under way by gauges."""

from __future__ import annotations

from llmfleet.cluster import metrics
from llmfleet.cluster.event_recorder import EventRecorder
from llmfleet.cluster.notifying import Notifier
from llmfleet.cluster.store import Owner
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
        """Post an Event about the LLMDeployment ``raw``, and queue it for the webhook."""
        if await self._events.post(raw, event):
            self._notifier.send(raw, event, status or {})


class RolloutGauges:
    """Series of the rollouts under way; those that ended leave none behind."""

    def __init__(self) -> None:
        self._shown: dict[Owner, tuple[str, str]] = {}

    def show(self, owner: Owner, status: JSON | None) -> None:
        """Set or remove an LLMDeployment's series."""
        rollout = (status or {}).get("rollout") or {}
        revision, phase = rollout.get("revision"), (status or {}).get("phase")
        if not revision or not phase or rollout.get("aborted"):
            self.forget(owner)
            return
        if self._shown.get(owner) != (revision, phase):
            self.forget(owner)
            self._shown[owner] = (revision, phase)
            metrics.ROLLOUT_PHASE.labels(*owner, revision, phase).set(1)
        weight = (status or {}).get("canaryWeight") or 0
        metrics.ROLLOUT_WEIGHT.labels(*owner, revision).set(weight)
        metrics.ROLLOUT_STEP.labels(*owner, revision).set(rollout.get("step") or 0)

    def forget(self, owner: Owner) -> None:
        """Remove an LLMDeployment's series."""
        shown = self._shown.pop(owner, None)
        if shown is not None:
            revision, phase = shown
            metrics.ROLLOUT_PHASE.remove(*owner, revision, phase)
            metrics.ROLLOUT_WEIGHT.remove(*owner, revision)
            metrics.ROLLOUT_STEP.remove(*owner, revision)
