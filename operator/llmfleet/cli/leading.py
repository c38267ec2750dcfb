"""Whether anybody keeps what a status says: the operator's Lease, and the pods that there are.

A status is the operator's last word. Once no operator runs, it stays as it was for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from llmfleet.api import clean_line
from llmfleet.cli.ages import age

JSON = dict[str, Any]

LEASE: Final = "llmfleet-operator"
"""Its name, in the operator's namespace (docs/contract.md)."""
MARGIN: Final = timedelta(seconds=10)
"""Beyond the Lease's duration: another replica takes it over within that."""
_DURATION_SECONDS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Leadership:
    """What is seen of the operator, and of pods where there is none."""

    problem: str | None = None
    """That nobody leads, since when, as a sentence; None while somebody does, or nobody knows."""
    unknown: str | None = None
    """Why nobody knows."""
    ready: Mapping[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    """By namespace, LLMDeployment and component: ready pods, and all that are not being deleted.
    Looked at only where nobody leads."""

    def pods_of(self, namespace: str, name: str) -> str:
        """The pods of an LLMDeployment, as a sentence."""
        engines = self.ready.get((namespace, name, "engine"), (0, 0))
        routers = self.ready.get((namespace, name, "router"), (0, 0))
        return (
            f"seen now: {engines[0]} of {engines[1]} engine pods and {routers[0]} of {routers[1]}"
            " router pods are ready"
        )


def find_problem(leases: Sequence[JSON], now: datetime) -> str | None:
    """That nobody leads, since when; None while somebody does.

    Operators of several namespaces have a Lease each. Whose an LLMDeployment is nobody can tell
    here, so one that is held is enough.

    Args:
        leases: those of the name ``LEASE``, of all namespaces that may be read.
        now: by the API server's clock.

    Example:
        >>> spec = {"holderIdentity": "", "renewTime": "2026-03-01T12:00:00.000000Z"}
        >>> now = datetime(2026, 3, 1, 12, 7, tzinfo=UTC)
        >>> find_problem([{"metadata": {"namespace": "sys"}, "spec": spec}], now)
        "nobody holds the operator's Lease sys/llmfleet-operator since 12:00:00Z, 7m ago"
        >>> find_problem([], now)
        'there is no Lease llmfleet-operator: no operator has led here'
    """
    if not leases:
        return f"there is no Lease {LEASE}: no operator has led here"
    problems = [(renewed, text) for each in leases for renewed, text in [_read(each, now)]]
    if any(text is None for _, text in problems):
        return None
    return max(problems, key=lambda each: each[0])[1]


def count_pods(
    pods: Iterable[JSON],
) -> dict[tuple[str, str, str], tuple[int, int]]:
    """``Leadership.ready`` of pods as listed."""
    ready: Counter[tuple[str, str, str]] = Counter()
    there: Counter[tuple[str, str, str]] = Counter()
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status") or {}
        labels = meta.get("labels") or {}
        if meta.get("deletionTimestamp") or status.get("phase") in {"Failed", "Succeeded"}:
            continue
        key = (
            meta["namespace"],
            labels.get("llmfleet.dev/deployment", ""),
            labels.get("llmfleet.dev/component", ""),
        )
        there[key] += 1
        ready[key] += any(
            each.get("type") == "Ready" and each.get("status") == "True"
            for each in status.get("conditions") or []
        )
    return {key: (ready[key], number) for key, number in there.items()}


def parse_time(value: object) -> datetime | None:
    """A time of Kubernetes; None for anything else."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def written_at(lease: JSON) -> datetime | None:
    """When a Lease was renewed last, by the API server's clock; None where it does not say.

    The API server notes its own time for whoever wrote ``renewTime``. That field itself has the
    time of the writer, whose clock may be anybody's.
    """
    entries = (lease.get("metadata") or {}).get("managedFields") or []
    found = (
        parse_time(each.get("time"))
        for each in entries
        if "f:renewTime" in ((each.get("fieldsV1") or {}).get("f:spec") or {})
    )
    return max((each for each in found if each is not None), default=None)


def _read(lease: JSON, now: datetime) -> tuple[datetime, str | None]:
    """When a Lease was renewed last, and why nobody holds it."""
    meta, spec = lease.get("metadata") or {}, lease.get("spec") or {}
    named = clean_line(f"{meta.get('namespace')}/{LEASE}")
    renewed = written_at(lease) or parse_time(spec.get("renewTime"))
    if renewed is None:
        return datetime.min.replace(tzinfo=UTC), f"the operator's Lease {named} was never renewed"
    since = f"{renewed.astimezone(UTC):%H:%M:%SZ}, {age(renewed, now)} ago"
    if not spec.get("holderIdentity"):
        return renewed, f"nobody holds the operator's Lease {named} since {since}"
    lasts = timedelta(seconds=float(spec.get("leaseDurationSeconds") or _DURATION_SECONDS))
    if now <= renewed + lasts + MARGIN:
        return renewed, None
    return renewed, f"the operator's Lease {named} was renewed last at {since}"
