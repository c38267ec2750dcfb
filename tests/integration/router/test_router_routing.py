"""Header routes, preview and sticky sessions, and how changes of them are confirmed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hack.processes.agent import RunningRouter, running_router

from llmfleet_router import routes
from llmfleet_router.model import Routes
from llmfleet_router.module import KEY_HEADER
from llmfleet_router.routing import HeaderMatch, HeaderRoute, Mirror, Routing
from llmfleet_router.settings import Policy, Settings
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import Prober, StubEngine

CHAT = "/v1/chat/completions"
TESTERS = HeaderRoute(
    revision="bbbb",
    headers=(
        HeaderMatch(name="x-tester", kind="exact", value="1"),
        HeaderMatch(name="cookie", kind="prefix", value="team="),
    ),
)


async def revision_of(url: str, body: Any = None, **headers: str) -> str:
    """Which revision answers; its status where none does."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(headers=named) as session,
        session.post(url + CHAT, json=body or {"messages": []}) as answer,
    ):
        return answer.headers["x-llmfleet-revision"] if answer.ok else str(answer.status)


async def two_engines(start_engine: StartEngine) -> dict[str, list[StubEngine]]:
    return {"aaaa": [await start_engine("a")], "bbbb": [await start_engine("b")]}


async def test_header_route_when_all_headers_match_then_its_revision_and_no_shadow(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engines = await two_engines(start_engine)
    routing = Routing(header_route=TESTERS, mirror=Mirror(revision="bbbb", percent=100))
    await router.serve(1, {"aaaa": 100}, routing, **engines)
    assert await revision_of(router.url, x_tester="1", cookie="team=blue") == "bbbb"
    async with aiohttp.ClientSession() as session:
        headers = {"X-Tester": "1", "Cookie": "team=blue"}
        async with session.get(router.url + "/v1/models", headers=headers) as answer:
            assert answer.headers["x-llmfleet-revision"] == "bbbb"
        async with session.get(router.url + CHAT, headers=headers) as answer:
            assert answer.status == 405
    state = await router.confirmed(1)
    assert [(r["requests"], r["mirrored"]) for r in state["revisions"]] == [(0, 0), (2, 0)]
    for headers in (
        {}, {"x_tester": "1"}, {"x_tester": "12", "cookie": "team=blue"},
        {"x_tester": "1", "cookie": "a; team=blue"}, {"cookie": "team=blue"},
    ):  # fmt: skip
        assert await revision_of(router.url, **headers) == "aaaa"


async def test_header_route_when_its_revision_has_no_endpoints_then_the_ordinary_split(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engines = await two_engines(start_engine)
    routing = Routing(header_route=TESTERS, preview="bbbb")
    headers = {"x_tester": "1", "cookie": "team="}
    await router.serve(1, {"aaaa": 100}, routing, aaaa=engines["aaaa"])
    assert await revision_of(router.url, **headers) == "aaaa"
    assert await revision_of(router.preview_url) == "503"
    router.endpoints(**engines)
    await router.until(lambda applied: applied.routes.routing == routing)
    assert await revision_of(router.url, **headers) == "bbbb"
    assert await revision_of(router.preview_url) == "bbbb"
    router.endpoints(aaaa=engines["aaaa"])
    await router.until(lambda applied: applied.routes.routing == Routing())
    assert await revision_of(router.url, **headers) == "aaaa"
    assert await revision_of(router.preview_url) == "503"


async def test_preview_when_served_then_with_the_checks_and_filters_of_the_public_port(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    engines = await two_engines(start_engine)
    async with (
        running_router(tmp_path, body_limit_bytes=1024) as router,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(router.preview_url + CHAT, json={}) as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "5"
            assert (await answer.json())["error"]["code"] == "no_engine_available"
        await router.serve(1, {"aaaa": 100}, Routing(preview="bbbb"), **engines)
        assert await revision_of(router.preview_url, **{KEY_HEADER: "forged"}) == "bbbb"
        assert await revision_of(router.url) == "aaaa"
        (seen,) = engines["bbbb"][0].seen
        assert seen["headers"]["x-llmfleet-token"] == "tok%en-1"
        assert seen["headers"][KEY_HEADER] != "forged"
        for method, path, body, status in (
            ("POST", "/sleep", b"{}", 404), ("GET", CHAT, b"", 405), ("POST", CHAT, b"x", 415),
            ("GET", "/health", b"", 200),
        ):  # fmt: skip
            async with session.request(method, router.preview_url + path, data=body) as answer:
                assert answer.status == status
        async with session.post(router.preview_url + CHAT, json="x" * 2000) as answer:
            assert answer.status == 413
        await router.serve(2, {"aaaa": 100}, **engines)
        assert await revision_of(router.preview_url) == "503"


async def _assigned(router: RunningRouter, sessions: range) -> dict[int, str]:
    answers = [
        await asyncio.gather(
            *[revision_of(router.url, x_session_id=f"user-{i}") for i in sessions[at : at + 20]]
        )
        for at in range(0, len(sessions), 20)
    ]
    return dict(zip(sessions, [one for part in answers for one in part], strict=True))


@pytest.mark.parametrize("policy", list(Policy))
async def test_sessions_when_the_canary_grows_then_none_leaves_it_and_routers_agree(
    policy: Policy, tmp_path: Path, start_engine: StartEngine
) -> None:
    engines = await two_engines(start_engine)
    sessions = range(120)
    sticky = Routing(sticky=True)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    async with (
        running_router(tmp_path / "1", policy=policy) as one,
        running_router(tmp_path / "2", policy=policy) as two,
    ):
        on_canary: set[int] = set()
        for generation, weight in enumerate((10, 35, 80), start=1):
            arms = {"aaaa": 100 - weight, "bbbb": weight}
            if generation == 2:  # the order in which arms are listed plays no part
                arms = dict(reversed(arms.items()))
            await one.serve(generation, arms, sticky, **engines)
            found = await _assigned(one, sessions)
            assert await _assigned(one, range(20)) == {i: found[i] for i in range(20)}
            now = {i for i, revision in found.items() if revision == "bbbb"}
            assert on_canary < now < set(sessions)
            on_canary = now
        await two.serve(1, {"aaaa": 20, "bbbb": 80}, sticky, **engines)
        assert await _assigned(two, sessions) == found


async def test_sessions_when_stickiness_is_on_then_pods_stay_and_chance_rules_the_rest(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a = [await start_engine(f"a{i}") for i in range(4)]
    b = [await start_engine("b")]

    async def pods(generation: int, routing: Routing) -> list[str]:
        await router.serve(generation, {"aaaa": 100}, routing, aaaa=a)
        async with aiohttp.ClientSession() as session:
            found = []
            for i in range(20):
                headers = {"x-session-id": f"user-{i}"}
                async with session.post(router.url + CHAT, json={}, headers=headers) as answer:
                    found.append((await answer.json())["engine"])
        return found

    before = await pods(1, Routing())
    await router.serve(2, {"aaaa": 50, "bbbb": 50}, Routing(sticky=True), aaaa=a, bbbb=b)
    for i, pod in enumerate(before):
        for engine in a:
            engine.seen.clear()
        if await revision_of(router.url, x_session_id=f"user-{i}") == "aaaa":
            assert [e.name for e in a if e.seen] == [pod]
    assert {await revision_of(router.url) for _ in range(40)} == {"aaaa", "bbbb"}
    forged = ({KEY_HEADER: str(i), "x-session-id": "user-0"} for i in range(20))
    assert len({await revision_of(router.url, **each) for each in forged}) == 1, "no client's key"
    forged = {"x_llmfleet_key": "0", "x_session_id": "one"}
    assert len({await revision_of(router.url, **forged) for _ in range(40)}) == 1


async def test_prober_when_routing_changes_all_the_time_then_nothing_is_lost(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engines = await two_engines(start_engine)
    await router.serve(1, {"aaaa": 100}, **engines)
    everything = Routing(
        header_route=TESTERS, mirror=Mirror(revision="bbbb", percent=50), preview="bbbb",
        sticky=True,
    )  # fmt: skip
    wishes = (
        Routing(mirror=Mirror(revision="bbbb", percent=100)), Routing(sticky=True),
        Routing(header_route=TESTERS), Routing(preview="bbbb"), everything, Routing(),
    )  # fmt: skip
    async with Prober(router.url) as prober:
        for generation, routing in enumerate(wishes * 2, start=2):
            weight = generation % 3 * 30
            weights = {"aaaa": 100 - weight} | ({"bbbb": weight} if weight else {})
            await router.serve(generation, weights, routing, **engines)
            await prober.seen(25)
            if generation % 4 == 0:  # the revision that routing names loses its pods, and gets them
                router.endpoints(aaaa=engines["aaaa"])
                await prober.seen(15)
    assert prober.tally.failures == []
    assert prober.tally.total > 300


async def test_generation_when_envoy_refuses_one_of_the_tables_then_it_is_not_confirmed(
    router: RunningRouter, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = await two_engines(start_engine)
    await router.serve(1, {"aaaa": 100}, **engines)
    good = routes.build_preview_table

    def bad(served: Routes | None, settings: Settings) -> dict[str, Any]:
        return good(served, settings) | {"virtual_hosts": [{"name": ""}]}

    monkeypatch.setattr(routes, "build_preview_table", bad)
    router.endpoints(**engines)
    router.command(2, Routing(preview="bbbb"), aaaa=100)
    async with asyncio.timeout(10):
        while not router.agent.applier.rejected_total:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    assert router.agent.state.generation == 1
    monkeypatch.setattr(routes, "build_preview_table", good)
    await router.confirmed(2)
    assert await revision_of(router.preview_url) == "bbbb"
