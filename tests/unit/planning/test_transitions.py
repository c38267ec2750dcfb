"""The table of the rollout's states: every state with every input, and what no input may do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest

from llmfleet.api import RolloutSpec, RolloutStatus
from llmfleet.planning.rollout.attempt import Attempt, Position, freeze
from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.inputs import (
    Context,
    GoBack,
    Input,
    Promote,
    Restart,
    Restarted,
    Resume,
    Retry,
    Returned,
    Served,
    Start,
    Supersede,
    UndoTo,
)
from llmfleet.planning.rollout.record import read_state, write_state
from llmfleet.planning.rollout.state import (
    WORDS,
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
from llmfleet.planning.rollout.transitions import (
    TRANSITIONS,
    transition,
)
from tests.unit.planning.fleet import START

STABLE, TARGET, KEPT, OTHER = "a" * 10, "b" * 10, "c" * 10, "d" * 10
SPEC = RolloutSpec.model_validate({"steps": [{"setWeight": 10}, {"pause": {}}]})


def attempt(**facts: Any) -> Attempt:
    made = Attempt(
        id=7, revision=TARGET, policy=SPEC, plan=freeze(SPEC, steps=True), started_at=START,
        progressed_at=START,
    )  # fmt: skip
    return replace(made, **facts)


LATER = START + timedelta(minutes=5)
STATES: dict[str, State] = {
    "idle": Idle(),
    "forward": Forward(attempt=attempt(), position=Position(step=1, started_at=START)),
    "forward without steps": Forward(attempt=attempt()),
    "forward again": Forward(attempt=attempt(tries=2), position=Position()),
    "undoing": Undoing(attempt=attempt(), cause="Undo"),
    "rolling back": Undoing(attempt=attempt(), cause="Rollback"),
    "returning, rejected": Returning(attempt=attempt(), reason="UserAbort"),
    "returning, aborted": Returning(
        attempt=attempt(tries=1), reason="ImagePullFailed", retry_at=LATER
    ),
    "returning, superseded": Returning(attempt=attempt(), reason="Superseded", position=Position()),
    "returning to undo": Returning(attempt=attempt(), reason="UserUndo", undo_target=KEPT),
    "backing off": BackingOff(attempt=attempt(tries=1), reason="ImagePullFailed", retry_at=LATER),
    "exhausted": BackingOff(attempt=attempt(tries=4), reason="ImagePullFailed", retry_at=None),
    "restarting": Restarting(revision=STABLE, since=START),
    "unreadable": Unreadable(record={"revision": TARGET}, revision=TARGET, problem="?"),
}
REJECTED = Failure(reason="EngineExited", message="ended", rejected=True)
ABORTED = Failure(reason="ImagePullFailed", message="no image", rejected=False)
INPUTS: dict[str, Input] = {
    "start": Start(revision=KEPT),
    "start undo": Start(revision=KEPT, cause="Undo"),
    "promote": Promote(),
    "promote fully": Promote(full=True),
    "go back": GoBack(failure=REJECTED),
    "go back, not its fault": GoBack(failure=ABORTED),
    "undo": UndoTo(revision=KEPT),
    "undo to the served": UndoTo(revision=STABLE),
    "retry": Retry(revision=TARGET),
    "retry another": Retry(revision=OTHER),
    "restart": Restart(),
    "restarted": Restarted(),
    "supersede": Supersede(),
    "resume": Resume(),
    "returned": Returned(),
    "served": Served(),
}
CONTEXTS = {
    "served": Context(
        now=START, stable=STABLE, spec=SPEC, next_id=8, rejected=frozenset(), other_good=OTHER
    ),
    "nothing served": Context(
        now=START, stable=None, spec=SPEC, next_id=8, rejected=frozenset()
    ),
    "rejected is served": Context(
        now=START, stable=STABLE, spec=SPEC, next_id=8, rejected=frozenset({STABLE}),
        other_good=OTHER,
    ),
    "the undo's target was rejected": Context(
        now=START, stable=STABLE, spec=SPEC, next_id=8, rejected=frozenset({KEPT})
    ),
}  # fmt: skip


def test_states_and_inputs_when_listed_then_every_kind_is_walked() -> None:
    assert {type(each) for each in STATES.values()} == set(get_args(State))
    assert {type(each) for each in INPUTS.values()} == set(get_args(Input))
    assert {state for state, _ in TRANSITIONS} == set(get_args(State))
    assert {asked for _, asked in TRANSITIONS} == set(get_args(Input))


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("where", CONTEXTS)
def test_transition_when_any_input_meets_any_state_then_what_follows_can_be(
    name: str, where: str
) -> None:
    for asked in INPUTS.values():
        check(STATES[name], asked, CONTEXTS[where])


def check(state: State, asked: Input, context: Context) -> None:
    """What must hold whatever the three are."""
    after = transition(state, asked, context)
    if (type(state), type(asked)) not in TRANSITIONS:
        assert after is state
    before, now_at = attempt_of(state), attempt_of(after)
    # A new attempt has a number of its own and begins at the first step; an old one keeps its own.
    if now_at is not None and (before is None or now_at.id != before.id):
        assert now_at.id == context.next_id
        assert now_at.started_at == context.now
        if isinstance(after, Forward):
            assert after.position in (None, Position())
    # Up to another revision leads a start or an undo alone, and never from a rollout under way:
    # there are never three arms.
    if isinstance(after, Forward | Undoing) and now_at is not None and now_at is not before:
        fresh = before is None or now_at.revision != before.revision
        gives_up = isinstance(state, Undoing) and isinstance(asked, GoBack)
        assert not (fresh and isinstance(state, Forward | Undoing)) or gives_up
        if not isinstance(asked, Start | UndoTo):  # those are never asked for a rejected one
            assert now_at.revision not in context.rejected
    # A rollout ends only where its traffic is back, or where it has become the served one.
    if isinstance(state, Forward | Undoing) and isinstance(after, Idle):
        assert isinstance(asked, Served) or context.stable is None
    if isinstance(state, Returning) and not isinstance(after, Returning):
        assert isinstance(asked, Returned | Resume)
    # Whoever goes back has a reason, and whoever waits was given a time or waits for a person.
    if isinstance(after, Returning):
        assert after.reason
        assert (after.retry_at is None) or after.attempt.tries


@pytest.mark.parametrize("name", STATES)
def test_state_when_written_and_read_then_it_is_the_same(name: str) -> None:
    state = STATES[name]
    record = write_state(state)
    if isinstance(state, Unreadable):
        assert record == state.record
        return
    parsed = None if record is None else RolloutStatus.model_validate(record)
    found = read_state(parsed, record, stable=STABLE, spec=RolloutSpec(), now=LATER)
    assert found == state
    assert record is None or record["state"] == WORDS[type(state)]


def test_state_when_november_wrote_it_then_it_is_read_without_the_word() -> None:
    back = write_state(STATES["returning, aborted"]) or {}
    del back["state"]
    found = read_state(
        RolloutStatus.model_validate(back), back, stable=STABLE, spec=SPEC, now=LATER
    )
    assert isinstance(found, Returning)
    assert isinstance(transition(found, Returned(), CONTEXTS["served"]), BackingOff)
