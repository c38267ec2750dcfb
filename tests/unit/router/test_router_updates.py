"""The order of updates, against a model of Envoy: no request may ever meet a hole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfleet_router.model import Command, Desired, Endpoint, build_routes
from llmfleet_router.routing import HeaderMatch, HeaderRoute, Mirror, Routing
from llmfleet_router.updates import (
    AddClusters,
    Applied,
    Clusters,
    RemoveClusters,
    SetEndpoints,
    SetRoutes,
    Step,
    after,
    next_step,
    unrouted,
)
from tests.unit.router.strategies import desireds

A = (Endpoint(address="10.0.0.1", port=8000),)
B = (Endpoint(address="10.0.0.2", port=8000),)


def idle(*revisions: str) -> Clusters:
    return Clusters(revisions=frozenset(revisions))


def all_steps(applied: Applied, wish: Desired) -> list[Step]:
    """Every step to the wish, with whatever is left over idle."""
    steps: list[Step] = []
    while step := next_step(applied, wish, unrouted(applied, wish)):
        steps.append(step)
        applied = after(applied, step)
    return steps


def _no_hole(applied: Applied) -> None:
    """What a route names is there; only the split may lead to no endpoint."""
    assert applied.mirrors <= set(applied.endpoints), "a mirror whose endpoints nobody follows"
    if applied.routes is None:
        return
    routing = applied.routes.routing
    assert applied.routes.revisions <= set(applied.endpoints), "a route to a missing cluster"
    assert routing.mirrors <= applied.mirrors, "a mirror without its cluster"
    assert all(applied.endpoints[revision] for revision in routing.revisions)


@pytest.mark.long
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
            idle = unrouted(applied, wish) if last or data.draw(st.booleans()) else Clusters()
            step = next_step(applied, wish, idle)
            if step is None:
                break
            had = {r for r, e in applied.endpoints.items() if e}
            served = applied.routes and {r for r, _ in applied.routes.split} & had
            applied = after(applied, step)
            _no_hole(applied)
            if isinstance(step, SetRoutes) and any(
                wish.endpoints.get(r) for r, _ in wish.command.weights
            ):
                # The new routes are all answered: no share goes to an empty cluster.
                assert all(applied.endpoints[r] for r, _ in step.routes.split)
            if isinstance(step, SetEndpoints) and not step.endpoints and served:
                routed = {r for r, _ in applied.routes.split}
                able = {r for r, _ in wish.command.weights if wish.endpoints.get(r)}
                assert not able or step.revision not in routed
            if isinstance(step, RemoveClusters):
                assert step.clusters & idle == step.clusters
    final = wishes[-1]
    assert final.command is not None
    assert next_step(applied, final, unrouted(applied, final)) is None
    assert set(applied.endpoints) == {*final.command.revisions, *final.endpoints}
    assert applied.mirrors == final.command.routing.mirrors
    able = {r for r in final.command.revisions if final.endpoints.get(r)}
    assert applied.routes == build_routes(final.command, able)
    assert all(applied.endpoints[r] == final.endpoints.get(r, ()) for r in applied.endpoints)


def test_next_step_when_there_is_no_command_then_nothing_changes() -> None:
    applied = Applied(endpoints={"a": A})
    assert next_step(applied, Desired(endpoints={"b": B}), idle("a")) is None


def test_steps_when_a_revision_replaces_another_then_in_this_order() -> None:
    old = Command(generation=1, weights=(("a", 100),))
    new = Command(generation=2, weights=(("b", 100),))
    applied = Applied(endpoints={"a": A}, routes=build_routes(old, {"a"}))
    wish = Desired(command=new, endpoints={"b": B})
    assert all_steps(applied, wish) == [
        AddClusters(endpoints={"b": B}),
        SetRoutes(routes=build_routes(new, {"b"})),
        SetEndpoints(revision="a", endpoints=()),
        RemoveClusters(clusters=idle("a")),
    ]


def test_cluster_when_requests_are_still_active_then_it_stays() -> None:
    new = Command(generation=2, weights=(("b", 100),))
    applied = Applied(endpoints={"a": (), "b": B}, routes=build_routes(new, {"b"}))
    wish = Desired(command=new, endpoints={"b": B})
    assert next_step(applied, wish, Clusters()) is None
    assert next_step(applied, wish, idle("a")) == RemoveClusters(clusters=idle("a"))


def test_generation_when_only_it_changes_then_the_routes_are_written_again() -> None:
    one = Command(generation=1, weights=(("a", 100),))
    two = Command(generation=2, weights=(("a", 100),))
    applied = Applied(endpoints={"a": A}, routes=build_routes(one, {"a"}))
    step = next_step(applied, Desired(command=two, endpoints={"a": A}), Clusters())
    assert step == SetRoutes(routes=build_routes(two, {"a"}))


def test_object_when_it_is_made_anew_and_counts_from_the_beginning_then_its_own_is_confirmed() -> (
    None
):
    before = Command(generation=1, weights=(("a", 100),), object_uid="c0")
    again = Command(generation=1, weights=(("a", 100),), object_uid="c1")
    applied = Applied(endpoints={"a": A}, routes=build_routes(before, {"a"}))
    step = next_step(applied, Desired(command=again, endpoints={"a": A}), Clusters())
    assert step == SetRoutes(routes=build_routes(again, {"a"}))
    assert after(applied, step).routes.object_uid == "c1"


MIRROR = Routing(mirror=Mirror(revision="b", percent=10))
TESTERS = Routing(
    header_route=HeaderRoute(
        revision="b", headers=(HeaderMatch(name="x-tester", kind="exact", value="1"),)
    )
)
PREVIEW = Routing(preview="b")
STABLE = (("a", 100),)


def test_steps_when_a_mirror_comes_and_goes_then_its_cluster_is_first_and_last() -> None:
    plain = Command(generation=1, weights=STABLE)
    mirrored = Command(generation=2, weights=STABLE, routing=MIRROR)
    ends = {"a": A, "b": B}
    before = Applied(endpoints={"a": A}, routes=build_routes(plain, {"a"}))
    during = Applied(
        endpoints=ends, mirrors=frozenset("b"), routes=build_routes(mirrored, {"a", "b"})
    )
    assert all_steps(before, Desired(command=mirrored, endpoints=ends)) == [
        AddClusters(endpoints={"b": B}, mirrors=frozenset("b")),
        SetRoutes(routes=during.routes),
    ]
    assert all_steps(during, Desired(command=plain, endpoints={"a": A})) == [
        SetRoutes(routes=before.routes),
        SetEndpoints(revision="b", endpoints=()),
        RemoveClusters(clusters=Clusters(mirrors=frozenset("b"))),
        RemoveClusters(clusters=idle("b")),
    ]


def test_steps_when_a_served_revision_is_mirrored_to_then_only_that_cluster_is_added() -> None:
    split = (("a", 50), ("b", 50))
    command = Command(generation=2, weights=split, routing=MIRROR)
    ends = {"a": A, "b": B}
    applied = Applied(
        endpoints=ends, routes=build_routes(Command(generation=1, weights=split), ends)
    )
    first, second = all_steps(applied, Desired(command=command, endpoints=ends))
    assert first == AddClusters(endpoints={}, mirrors=frozenset("b"))
    assert second == SetRoutes(routes=build_routes(command, ends))


@pytest.mark.parametrize(
    "routing", [MIRROR, TESTERS, PREVIEW], ids=["mirror", "headers", "preview"]
)
def test_cluster_when_only_the_present_routes_name_it_then_it_is_not_unrouted_yet(
    routing: Routing,
) -> None:
    old = Command(generation=1, weights=STABLE, routing=routing)
    wish = Desired(command=Command(generation=2, weights=STABLE), endpoints={"a": A, "b": B})
    applied = Applied(
        endpoints={"a": A, "b": B}, mirrors=routing.mirrors,
        routes=build_routes(old, {"a", "b"}),
    )  # fmt: skip
    assert not unrouted(applied, wish)


def test_cluster_when_shadow_requests_are_still_active_then_both_of_the_revision_stay() -> None:
    plain = Command(generation=2, weights=STABLE)
    applied = Applied(
        endpoints={"a": A, "b": ()}, mirrors=frozenset("b"), routes=build_routes(plain, {"a"})
    )
    wish = Desired(command=plain, endpoints={"a": A})
    assert next_step(applied, wish, idle("b")) is None


@pytest.mark.parametrize(
    "routing", [MIRROR, TESTERS, PREVIEW], ids=["mirror", "header route", "preview"]
)
def test_steps_when_a_routed_revision_loses_its_endpoints_then_routes_leave_it_out_first(
    routing: Routing,
) -> None:
    command = Command(generation=1, weights=STABLE, routing=routing)
    full = Applied(
        endpoints={"a": A, "b": B}, mirrors=routing.mirrors,
        routes=build_routes(command, {"a", "b"}),
    )  # fmt: skip
    without = build_routes(command, {"a"})
    assert without.routing == Routing()
    assert all_steps(full, Desired(command=command, endpoints={"a": A})) == [
        SetRoutes(routes=without),
        SetEndpoints(revision="b", endpoints=()),
    ]
    lost = Applied(endpoints={"a": A, "b": ()}, mirrors=routing.mirrors, routes=without)
    assert all_steps(lost, Desired(command=command, endpoints={"a": A, "b": B})) == [
        SetEndpoints(revision="b", endpoints=B),
        SetRoutes(routes=full.routes),
    ]
