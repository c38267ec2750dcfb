"""When a draining pod may stop its engine. Pure: time comes in as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DrainAct(StrEnum):
    """What to do now."""

    SERVE = "Serve"
    """Keep answering; requests still arrive or run."""
    STOP_ENGINE = "StopEngine"
    """Send the engine SIGTERM: all is quiet, or the time is nearly over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """The times of a drain, in seconds.

    ``timeout`` is the pod's grace period. Endpoints take a moment to disappear from routers, so a
    pod serves for at least ``minimum`` and until ``quiet`` has passed since the last arrival.
    ``reserve`` is kept for vLLM's own shutdown, which ends what is still running then.
    """

    timeout: float
    quiet: float = 2.0
    minimum: float = 5.0

    @property
    def reserve(self) -> float:
        """Seconds before ``timeout`` at which the engine is stopped in any case.

        >>> DrainPolicy(timeout=300).reserve, DrainPolicy(timeout=8).reserve
        (6.0, 2.0)
        """
        return min(6.0, self.timeout / 4)

    @property
    def engine_shutdown_timeout(self) -> int:
        """VLLM's ``--shutdown-timeout``: what is still running at the end gets these seconds."""
        return max(1, int(self.reserve - 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainState:
    """What is known while draining; times on one monotonic clock."""

    started: float
    last_arrival: float
    """When a request last arrived; at the earliest ``started``."""
    in_flight: int


def decide_drain(policy: DrainPolicy, state: DrainState, now: float) -> DrainAct:
    """Serve on, or stop the engine.

    Requests in flight are waited for here, with the engine still serving, rather than in vLLM's
    own shutdown, which refuses late arrivals with a 500.

    >>> policy = DrainPolicy(timeout=60)
    >>> decide_drain(policy, DrainState(started=0, last_arrival=4, in_flight=0), now=5.5).value
    'Serve'
    >>> decide_drain(policy, DrainState(started=0, last_arrival=4, in_flight=0), now=6).value
    'StopEngine'
    """
    elapsed = now - state.started
    if elapsed >= policy.timeout - policy.reserve:
        return DrainAct.STOP_ENGINE
    quiet = now - max(state.started, state.last_arrival) >= policy.quiet
    if quiet and elapsed >= policy.minimum and state.in_flight <= 0:
        return DrainAct.STOP_ENGINE
    return DrainAct.SERVE
