"""Shadow requests: what the engine gets, what the client does not notice, and what is counted."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import aiohttp
import pytest
from hack.controlplane.apiserver import free_ports
from hack.processes.agent import TOKEN, RunningRouter

from llmfleet_router.applier import MIN_UNROUTED_SECONDS
from llmfleet_router.routing import Mirror, Routing
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import poll, shown
from tests.integration.router.test_router_requests import ask

SENT = "cluster.mirror-bbbb.upstream_rq_total"
ALL = Routing(mirror=Mirror(revision="bbbb", percent=100))


def rows(state: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """(requests, errors, mirrored) by revision."""
    return {r["revision"]: (r["requests"], r["errors"], r["mirrored"]) for r in state["revisions"]}


async def metrics(router: RunningRouter) -> dict[str, float]:
    """The agent's own counters, by kind and revision."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{router.agent_url}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    found = {}
    for kind in ("requests", "errors", "mirrored"):
        head = (
            f'llmfleet_router_{kind}_total{{llmdeployment="chat",llmdeployment_namespace="team-a",'
        )
        for line in lines:
            if line.startswith(head):
                revision, value = line.removeprefix(head + 'revision="').split('"} ')
                found[f"{kind} {revision}"] = float(value)
    return found


async def test_mirror_when_all_is_mirrored_then_answers_are_dropped_and_counted_apart(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    state = await router.serve(1, {"aaaa": 100}, ALL, aaaa=[a], bbbb=[b])
    assert rows(state) == {"aaaa": (0, 0, 0), "bbbb": (0, 0, 0)}
    assert set((await metrics(router)).values()) == {0.0}
    assert len(await metrics(router)) == 6
    bodies = [{"messages": [f"{i}" * size]} for i, size in enumerate((1, 100, 5_000_000))]
    for body in bodies:
        status, answer, headers = await ask(router, body, x_llmfleet_shadow="forged")
        assert (status, answer["engine"], headers["x-llmfleet-revision"]) == (200, "a", "aaaa")
    await asyncio.wait_for(poll(lambda: len(b.seen) == len(bodies)), 10)
    assert [s["bytes"] for s in b.seen] == [s["bytes"] for s in a.seen]
    for own, shadow in zip(a.seen, b.seen, strict=True):
        assert (shadow["method"], shadow["path"]) == (own["method"], own["path"])
        assert shadow["headers"]["x-llmfleet-token"] == TOKEN
        assert shadow["headers"].getall("x-llmfleet-shadow") == ["true"]
        assert shadow["headers"]["host"] == own["headers"]["host"]
        ids = [one["headers"].getall("x-request-id") for one in (own, shadow)]
        assert ids[1] == [f"{ids[0][0]}-shadow"]
        assert "x-llmfleet-shadow" not in own["headers"]
    assert rows(await router.confirmed(1)) == {"aaaa": (3, 0, 0), "bbbb": (0, 0, 3)}
    assert await metrics(router) == {
        "requests aaaa": 3, "requests bbbb": 0, "errors aaaa": 0, "errors bbbb": 0,
        "mirrored aaaa": 0, "mirrored bbbb": 3,
    }  # fmt: skip


async def test_mirror_when_shadows_fail_then_the_client_sees_nothing_and_no_error_counts(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, ALL, aaaa=[a], bbbb=[b])

    async def all_answered(shadows: int) -> None:
        assert (await ask(router, {"messages": []}))[0] == 200
        await shown(router, SENT, shadows)

    b.refuse_plain = 1
    await all_answered(1)
    b.refuse_retriable = 1
    await all_answered(2)
    assert len(b.seen) == 2, "a shadow is not tried again"
    b.fail = 1
    await all_answered(3)
    await b.stop()
    assert (await ask(router, {"messages": []}))[0] == 200
    await shown(router, "cluster.mirror-bbbb.upstream_cx_connect_fail", 1)
    state = rows(await router.confirmed(1))
    assert state["aaaa"] == (4, 0, 0)
    assert state["bbbb"][:2] == (0, 0)
    counted = await router.agent.admin.stats(r"llmfleet\.attempt_errors\..*")
    assert counted == {}


@pytest.mark.parametrize("percent", [1, 30])
async def test_mirror_when_a_share_is_mirrored_then_it_is_exact_within_chance(
    router: RunningRouter, start_engine: StartEngine, percent: int
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    routing = Routing(mirror=Mirror(revision="bbbb", percent=percent))
    await router.serve(1, {"aaaa": 100}, routing, aaaa=[a], bbbb=[b])
    count = 1000
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            async with session.get(f"{router.url}/v1/models") as answer:
                assert (await answer.json())["engine"] == "a"

        for _ in range(count // 50):
            await asyncio.gather(*[one() for _ in range(50)])
    mirrored = rows(await router.confirmed(1))["bbbb"][2]
    share = percent / 100
    assert abs(mirrored - count * share) <= 5 * (count * share * (1 - share)) ** 0.5
    assert len(a.seen) == count


async def test_mirror_when_it_ends_then_its_cluster_waits_for_shadows_and_the_count_stays(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    b.held = asyncio.Event()
    split = {"aaaa": 50, "bbbb": 50}
    await router.serve(1, {"aaaa": 100}, ALL, aaaa=[a], bbbb=[b])
    for _ in range(3):
        assert (await ask(router, {"messages": []}))[1]["engine"] == "a"
    await asyncio.wait_for(poll(lambda: b.active == 3), 10)
    # Nobody asks for the state from here on: what is counted must not depend on being asked.
    router.command(2, **split)
    applier = router.agent.applier
    late_looks = 0

    async def counted(applied: Any, desired: Any) -> Any:
        """Counts the looks at which a cluster without requests would be found idle."""
        nonlocal late_looks
        found = await idle(applied, desired)
        since = applier._unrouted_since.get("mirror-bbbb", math.inf)
        late_looks += time.monotonic() - since >= MIN_UNROUTED_SECONDS
        return found

    idle, applier._idle_clusters = applier._idle_clusters, counted  # type: ignore[method-assign]
    await asyncio.wait_for(poll(lambda: late_looks >= 2), 20)
    assert applier.applied.mirrors == {"bbbb"}
    b.held.set()
    await router.until(lambda applied: not applied.mirrors)
    router.command(3, ALL, **split)
    await router.until(lambda applied: applied.routes.routing == ALL)
    for _ in range(4):
        await ask(router, {"messages": []})
    await shown(router, SENT, 4)
    assert rows(await router.confirmed(3))["bbbb"][2] == 3 + 4
    assert (await metrics(router))["mirrored bbbb"] == 7


async def test_counters_when_a_revision_leaves_and_comes_back_then_they_go_on(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a])
    for status in (200, 500):
        await ask(router, {"stub": {"status": status}})
    assert (await metrics(router))["errors aaaa"] == 1
    await router.serve(2, {"bbbb": 100}, bbbb=[b])
    await router.until(lambda applied: "aaaa" not in applied.endpoints)
    assert "requests aaaa" not in await metrics(router)
    await router.serve(3, {"aaaa": 100}, aaaa=[a])
    await ask(router, {"stub": {"status": 500}})
    assert rows(await router.confirmed(3))["aaaa"] == (3, 2, 0)


async def test_metrics_when_envoy_does_not_answer_then_no_counter_is_shown_rather_than_0(
    router: RunningRouter, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[a])
    await ask(router, {"messages": []})
    assert (await metrics(router))["requests aaaa"] == 1
    monkeypatch.setattr(router.agent.admin, "_base", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert await metrics(router) == {}
    monkeypatch.undo()
    assert (await metrics(router))["requests aaaa"] == 1
