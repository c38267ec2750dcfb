"""Whether a status is consistent: one written by hand, or half restored, is not acted on."""

from __future__ import annotations

from typing import Final

from llmfleet.planning.facts.read import Facts, routed_to
from llmfleet.planning.rollout.attempt import Attempt
from llmfleet.planning.rollout.state import (
    Forward,
    Idle,
    State,
    Unreadable,
    attempt_of,
)

LARGEST_GENERATION: Final = 2**63 - 2
"""The next one must fit the CRD's int64."""


def check_consistency(facts: Facts, state: State) -> State:
    """The state, or ``Unreadable`` with the contradiction that stands in its way.

    Outside a rollout nothing is built on what status says of traffic: what is up is served, and
    the command is put right. A rollout of which nothing but its record is left is over: the
    operator ended before it made anything, and spec, which asked for it then, asks for another
    revision now.
    """
    problem = _generation_problem(facts)
    if attempt_of(state) is not None:
        problem = problem or _traffic_problem(facts)
    if problem is None and isinstance(state, Forward) and _was_only_recorded(facts, state):
        return Idle()
    problem = problem or _rollout_problem(facts, state)
    if problem is None or isinstance(state, Unreadable):
        return state
    attempt, stored = attempt_of(state), facts.stored_rollout
    return Unreadable(
        record=dict(stored) if isinstance(stored, dict) else {},
        revision=attempt.revision if attempt is not None else None,
        problem=problem,
    )


def _generation_problem(facts: Facts) -> str | None:
    if (facts.generation or 0) <= LARGEST_GENERATION:
        return None
    return f"status.trafficGeneration {facts.generation} cannot rise any more"


def _was_only_recorded(facts: Facts, state: Forward) -> bool:
    revision = state.attempt.revision
    return revision not in facts.known and revision == facts.deployment.status.spec_revision


def _traffic_problem(facts: Facts) -> str | None:
    total = sum(facts.traffic.values())
    foreign = sorted((set(facts.traffic) | routed_to(facts.routing)) - facts.known)
    served = facts.deployment.status.served_revision
    if facts.traffic and total != 100:
        return f"status.traffic adds up to {total} %"
    if foreign:
        return f"status sends requests to {', '.join(foreign)}, of which nothing is known"
    if served is not None and served not in facts.known and facts.traffic:
        return f"status.servedRevision {served} is one of which nothing is known"
    return None


def _rollout_problem(facts: Facts, state: State) -> str | None:
    attempt = attempt_of(state)
    if attempt is None:
        return None
    steps = attempt.policy.effective_steps
    if isinstance(state, Forward) and state.position and state.position.step > len(steps):
        return f"status.rollout.step is {state.position.step}, and there are {len(steps)} steps"
    return _revision_problem(facts, attempt)


def _revision_problem(facts: Facts, attempt: Attempt) -> str | None:
    if attempt.revision in facts.known:
        return None
    return f"status.rollout.revision {attempt.revision} is one of which nothing is known"
