"""The order of updates, against a model of Envoy: no request may ever meet a hole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmfleet_router.model import Command, Desired, Endpoint, build_routes
from llmfleet_router.updates import (
    AddClusters,
    Applied,
    RemoveClusters,
    SetEndpoints,
    SetRoutes,
    after,
    next_step,
    unrouted,
)
from tests.unit.router.strategies import desireds

A = (Endpoint(address="10.0.0.1", port=8000),)
B = (Endpoint(address="10.0.0.2", port=8000),)


def _no_hole(applied: Applied) -> None:
    """Every routed revision is a cluster; a routed one is empty only if all of them are."""
    if applied.routes is None:
        return
    routed = [revision for revision, _ in applied.routes.split]
    assert set(routed) <= set(applied.endpoints), "a route to a cluster Envoy does not have"


@given(wishes=st.lists(desireds, min_size=1, max_size=5), data=st.data())
@settings(max_examples=120, deadline=None)
def test_steps_when_wishes_change_at_any_moment_then_no_hole_and_they_converge(
    wishes: list[Desired], data: st.DataObject
) -> None:
    applied = Applied()
    for number, wish in enumerate(wishes):
        last = number == len(wishes) - 1
        # Each wish but the last may be replaced after any number of steps.
        steps = 50 if last else data.draw(st.integers(0, 6))
        for _ in range(steps):
            idle = unrouted(applied, wish) if last or data.draw(st.booleans()) else frozenset()
            step = next_step(applied, wish, idle)
            if step is None:
                break
            had = {r for r, e in applied.endpoints.items() if e}
            served = applied.routes and {r for r, _ in applied.routes.split} & had
            applied = after(applied, step)
            _no_hole(applied)
            if isinstance(step, SetRoutes) and any(
                wish.endpoints.get(r) for r in wish.command.revisions
            ):
                # The new routes are all answered: no share goes to an empty cluster.
                assert all(applied.endpoints[r] for r, _ in step.routes.split)
            if isinstance(step, SetEndpoints) and not step.endpoints and served:
                routed = {r for r, _ in applied.routes.split}
                able = {r for r in wish.command.revisions if wish.endpoints.get(r)}
                assert not able or step.revision not in routed
            if isinstance(step, RemoveClusters):
                assert step.revisions <= idle
    final = wishes[-1]
    assert final.command is not None
    assert next_step(applied, final, unrouted(applied, final)) is None
    assert set(applied.endpoints) == set(final.command.revisions)
    able = {r for r in final.command.revisions if final.endpoints.get(r)}
    assert applied.routes == build_routes(final.command, able)
    assert all(applied.endpoints[r] == final.endpoints.get(r, ()) for r in applied.endpoints)


def test_next_step_when_there_is_no_command_then_nothing_changes() -> None:
    applied = Applied(endpoints={"a": A})
    assert next_step(applied, Desired(endpoints={"b": B}), {"a"}) is None


def test_steps_when_a_revision_replaces_another_then_in_this_order() -> None:
    old = Command(generation=1, weights=(("a", 100),))
    new = Command(generation=2, weights=(("b", 100),))
    applied = Applied(endpoints={"a": A}, routes=build_routes(old, {"a"}))
    wish = Desired(command=new, endpoints={"b": B})
    steps = []
    while step := next_step(applied, wish, unrouted(applied, wish)):
        steps.append(step)
        applied = after(applied, step)
    assert steps == [
        AddClusters(endpoints={"b": B}),
        SetRoutes(routes=build_routes(new, {"b"})),
        SetEndpoints(revision="a", endpoints=()),
        RemoveClusters(revisions=frozenset({"a"})),
    ]


def test_cluster_when_requests_are_still_active_then_it_stays() -> None:
    new = Command(generation=2, weights=(("b", 100),))
    applied = Applied(endpoints={"a": (), "b": B}, routes=build_routes(new, {"b"}))
    wish = Desired(command=new, endpoints={"b": B})
    assert next_step(applied, wish, idle=()) is None
    assert next_step(applied, wish, idle={"a"}) == RemoveClusters(revisions=frozenset({"a"}))


def test_generation_when_only_it_changes_then_the_routes_are_written_again() -> None:
    one = Command(generation=1, weights=(("a", 100),))
    two = Command(generation=2, weights=(("a", 100),))
    applied = Applied(endpoints={"a": A}, routes=build_routes(one, {"a"}))
    step = next_step(applied, Desired(command=two, endpoints={"a": A}), ())
    assert step == SetRoutes(routes=build_routes(two, {"a"}))
