"""What may move a rollout, and what its transitions know besides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from llmfleet.api import RolloutSpec
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.state import (
    Cause,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Roll a revision out, from the served one or between two tries."""

    revision: str
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """A person ends the step under way, or all of them."""

    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GoBack:
    """A trigger asks the rollout to go back."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoTo:
    """A person asks for a kept revision; what is being rolled out is rejected."""

    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A person lifts a revision's rejection, or does not want to wait for its next try."""

    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A person wants new pods of the served revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """No pod is left of before the restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersede:
    """Spec asks for another revision than the one of the rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Spec asks for a superseded revision again, before its traffic is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """No request reaches the revision that went back, and routers have confirmed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """All traffic reaches the new revision, routers have confirmed it, and no step is left."""


Input = (
    Start | Promote | GoBack | UndoTo | Retry | Restart | Restarted | Supersede | Resume
    | Returned | Served
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What transitions know besides state and input."""

    now: datetime
    stable: str | None
    """The served revision."""
    spec: RolloutSpec
    """Settings of a rollout that begins."""
    next_id: int
    """Number of an attempt that begins."""
    rejected: frozenset[str]
    """Rejected hashes, before this input."""
    other_good: str | None = None
    """A good revision beside the one of the rollout and the served one, if one is kept."""
    kept: frozenset[str] = frozenset()
    """Hashes whose pod template is at hand."""
    way_back: bool = True
    """What the revision of the rollout has of the traffic may go to the served one: that is not
    rejected, or there is nothing to go."""
    carried_back: bool = True
    """The served revision has a ready pod to take it, or there is nothing to take."""
