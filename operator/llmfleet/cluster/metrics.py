"""The operator's own Prometheus metrics (names: docs/contract.md, Operator)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECONCILES: Final = Counter(
    "llmfleet_reconcile_total",
    "Reconciles by result: unchanged, changed, conflict, gone, unreadable, error, crash.",
    ["result"],
)
RECONCILE_SECONDS: Final = Histogram(
    "llmfleet_reconcile_seconds", "Duration of one reconcile, observing and applying included."
)
API_WRITES: Final = Counter(
    "llmfleet_api_writes_total",
    "Write requests sent to the API server, refused ones included.",
    ["kind", "verb"],
)
API_ERRORS: Final = Counter(
    "llmfleet_api_errors_total", "API calls that failed, by error type.", ["error"]
)
OBJECTS: Final = Gauge("llmfleet_objects", "LLMDeployments by phase.", ["phase"])
PHASE: Final = Gauge(
    "llmfleet_phase", "1 for the phase of an LLMDeployment.", ["namespace", "name", "phase"]
)
AVAILABLE: Final = Gauge(
    "llmfleet_available",
    "1 while an LLMDeployment's clients get answers (its condition Available), else 0; no series at"
    " zero replicas, before the first revision is served, and while nobody can tell.",
    ["namespace", "name"],
)
REJECTED: Final = Gauge(
    "llmfleet_rejected",
    "1 while spec asks for a revision that was rejected (its condition RolledBack).",
    ["namespace", "name", "revision"],
)
LEADER: Final = Gauge("llmfleet_leader", "1 while this replica holds the lease.")
CRD_OUTDATED: Final = Gauge(
    "llmfleet_crd_outdated",
    "1 while the installed CRD lacks fields this operator writes. Fix: kubectl apply the CRD of "
    "this operator's version (crds/, or helm upgrade).",
)
NEWER_STATUS_SCHEMA: Final = Gauge(
    "llmfleet_newer_status_schema",
    "LLMDeployments whose status was written by a newer operator; they are left as they are. "
    "Fix: upgrade this operator.",
)
WATCH_RESTARTS: Final = Counter(
    "llmfleet_watch_restarts_total", "Watches started again, by kind and cause.", ["kind", "cause"]
)
BACKGROUND_RESTARTS: Final = Counter(
    "llmfleet_background_restarts_total",
    "Background tasks that died of an error and were started again, by task.",
    ["task"],
)
ROLLOUTS: Final = Counter(
    "llmfleet_rollouts_total",
    "Attempts to roll a revision out that ended, by result: promoted, rejected, aborted.",
    ["result"],
)
ROLLOUT_ABORTS: Final = Counter(
    "llmfleet_rollout_aborts_total",
    "Attempts that were rejected or aborted, by reason.",
    ["reason"],
)
ROLLOUT_SECONDS: Final = Histogram(
    "llmfleet_rollout_duration_seconds",
    "From the start of an attempt to its end, by result.",
    ["result"],
    buckets=(10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400),
)
_ROLLOUT: Final = ["namespace", "name", "revision"]
ROLLOUT_PHASE: Final = Gauge(
    "llmfleet_rollout_phase",
    "1 for the phase of an LLMDeployment whose rollout is under way.",
    [*_ROLLOUT, "phase"],
)
ROLLOUT_WEIGHT: Final = Gauge(
    "llmfleet_rollout_weight", "Percent of the requests that the revision on its way up gets.",
    _ROLLOUT,
)  # fmt: skip
ROLLOUT_STEP: Final = Gauge(
    "llmfleet_rollout_step", "Index of the step under way, from 0.", _ROLLOUT
)
NOTIFICATIONS: Final = Counter(
    "llmfleet_notifications_total",
    "Notifications to the webhook by result: sent, failed, dropped.",
    ["result"],
)
CHILD_EDITS: Final = Counter(
    "llmfleet_child_edits_total",
    "Children edited by others and put back, by kind.",
    ["kind"],
)
ROUTER_POLLS: Final = Counter(
    "llmfleet_router_polls_total", "Questions to routers by result: answered, failed.", ["result"]
)
EVENTS: Final = Counter(
    "llmfleet_events_total",
    "Events by result: posted, deduplicated, suppressed, failed.",
    ["result"],
)
