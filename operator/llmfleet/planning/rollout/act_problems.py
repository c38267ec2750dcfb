"""Why an act cannot be carried out, and what there is instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmfleet.planning.advice import command
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.state import (
    SUPERSEDED,
    BackingOff,
    Forward,
    Idle,
    Restarting,
    Returning,
    State,
    Undoing,
    Unreadable,
    attempt_of,
)

FULL: Final = "full"
"""In the place of a step: all of them."""
OF_A_STEP: Final = ("promote", "abort")
"""Acts that may name the step they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActContext:
    """What tells whether an act can be carried out."""

    facts: Facts
    state: State
    stable: str | None
    held: str | None


def current_revision(state: State) -> str | None:
    """The revision being rolled out, whichever way; None outside a rollout."""
    if isinstance(state, Unreadable):
        return state.revision
    attempt = attempt_of(state)
    return None if attempt is None or isinstance(state, BackingOff) else attempt.revision


def why_not(
    context: ActContext, act: str, revision: str, step: str | None, *, paused: bool
) -> str | None:
    """Why an act cannot be carried out, as the rest of a sentence about it; None when it can.

    Args:
        context: what it depends on.
        act: one of ``ACTS``.
        revision: the hash that it names.
        step: the step that it names, ``full``, or None.
        paused: the pause annotation is set.
    """
    if act == "promote" and paused:
        return "comes while llmfleet.dev/pause is set: remove that first, then ask again"
    problem = _problem(context, act, revision)
    return problem or _step_problem(context, act, step)


def _problem(context: ActContext, act: str, revision: str) -> str | None:
    match act:
        case "promote":
            return _promote_problem(context, revision)
        case "abort":
            return _abort_problem(context, revision)
        case "retry":
            return _retry_problem(context, revision)
        case "restart":
            return _restart_problem(context, revision)
    if isinstance(context.state, Unreadable):
        return f"comes in a rollout of which the record cannot be read: {context.state.problem}"
    return _undo_problem(context, revision)


def _step_problem(context: ActContext, act: str, step: str | None) -> str | None:
    """An act may be read long after it was written: at another step it means another thing."""
    if step is None or (step == FULL and act == "promote"):
        return None
    if step == FULL:
        return "names all steps, which only promote can be about"
    if act not in OF_A_STEP:
        return "names a step, which only promote and abort can be about"
    state = context.state
    position = state.position if isinstance(state, Forward) else None
    if not isinstance(state, Forward) or position is None:
        return "names a step of a rollout without steps"
    if int(step) == position.step:
        return None
    # It is told for as long as the annotation stays, when yet another step may be under way.
    return f"names step {step}, and step {position.step} of status.rollout was under way instead"


def _not_going(context: ActContext, revision: str) -> str | None:
    current = current_revision(context.state)
    if current != revision:
        now = f"{current} is" if current else "none is"
        return f"names a revision that is not being rolled out ({now}): see status.rollout"
    if isinstance(context.state, Returning):
        return "names a revision that is on its way back already"
    if context.stable is None:
        return "names the first revision: there is none to compare it with, or to go back to"
    return None


def _promote_problem(context: ActContext, revision: str) -> str | None:
    problem, state = _not_going(context, revision), context.state
    if problem is not None:
        return problem
    if context.facts.replicas == 0:
        return "comes while no replicas are wanted, and nothing moves: scale up first"
    if isinstance(state, Unreadable):
        return f"names a rollout of which this operator cannot read the record: {state.problem}"
    if not isinstance(state, Forward) or not state.attempt.stepwise:
        return "names a rollout without steps, which goes on by itself"
    position, steps = state.position, state.attempt.policy.effective_steps
    if position is not None and position.step >= len(steps):
        return "names a rollout whose steps are all over: it goes on by itself"
    return None


def _abort_problem(context: ActContext, revision: str) -> str | None:
    problem, stable = _not_going(context, revision), context.stable
    if problem is None and isinstance(context.state, Undoing) and stable in context.facts.rejected:
        return (
            f"would end an undo, and go back to {stable}, which was rejected by it:"
            f" {command(context.facts.deployment, 'retry', stable)} if that is meant"
        )
    return problem


def _retry_problem(context: ActContext, revision: str) -> str | None:
    attempt, state = attempt_of(context.state), context.state
    gave_up = (
        isinstance(state, Returning | BackingOff)
        and state.reason != SUPERSEDED
        and attempt is not None
        and attempt.revision == revision
    )
    if revision not in context.facts.rejected and not gave_up:
        return "names a revision that was neither rejected nor aborted: nothing to retry"
    return None


def _restart_problem(context: ActContext, revision: str) -> str | None:
    stable, state = context.stable, context.state
    if stable is None or revision != stable:
        return f"names a revision that is not the served one ({stable or 'none is'})"
    if isinstance(state, BackingOff):
        return f"comes while {state.attempt.revision} waits to be tried again: retry or change it"
    if not isinstance(state, Idle | Restarting):
        return "comes in a rollout, which replaces pods anyway: try again when it is over"
    if context.facts.replicas == 0:
        return "comes while no replicas are wanted: there are no pods to replace"
    return None


def _undo_problem(context: ActContext, revision: str) -> str | None:
    state, stable = context.state, context.stable
    if stable is None or stable in context.facts.rejected:
        return "comes while no good revision is served: try again when one is"
    problem = _target_problem(context.facts, revision)
    if problem is not None:
        return problem
    if isinstance(state, Undoing) and state.attempt.revision == revision:
        return "names the revision that is on its way up already"
    if context.held is not None and revision != stable:
        return f"cannot be carried out now: {context.held}"
    return None


def _target_problem(facts: Facts, revision: str) -> str | None:
    """Why a revision is none to go back to."""
    good = facts.memory.last_good
    served = {each.hash for each in facts.deployment.status.revisions if each.promoted_at}
    served |= {good.hash} if good is not None else set()
    kept = sorted((set(facts.revisions) & served) - {facts.spec_revision} - set(facts.rejected))
    if revision == facts.spec_revision:
        return f"names the revision that spec asks for: name one of {', '.join(kept) or 'none'}"
    if revision in facts.rejected:
        return "names a rejected revision: retry it, or name another"
    if revision not in facts.revisions:
        return f"names a revision that is not kept: kept are {', '.join(kept) or 'none'}"
    if revision not in served:
        return f"names a revision that was never served: name one of {', '.join(kept) or 'none'}"
    return None
