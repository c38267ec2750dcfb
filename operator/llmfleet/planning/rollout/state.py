"""Where a rollout is, as a value.

Every state is a class of its own, so that what cannot be is not sayable: only a rollout on its way
back has a reason for it, only one between two tries has a time of the next. ``transitions`` says
which state follows which, and ``record`` alone reads and writes them in ``status.rollout``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from llmfleet.api import (
    RolloutSpec,
)
from llmfleet.planning.rollout.attempt import Attempt, Position, freeze
from llmfleet.planning.snapshot import JSON

Cause = Literal["Undo", "Rollback"]
"""Why a kept revision is rolled out: a person's ``undo``, or spec went back to it."""
SUPERSEDED: Final = "Superseded"
"""Why a rollout goes back when spec asks for another revision meanwhile."""
RETRIED: Final = "Retried"
"""Why it still goes back when a person asks for a new try of it before it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """No rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The revision that spec asks for is on its way up."""

    attempt: Attempt
    position: Position | None = None
    """None for a rollout without steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undoing:
    """A kept revision is on its way up, without steps."""

    attempt: Attempt
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """The rollout goes back: its revision loses its traffic to the served one."""

    attempt: Attempt
    reason: str
    """CamelCase; ``Superseded`` when nothing was wrong with it."""
    retry_at: datetime | None = None
    """When it is tried again, if the end was not its fault."""
    undo_target: str | None = None
    """Kept revision to roll out once the traffic is back."""
    position: Position | None = None
    """Where it was, in case spec asks for it again before it is back."""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackingOff:
    """Between two tries of the revision that spec asks for."""

    attempt: Attempt
    reason: str
    retry_at: datetime | None
    """None = it was tried often enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarting:
    """No rollout: the served revision's pods are replaced one by one, by others of the same."""

    revision: str
    since: datetime
    """Pods made before are replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """The record was written by a newer operator or by hand: everything is left as it is."""

    record: JSON
    """As stored."""
    revision: str | None
    problem: str
    """What cannot be read, as a sentence."""


State = Idle | Forward | Undoing | Returning | BackingOff | Restarting | Unreadable
Going = Forward | Undoing
"""States of a rollout on its way up."""
WORDS: Final = {
    Forward: "Forward", Undoing: "Undoing", Returning: "Returning", BackingOff: "BackingOff",
    Restarting: "Restarting",
}  # fmt: skip
"""What ``status.rollout.state`` says."""


def attempt_of(state: State) -> Attempt | None:
    """The attempt that a state is about; None outside a rollout."""
    return None if isinstance(state, Idle | Restarting | Unreadable) else state.attempt


def begin(
    revision: str,
    *,
    number: int,
    policy: RolloutSpec,
    cause: Cause | None,
    stable: str | None,
    now: datetime,
    tries: int = 0,
) -> Going:
    """The first state of a new attempt.

    Args:
        revision: to roll out.
        number: of the attempt.
        policy: spec's settings, frozen from here on.
        cause: of a rollout to a kept revision, which has no steps.
        stable: the served revision; without one there is nothing to compare with, so no steps.
        now: the time of the decision.
        tries: earlier ones of this revision that ended without its fault.
    """
    plan = freeze(policy, steps=cause is None)
    frozen = RolloutSpec.model_validate(plan)
    attempt = Attempt(
        id=number, revision=revision, policy=frozen, plan=plan, started_at=now,
        progressed_at=now, tries=tries,
    )  # fmt: skip
    if cause is not None:
        return Undoing(attempt=attempt, cause=cause)
    stepwise = stable is not None and policy.strategy != "RollingUpdate"
    return Forward(attempt=attempt, position=Position() if stepwise else None)
