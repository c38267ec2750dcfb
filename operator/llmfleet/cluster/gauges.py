"""What the metrics show of each LLMDeployment, by its name: what alerts are made of."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Gauge

from llmfleet.cluster import metrics
from llmfleet.cluster.store import Owner
from llmfleet.planning.snapshot import JSON

Series = tuple[Gauge, tuple[str, ...]]
"""A metric and the values of its labels."""


class ObjectGauges:
    """Series of the LLMDeployments that there are; what is over leaves none behind."""

    def __init__(self) -> None:
        self._shown: dict[Owner, dict[Series, float]] = {}

    def show(self, owner: Owner, status: JSON | None) -> None:
        """Set an LLMDeployment's series, and remove those that it has no longer."""
        self._set(owner, dict(_series(owner, status or {})))

    def forget(self, owner: Owner) -> None:
        """Remove an LLMDeployment's series."""
        self._set(owner, {})

    def _set(self, owner: Owner, wanted: dict[Series, float]) -> None:
        shown = self._shown.pop(owner, {})
        for gauge, labels in shown.keys() - wanted.keys():
            gauge.remove(*labels)
        for (gauge, labels), value in wanted.items():
            if shown.get((gauge, labels)) != value:
                gauge.labels(*labels).set(value)
        if wanted:
            self._shown[owner] = wanted


def _series(owner: Owner, status: JSON) -> Iterator[tuple[Series, float]]:
    phase = status.get("phase")
    if not phase:
        return
    yield (metrics.PHASE, (*owner, phase)), 1
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    # Nobody is to be served at zero replicas, and nobody was yet before the first revision is.
    wanted = status.get("servedRevision") and not str(status.get("ready")).endswith("/0")
    if wanted and conditions.get("Available") != "Unknown":
        yield (metrics.AVAILABLE, owner), conditions.get("Available") == "True"
    if conditions.get("RolledBack") == "True":
        yield (metrics.REJECTED, (*owner, status.get("specRevision") or "")), 1
    rollout = status.get("rollout") or {}
    revision = rollout.get("revision")
    if revision and not rollout.get("aborted"):
        yield (metrics.ROLLOUT_PHASE, (*owner, revision, phase)), 1
        yield (metrics.ROLLOUT_WEIGHT, (*owner, revision)), status.get("canaryWeight") or 0
        yield (metrics.ROLLOUT_STEP, (*owner, revision)), rollout.get("step") or 0
