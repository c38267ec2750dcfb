"""The whole intended state of one LLMDeployment: the only output of a decision.

``cluster.apply`` performs a plan in this order: status first (a decision is recorded before it is
acted on), then ``children``, then ``deletions``. Applying a plan twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llmfleet.planning.snapshot import JSON, ObjectKey


class ChildMode(StrEnum):
    """How a child is written."""

    APPLY = "Apply"
    """Created by POST, then kept equal to the intent by conditional server-side apply."""
    CREATE_ONCE = "CreateOnce"
    """POST if absent; never changed, and for Secrets never read (409 = already there)."""
    ADOPT = "Adopt"
    """It is there, and gets its owner references; nothing else of it can change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An object that must exist with this body."""

    key: ObjectKey
    mode: ChildMode
    body: JSON
    """Complete manifest, digest annotation included."""
    urgent: bool = False
    """A new LLMDeployment's is made before its status, and before anything of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """An object that must go, only if it is still the one that was observed."""

    key: ObjectKey
    uid: str
    resource_version: str | None
    """None: whatever became of it since, as long as it is the same object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEvent:
    """A Kubernetes Event on the LLMDeployment; planned only on transitions."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str
    occurrence: str = ""
    """What tells two transitions that read alike: the attempt, its step, the split, the acts."""
    detail: bool = False
    """It belongs to another of the same plan, which says more: no bell is rung for it."""


class Result(StrEnum):
    """How an attempt to roll a revision out ended."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    """It failed by its own fault, or a person ended it."""
    ABORTED = "aborted"
    """It is tried again, or spec asks for another revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of an attempt; planned once."""

    revision: str
    result: Result
    reason: str
    """Promoted, or the reason of the failure."""
    seconds: float
    """Since the attempt began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What shall be true next, and when to look again."""

    status: JSON | None
    """The complete status to record; None = write no status (``status.schema`` is newer)."""
    children: tuple[Child, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    events: tuple[PlannedEvent, ...] = ()
    outcome: Outcome | None = None
    requeue_after: float | None = None
    """Seconds until time alone may change the decision; None = only an event can."""
    summary: str = ""
    """One sentence: what this plan does and why."""
