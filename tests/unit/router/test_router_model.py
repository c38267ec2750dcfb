"""Weights, commands and endpoints: the arithmetic and the reading."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet_router.kube import ready_endpoints, take_deployment
from llmfleet_router.model import (
    Command,
    Desired,
    Endpoint,
    build_routes,
    effective_weights,
    parse_command,
)
from llmfleet_router.routing import UnreadableTrafficError
from llmfleet_router.settings import Policy, SettingsError, read_settings
from llmfleet_router.store import Store
from tests.unit.router.strategies import REVISIONS, commands


@given(command=commands(), available=st.sets(st.sampled_from(REVISIONS)))
def test_effective_weights_when_some_are_available_then_they_share_exactly_100(
    command: Command, available: set[str]
) -> None:
    effective = dict(effective_weights(command.weights, available))
    able = {revision: w for revision, w in command.weights if revision in available}
    assert list(effective) == [revision for revision, _ in command.weights]
    assert sum(effective.values()) == (100 if able else 0)
    assert all(w == 0 for r, w in effective.items() if r not in available)
    total = sum(able.values())
    for revision, weight in able.items():
        assert abs(effective[revision] - weight * 100 / total) < 1


@given(command=commands())
def test_effective_weights_when_all_are_available_then_they_are_the_commanded(
    command: Command,
) -> None:
    assert effective_weights(command.weights, REVISIONS) == command.weights


@pytest.mark.parametrize(
    ("weights", "available", "effective"),
    [
        ((("a", 75), ("b", 25)), "ab", (75, 25)),
        ((("a", 75), ("b", 25)), "a", (100, 0)),
        ((("a", 75), ("b", 25)), "b", (0, 100)),
        ((("a", 75), ("b", 25)), "", (0, 0)),
        ((("a", 34), ("b", 33), ("c", 33)), "bc", (0, 50, 50)),
        ((("a", 50), ("b", 17), ("c", 33)), "bc", (0, 34, 66)),
        ((("a", 1), ("b", 98), ("c", 1)), "ac", (50, 0, 50)),
    ],
)
def test_effective_weights_when_given_then_these(
    weights: tuple[tuple[str, int], ...], available: str, effective: tuple[int, ...]
) -> None:
    assert tuple(w for _, w in effective_weights(weights, set(available))) == effective


def test_routes_when_nothing_has_endpoints_then_the_commanded_split_stays() -> None:
    command = Command(generation=4, weights=(("a", 75), ("b", 25)))
    routes = build_routes(command, set())
    assert routes.split == command.weights
    assert dict(routes.effective) == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    "traffic",
    [
        "x",
        [{"revision": "a"}],
        [{"weight": 100}],
        ["a"],
        [{"revision": "a", "weight": 99}],
        [{"revision": "a", "weight": 101}],
        [{"revision": "a", "weight": 50}, {"revision": "a", "weight": 50}],
        [{"revision": "a", "weight": -1}, {"revision": "b", "weight": 101}],
        [{"revision": "../a", "weight": 100}],
        [{"revision": "a", "weight": True}],
    ],
    ids=str,
)
def test_command_when_unreadable_then_it_is_refused_and_the_last_one_stays(traffic: Any) -> None:
    status = {"traffic": traffic, "trafficGeneration": 2}
    with pytest.raises(UnreadableTrafficError):
        parse_command(status)
    store = Store()
    before = Command(generation=1, weights=(("a", 100),))
    store.set_endpoints({})
    store.set_command(before)
    for item in ({"status": status}, {"status": {}}, {}, None):
        take_deployment(item, store)
        assert store.desired.command == before


@pytest.mark.parametrize("generation", ["2", 2.0, True, -1, 1 << 63, []], ids=repr)
def test_command_when_its_generation_is_no_int64_then_it_is_refused(generation: Any) -> None:
    traffic = [{"revision": "a", "weight": 100}]
    with pytest.raises(UnreadableTrafficError):
        parse_command({"traffic": traffic, "trafficGeneration": generation})


def test_command_when_taken_then_it_names_the_object_that_it_is_of() -> None:
    traffic = [{"revision": "a", "weight": 100}]
    status = {"traffic": traffic, "trafficGeneration": (1 << 63) - 1}
    store = Store()
    store.set_endpoints({})
    take_deployment({"metadata": {"uid": "c0"}, "status": status}, store)
    assert store.desired.command == Command(
        generation=(1 << 63) - 1, weights=(("a", 100),), object_uid="c0"
    )


def test_command_when_a_weight_is_zero_then_the_revision_is_not_named() -> None:
    status = {
        "traffic": [{"revision": "a", "weight": 100}, {"revision": "b", "weight": 0}],
        "trafficGeneration": 2,
    }
    assert parse_command(status) == Command(generation=2, weights=(("a", 100),))


def _slice(revision: str | None, *found: tuple[str, bool | None], **changes: Any) -> dict[str, Any]:
    labels = {"llmfleet.dev/revision": revision} if revision else {}
    conditions = [{} if ready is None else {"ready": ready} for _, ready in found]
    return {
        "metadata": {"labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "health", "port": 8081}, {"name": "http", "port": 8000}],
        "endpoints": [
            {"addresses": [address], "conditions": condition}
            for (address, _), condition in zip(found, conditions, strict=True)
        ],
    } | changes


def test_endpoints_when_read_from_slices_then_only_ready_ones_of_the_http_port() -> None:
    found = ready_endpoints(
        [
            _slice("a", ("10.0.0.2", True), ("10.0.0.3", False)),
            _slice("a", ("10.0.0.1", None), ("10.0.0.2", True)),
            _slice("a", ("fd00::1", True), addressType="IPv6"),
            _slice("b", ("fd00::2", True), addressType="IPv6"),
            _slice("c", ("10.0.0.9", True), ports=[{"name": "health", "port": 8081}]),
            _slice("d", ("10.0.0.8", True), endpoints=None),
            _slice(None, ("10.0.0.7", True)),
        ]
    )
    assert {r: e for r, e in found.items() if e} == {
        "a": (Endpoint(address="10.0.0.1", port=8000), Endpoint(address="10.0.0.2", port=8000)),
        "b": (Endpoint(address="fd00::2", port=8000),),
    }


def test_settings_when_given_then_read_and_when_wrong_then_named() -> None:
    env = {
        "LLMFLEET_NAMESPACE": "n",
        "LLMFLEET_NAME": "chat",
        "LLMFLEET_POLICY": "Session",
        "LLMFLEET_BODY_LIMIT_BYTES": "8388608",
        "LLMFLEET_DRAIN_TIMEOUT_SECONDS": "600",
        "LLMFLEET_PREFIX_BYTES": "4096",
    }
    settings = read_settings(env)
    assert (settings.policy, settings.drain_timeout_seconds) == (Policy.SESSION, 600)
    for key, value in (
        ("LLMFLEET_POLICY", "Random"),
        ("LLMFLEET_PREFIX_BYTES", "0"),
        ("LLMFLEET_BODY_LIMIT_BYTES", "8Mi"),
        ("LLMFLEET_NAME", ""),
    ):
        with pytest.raises(SettingsError, match=key):
            read_settings(env | {key: value})


def test_command_when_endpoints_were_never_heard_of_then_it_is_held_back() -> None:
    store = Store()
    command = Command(generation=1, weights=(("a", 100),))
    endpoint = Endpoint(address="10.0.0.1", port=8000)
    store.set_command(command)
    assert store.desired.command is None
    store.set_endpoints({"a": (endpoint,)})
    assert store.desired == Desired(command=command, endpoints={"a": (endpoint,)})


def test_store_when_the_agent_starts_beside_what_is_served_then_it_waits_for_endpoints() -> None:
    """The API server's two lists come one after the other, in either order."""
    old, new = Endpoint(address="10.0.0.1", port=8000), Endpoint(address="10.0.0.2", port=8000)
    served = Desired(
        command=Command(generation=1, weights=(("a", 100),)),
        endpoints={"a": (dataclasses.replace(old, ready_since=7),)},
    )
    store = Store(served)
    assert store.desired == served
    command = Command(generation=2, weights=(("b", 100),))
    store.set_command(command)
    assert store.desired == served, "nothing is known of b's endpoints yet"
    store.set_endpoints({"a": (old, new), "b": (new,)})
    assert store.desired == Desired(command=command, endpoints={"a": (old, new), "b": (new,)})
    kept, fresh = store.desired.endpoints["a"]
    assert kept.ready_since == 7
    assert fresh.ready_since > 7, "it has become ready since somebody last looked"


def test_store_when_only_endpoints_are_heard_of_then_what_is_served_gets_them() -> None:
    old, new = Endpoint(address="10.0.0.1", port=8000), Endpoint(address="10.0.0.2", port=8000)
    command = Command(generation=1, weights=(("a", 100),))
    store = Store(Desired(command=command, endpoints={"a": (old,)}))
    store.set_endpoints({"a": (new,)})
    assert store.desired == Desired(command=command, endpoints={"a": (new,)})
