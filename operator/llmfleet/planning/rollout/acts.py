"""Acts: annotations by which people promote, abort, retry, undo or restart; each runs once.

``llmfleet.dev/promote: HASH@TOKEN`` names the revision it means (``HASH/full@TOKEN`` skips all
steps). A value is recorded as handled in the same status write as its effect. An act that cannot
be carried out is recorded too, and the condition ActRefused says why while it stays annotated.
``pause`` is a state, not an act: it lasts until it is removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from llmfleet.api import clean_line
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

ACTS: Final = ("abort", "undo", "retry", "promote", "restart")
"""In the order in which they are carried out when several are annotated at once."""
MAX_PAST_ACTS: Final = 200
TOGETHER: Final = "came together with {}, which was carried out: ask again if it is still meant"
MALFORMED: Final = "is not of the form HASH@TOKEN: take the hash from status and any new token"
PAUSED: Final = "comes while llmfleet.dev/pause is set: remove that first"
_VALUE: Final = re.compile(r"^([0-9a-f]+)(/full)?@(.+)$")
_LONGEST_VALUE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """What people ask for now."""

    handled: Mapping[str, str]
    """Act → its last value, those of now included."""
    past: tuple[str, ...]
    """Every value handled so far, as ``ACT VALUE``, the latest last."""
    run: Mapping[str, str]
    """Act → hash, to be carried out now."""
    full: bool = False
    """The promotion skips all steps."""
    refused: str | None = None
    """Why an act cannot be carried out, in a sentence."""
    paused: bool = False

    def withdraw(self, act: str, why: str) -> Acts:
        """The same without an act that turns out to have no effect, and the reason."""
        if act not in self.run:
            return self
        text = f"llmfleet.dev/{act}: {self.handled[act]} {why}"
        refused = text if self.refused is None else f"{self.refused}; {text}"
        return replace(
            self,
            run={name: revision for name, revision in self.run.items() if name != act},
            full=self.full and act != "promote",
            refused=refused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What tells whether an act can be carried out."""

    facts: Facts
    state: State
    stable: str | None
    held: str | None


def decide_acts(facts: Facts, state: State, stable: str | None, held: str | None) -> Acts:
    """Read the annotations.

    Args:
        facts: what is observed.
        state: of the rollout.
        stable: the served revision.
        held: why nothing may be rolled out now, or None.
    """
    current = _current(state)
    metadata, status = facts.deployment.metadata, facts.deployment.status
    # Status first: it is what memory is a copy of.
    handled = {**facts.memory.handled_acts, **status.handled_acts}
    found = {
        act: clean_line(value)[:_LONGEST_VALUE]  # as memory keeps it
        for act in ACTS
        if (value := metadata.annotations.get(f"llmfleet.dev/{act}"))
    }
    pause = metadata.annotations.get("llmfleet.dev/pause")
    paused = pause is not None and pause in {"true", current or facts.spec_revision}
    if status.schema_ is None:
        # A restored backup: its annotations were carried out in another life.
        return Acts(
            handled=handled | found,
            past=_past(facts, handled | found),
            run={},
            paused=paused,
        )
    fresh = {
        act: value
        for act, value in found.items()
        if handled.get(act) != value and f"{act} {value}" not in facts.memory.past_acts
    }
    context = _Context(facts=facts, state=state, stable=stable, held=held)
    run, full, refusals = _sort(context, fresh, paused=paused)
    now = {act: value for act, value in found.items() if act in run or _named(value, refusals)}
    return Acts(
        handled=handled | now,
        past=_past(facts, handled | now),
        run=run,
        full=full,
        refused="; ".join(refusals) or _still_refused(facts, found),
        paused=paused,
    )


def _sort(
    context: _Context, fresh: Mapping[str, str], *, paused: bool
) -> tuple[dict[str, str], bool, list[str]]:
    """What of these is carried out, whether a promotion skips all steps, and the refusals."""
    run: dict[str, str] = {}
    refusals, full = [], False
    for act, value in fresh.items():
        before = next((each for each in ("abort", "undo") if each in run), None)
        match = _VALUE.match(value)
        if before is not None:
            # Which of them was meant last nobody can tell, and going back loses nothing.
            problem: str | None = TOGETHER.format(before)
        elif match is None:
            problem = MALFORMED
        elif act == "promote" and paused:
            problem = PAUSED
        else:
            problem = _problem(context, act, match[1])
        if match is None or problem is not None:
            refusals.append(f"llmfleet.dev/{act}: {value} {problem}")
            continue
        run[act] = match[1]
        full = full or (act == "promote" and match[2] is not None)
    return run, full, refusals


def _past(facts: Facts, handled: Mapping[str, str]) -> tuple[str, ...]:
    """A value that comes back after another one must not run again either."""
    known = facts.memory.past_acts
    fresh = [each for act, value in handled.items() if (each := f"{act} {value}") not in known]
    return (*known, *fresh)[-MAX_PAST_ACTS:]


def _named(value: str, refusals: list[str]) -> bool:
    return any(f": {value} " in each for each in refusals)


def _still_refused(facts: Facts, found: Mapping[str, str]) -> str | None:
    """A refusal lasts as long as the annotation that it is about."""
    for condition in facts.deployment.status.conditions:
        if condition.type == "ActRefused" and any(
            f"llmfleet.dev/{act}: {value} " in condition.message for act, value in found.items()
        ):
            return condition.message
    return None


def _current(state: State) -> str | None:
    """The revision being rolled out, whichever way; None outside a rollout."""
    if isinstance(state, Unreadable):
        return state.revision
    attempt = attempt_of(state)
    return None if attempt is None or isinstance(state, BackingOff) else attempt.revision


def _problem(context: _Context, act: str, revision: str) -> str | None:
    """Why an act cannot be carried out, as the rest of a sentence about it."""
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


def _not_going(context: _Context, revision: str) -> str | None:
    current = _current(context.state)
    if current != revision:
        now = f"{current} is" if current else "none is"
        return f"names a revision that is not being rolled out ({now}): see status.rollout"
    if isinstance(context.state, Returning):
        return "names a revision that is on its way back already"
    if context.stable is None:
        return "names the first revision: there is none to compare it with, or to go back to"
    return None


def _promote_problem(context: _Context, revision: str) -> str | None:
    problem, state = _not_going(context, revision), context.state
    if problem is not None:
        return problem
    if context.facts.replicas == 0:
        return "comes while no replicas are wanted, and nothing moves: scale up first"
    if isinstance(state, Unreadable):
        return f"names a rollout of which this operator cannot read the record: {state.problem}"
    if not isinstance(state, Forward) or not state.attempt.stepwise:
        return "names a rollout without steps, which goes on by itself"
    return None


def _abort_problem(context: _Context, revision: str) -> str | None:
    problem, stable = _not_going(context, revision), context.stable
    if problem is None and isinstance(context.state, Undoing) and stable in context.facts.rejected:
        return (
            f"would end an undo, and go back to {stable}, which was rejected by it: annotate"
            f" llmfleet.dev/retry: {stable}@TOKEN if that is meant"
        )
    return problem


def _retry_problem(context: _Context, revision: str) -> str | None:
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


def _restart_problem(context: _Context, revision: str) -> str | None:
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


def _undo_problem(context: _Context, revision: str) -> str | None:
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
