"""``status.routing``: what is read, what is refused, and which routes come of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet_router.kube import take_deployment
from llmfleet_router.model import Command, build_routes, parse_command
from llmfleet_router.routes import build_preview_table, build_public_table
from llmfleet_router.routing import (
    HeaderMatch,
    HeaderRoute,
    Mirror,
    Routing,
    UnreadableTrafficError,
    parse_routing,
    routing_as_json,
)
from llmfleet_router.settings import Policy, Settings
from llmfleet_router.store import Store
from tests.unit.router.strategies import REVISIONS, commands, routings

JSON = dict[str, Any]
SETTINGS = Settings(namespace="team-a", name="chat")


def to_b(*headers: JSON) -> JSON:
    return {"headerRoute": {"revision": "b", "headers": list(headers)}}


def route(*headers: HeaderMatch) -> Routing:
    return Routing(header_route=HeaderRoute(revision="b", headers=headers))


READABLE = {
    "absent": (None, Routing()),
    "empty": ({}, Routing()),
    "nulls": (dict.fromkeys(("headerRoute", "mirror", "preview", "stickiness")), Routing()),
    "a key of tomorrow": ({"schedule": [1]}, Routing()),
    "exact": (
        to_b({"name": "x-tester", "exact": "1"}),
        route(HeaderMatch(name="x-tester", kind="exact", value="1")),
    ),
    "prefix, upper case, more keys": (
        to_b({"name": "User-Agent", "prefix": "probe/", "exact": None, "note": 1}),
        route(HeaderMatch(name="user-agent", kind="prefix", value="probe/")),
    ),
    "two headers, empty values": (
        to_b({"name": "a", "exact": ""}, {"name": "b", "prefix": ""}),
        route(
            HeaderMatch(name="a", kind="exact", value=""),
            HeaderMatch(name="b", kind="prefix", value=""),
        ),
    ),
    "every character of a token": (
        to_b({"name": "!#$%&'*+-.^_`|~0aZ", "exact": "1"}),
        route(HeaderMatch(name="!#$%&'*+-.^_`|~0az", kind="exact", value="1")),
    ),
    "mirror": (
        {"mirror": {"revision": "b", "percent": 100}},
        Routing(mirror=Mirror(revision="b", percent=100)),
    ),
    "preview": ({"preview": "5d41c0ffee"}, Routing(preview="5d41c0ffee")),
    "sticky": ({"stickiness": "Session"}, Routing(sticky=True)),
    "not sticky": ({"stickiness": "None"}, Routing()),
}


@pytest.mark.parametrize(("raw", "routing"), READABLE.values(), ids=READABLE.keys())
def test_routing_when_readable_then_read(raw: object, routing: Routing) -> None:
    status = {"traffic": [{"revision": "a", "weight": 100}], "trafficGeneration": 3}
    command = parse_command(status if raw is None else status | {"routing": raw})
    assert command == Command(generation=3, weights=(("a", 100),), routing=routing)


UNREADABLE = {
    "a text": "x",
    "a list": [],
    "header route a text": {"headerRoute": "b"},
    "header route without headers": {"headerRoute": {"revision": "b"}},
    "header route with no headers": to_b(),
    "headers an object": {"headerRoute": {"revision": "b", "headers": {"name": "a"}}},
    "header a text": {"headerRoute": {"revision": "b", "headers": ["x-tester"]}},
    "header route without revision": {"headerRoute": {"headers": [{"name": "a", "exact": "1"}]}},
    "header route to a path": {
        "headerRoute": {"revision": "../b", "headers": [{"name": "a", "exact": "1"}]}
    },
    "no name": to_b({"exact": "1"}),
    "empty name": to_b({"name": "", "exact": "1"}),
    "name with a space": to_b({"name": "x tester", "exact": "1"}),
    "name with a line break": to_b({"name": "x-tester\n", "exact": "1"}),
    "name in Greek": to_b({"name": "χ", "exact": "1"}),
    "pseudo header": to_b({"name": ":path", "prefix": "/"}),
    "the router's own header": to_b({"name": "x-llmfleet-token", "exact": "1"}),
    "the router's own header, upper case": to_b({"name": "X-LLMFleet-Key", "exact": "1"}),
    "the second header is bad": to_b({"name": "a", "exact": "1"}, {"name": ":a", "exact": "1"}),
    "neither exact nor prefix": to_b({"name": "x-tester", "regex": ".*"}),
    "exact and prefix": to_b({"name": "x-tester", "exact": "1", "prefix": "1"}),
    "value a number": to_b({"name": "x-tester", "exact": 1}),
    "value with a NUL": to_b({"name": "x-tester", "exact": "a\0"}),
    "value with half a surrogate pair": to_b({"name": "x-tester", "prefix": "\ud800"}),
    "mirror a number": {"mirror": 5},
    "mirror without percent": {"mirror": {"revision": "b"}},
    "mirror 0": {"mirror": {"revision": "b", "percent": 0}},
    "mirror 101": {"mirror": {"revision": "b", "percent": 101}},
    "mirror true": {"mirror": {"revision": "b", "percent": True}},
    "mirror half": {"mirror": {"revision": "b", "percent": 0.5}},
    "mirror to nowhere": {"mirror": {"percent": 5}},
    "preview an object": {"preview": {"revision": "b"}},
    "preview empty": {"preview": ""},
    "preview upper case": {"preview": "B"},
    "stickiness unknown": {"stickiness": "Client"},
    "stickiness a list": {"stickiness": ["Session"]},
    "stickiness true": {"stickiness": True},
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_routing_when_unreadable_then_it_is_refused_and_the_last_command_stays(raw: Any) -> None:
    status = {
        "traffic": [{"revision": "a", "weight": 100}], "trafficGeneration": 2, "routing": raw,
    }  # fmt: skip
    with pytest.raises(UnreadableTrafficError):
        parse_command(status)
    store = Store()
    before = Command(generation=1, weights=(("b", 100),), routing=Routing(preview="a"))
    store.set_endpoints({})
    store.set_command(before)
    take_deployment({"status": status}, store)
    assert store.desired.command == before


@given(raw=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([
        "headerRoute", "headers", "name", "exact", "prefix", "mirror", "revision", "percent",
        "preview", "stickiness",
    ]), inner)
), max_leaves=12))  # fmt: skip
def test_routing_when_anything_then_it_is_read_or_refused(raw: Any) -> None:
    try:
        routing = parse_routing(raw)
    except UnreadableTrafficError:
        return
    assert parse_routing(routing_as_json(routing)) == routing


@given(routing=routings)
def test_routing_when_written_as_json_then_read_back(routing: Routing) -> None:
    assert parse_routing(routing_as_json(routing)) == routing


@given(command=commands(), available=st.sets(st.sampled_from(REVISIONS)))
def test_routes_when_revisions_are_lost_then_exactly_what_leads_to_them_is_left_out(
    command: Command, available: set[str]
) -> None:
    asked, served = command.routing, build_routes(command, available).routing
    assert set(served.revisions) <= available
    assert served.sticky == asked.sticky
    for one, left in (
        (asked.header_route and asked.header_route.revision, served.header_route),
        (asked.mirror and asked.mirror.revision, served.mirror),
        (asked.preview, served.preview),
    ):
        assert (left is not None) == (one in available)
    assert asked.among(REVISIONS) == asked


def chat_routes(table: JSON) -> list[JSON]:
    routes = table["virtual_hosts"][0]["routes"]
    return [one for one in routes if one["match"].get("path") == "/v1/chat/completions"]


def table(split: tuple[tuple[str, int], ...], routing: Routing, **changes: Any) -> list[JSON]:
    command = Command(generation=1, weights=split, routing=routing)
    settings = dataclasses.replace(SETTINGS, **changes)
    return chat_routes(build_public_table(build_routes(command, {"a", "b"}), settings))


def split_of(one: JSON) -> list[tuple[str, int]]:
    return [
        (share["name"], share["weight"]) for share in one["route"]["weighted_clusters"]["clusters"]
    ]


def test_header_route_when_served_then_it_is_first_and_not_mirrored() -> None:
    routing = Routing(
        header_route=HeaderRoute(
            revision="b", headers=(HeaderMatch(name="x-tester", kind="prefix", value="t"),)
        ),
        mirror=Mirror(revision="b", percent=7),
        sticky=True,
    )
    testers, sticky, ordinary, refusal = table((("a", 90), ("b", 10)), routing)
    assert testers["match"]["headers"][1:] == [
        {"name": "x-tester", "string_match": {"prefix": "t"}}
    ]
    assert split_of(testers) == [("rev-b", 100)]
    assert "request_mirror_policies" not in testers["route"]
    for one in (sticky, ordinary):
        (mirror,) = one["route"]["request_mirror_policies"]
        assert mirror["cluster"] == "mirror-b"
        assert mirror["runtime_fraction"]["default_value"]["numerator"] == 7
        assert split_of(one) == [("arm-a_b", 90), ("arm-b_a", 10)]
    assert refusal["direct_response"]["status"] == 405


def test_header_route_when_nothing_else_is_served_then_only_testers_get_an_answer() -> None:
    routing = route(HeaderMatch(name="x-tester", kind="exact", value="1"))
    testers, ordinary, _ = table((), routing)
    assert split_of(testers) == [("rev-b", 100)]
    assert ordinary["direct_response"]["status"] == 503


@pytest.mark.parametrize("split", [(("a", 70), ("b", 30)), (("b", 30), ("a", 70))])
@pytest.mark.parametrize("policy", list(Policy))
def test_stickiness_when_asked_for_then_sessions_have_a_route_with_arms_in_one_order(
    split: tuple[tuple[str, int], ...], policy: Policy
) -> None:
    sticky, ordinary, _ = table(split, Routing(sticky=True), policy=policy)
    assert split_of(sticky) == [("arm-a_b", 70), ("arm-b_a", 30)]
    assert sticky["route"]["weighted_clusters"]["use_hash_policy"] is True
    assert sticky["match"]["headers"][1] == {"name": "x-session-id", "present_match": True}
    assert "use_hash_policy" not in ordinary["route"]["weighted_clusters"]
    last = sticky["route"]["hash_policy"][-1]
    assert last == {"header": {"header_name": "x-session-id"}}
    pod = {"header": {"header_name": "x-envoy-downstream-service-node"}, "terminal": True}
    assert (pod in sticky["route"]["hash_policy"]) == (policy is Policy.PREFIX_HASH)


def test_stickiness_when_there_is_one_arm_then_it_costs_nothing() -> None:
    assert table((("a", 100),), Routing(sticky=True)) == table((("a", 100),), Routing())


def test_preview_when_absent_or_nothing_was_commanded_then_503() -> None:
    command = Command(generation=1, weights=(("a", 100),))
    for routes in (None, build_routes(command, {"a"})):
        first, _ = chat_routes(build_preview_table(routes, SETTINGS))
        assert first["direct_response"]["status"] == 503
    with_it = dataclasses.replace(command, routing=Routing(preview="b"))
    first, _ = chat_routes(build_preview_table(build_routes(with_it, {"a", "b"}), SETTINGS))
    assert split_of(first) == [("rev-b", 100)]
    assert split_of(table((("a", 100),), Routing(preview="b"))[0]) == [("rev-a", 100)]
