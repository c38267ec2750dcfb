"""Ordinary requests: headers, streaming, affinity, retries, ejection, answers without engines."""

from __future__ import annotations

import asyncio
import json
import operator
import socket
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hack.controlplane.apiserver import free_ports
from hack.processes.agent import TOKEN, RunningRouter, running_router

from llmfleet_router.model import Endpoint
from llmfleet_router.module import KEY_HEADER
from llmfleet_router.resources import RETRIES
from llmfleet_router.routes import RETRIED_BYTES
from llmfleet_router.settings import Policy
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import ask_many, poll, shown

CHAT = "/v1/chat/completions"


async def ask(
    router: RunningRouter, body: Any, path: str = CHAT, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(headers=named) as session,
        session.post(router.url + path, json=body) as answer,
    ):
        return (
            answer.status,
            await answer.json(),
            {k.lower(): v for k, v in answer.headers.items()},
        )


async def test_headers_when_a_client_sends_private_ones_then_the_engine_gets_only_ours(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    status, _, headers = await ask(
        router, {"messages": []},
        x_llmfleet_token="forged", x_llmfleet_tenant="victim", X_LLMFleet_Priority="0",
        x_request_id="mine", x_envoy_retry_on="5xx", x_envoy_max_retries="9",
        x_http_method_override="DELETE", authorization="Bearer abc",
    )  # fmt: skip
    sent = {k.lower(): v for k, v in engine.seen[0]["headers"].items()}
    assert status == 200
    assert sent["x-llmfleet-token"] == TOKEN
    assert sent["authorization"] == "Bearer abc"
    private = {k for k in sent if k.startswith(("x-llmfleet-", "x-envoy-"))}
    assert private == {"x-llmfleet-token", KEY_HEADER}
    assert "x-http-method-override" not in sent
    assert str(uuid.UUID(sent["x-request-id"])) == headers["x-request-id"]
    assert not {h for h in headers if h.startswith("x-envoy-")}
    assert headers["x-llmfleet-revision"] == "aaaa"


async def test_underscored_header_when_sent_then_it_is_dropped(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    async with (
        aiohttp.ClientSession(headers={"x_llmfleet_token": "forged"}) as session,
        session.post(router.url + CHAT, json={}) as answer,
    ):
        assert answer.status == 200
    assert "x_llmfleet_token" not in engine.seen[0]["headers"]


async def test_stream_when_the_engine_pauses_then_each_chunk_arrives_at_once(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    loop = asyncio.get_running_loop()
    body = {"messages": [], "stub": {"stream": 4, "delay": 0.2}}
    async with aiohttp.ClientSession() as session, session.post(router.url + CHAT, json=body) as a:
        arrivals = [loop.time() async for _ in a.content.iter_any()]
    assert len(arrivals) >= 4
    assert arrivals[-1] - arrivals[0] > 0.4


async def test_client_when_it_goes_away_then_the_engine_sees_it(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    body = {"messages": [], "stub": {"stream": 1000, "delay": 0.01}}
    async with aiohttp.ClientSession() as session:
        answer = await session.post(router.url + CHAT, json=body)
        await answer.content.readany()
        assert engine.active == 1
        answer.close()
        await asyncio.wait_for(poll(lambda: not engine.active), 5)


async def test_models_and_health_when_asked_then_engine_and_router_answer(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    async with aiohttp.ClientSession() as session:
        async with session.get(router.url + "/v1/models") as answer:
            assert (await answer.json())["engine"] == "a"
        async with session.get(router.url + "/health") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    assert [s["path"] for s in engine.seen] == ["/v1/models"]


@pytest.mark.parametrize("endpoints", [True, False], ids=["never any command", "no endpoints"])
async def test_request_when_nothing_can_serve_then_503_with_retry_after(
    router: RunningRouter, endpoints: bool
) -> None:
    if not endpoints:
        await router.serve(1, {"aaaa": 75, "bbbb": 25})
        state = await router.confirmed(1)
        assert [(r["weight"], r["effective"]) for r in state["revisions"]] == [(75, 0), (25, 0)]
    status, body, headers = await ask(router, {})
    assert status == 503
    assert body["error"]["code"] == "no_engine_available"
    assert headers["retry-after"] == "5"


async def test_affinity_when_prompts_share_a_beginning_then_they_meet_the_same_engine(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engines = [await start_engine(f"a{i}") for i in range(4)]
    await router.serve(1, {"aaaa": 100}, aaaa=engines)
    system = {"role": "system", "content": "s" * 5000}

    async def engine_of(body: Any, **headers: str) -> str:
        status, answer, _ = await ask(router, body, **headers)
        assert status == 200
        return str(answer["engine"])

    alike = [
        await engine_of({"model": f"m{i % 2}", "messages": [system, {"content": f"q{i}"}]})
        for i in range(8)
    ]
    assert len(set(alike)) == 1, "4 KiB of the same system prompt, whatever stands before it"
    for e in engines:
        e.seen.clear()
    differing = {await engine_of({"messages": [{"content": f"q{i}"}]}) for i in range(40)}
    assert differing == {"a0", "a1", "a2", "a3"}
    assert len({s["headers"][KEY_HEADER] for e in engines for s in e.seen}) == 40
    for field in ("prompt", "input"):
        assert len({await engine_of({"n": i, field: "hello"}) for i in range(6)}) == 1
    session = {await engine_of({"messages": [i]}, x_session_id="s1") for i in range(8)}
    assert len(session) == 1
    sessions = {await engine_of({"messages": []}, x_session_id=f"s{i}") for i in range(40)}
    assert len(sessions) == 4


QUESTION = 'what is "drift", and \\\\ a backslash\\'
SYSTEM = {"role": "system", "content": "be brief"}
FIRST_TURNS: dict[str, list[Any]] = {
    "plain": [{"role": "user", "content": QUESTION}],
    "content before role": [{"content": QUESTION, "role": "user"}],
    "system prompt": [SYSTEM, {"role": "user", "content": QUESTION}],
    "parts": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
    "a system prompt that says user": [
        {"role": "system", "content": 'the "user": field'},
        {"role": "user", "content": QUESTION},
    ],
}


@pytest.mark.parametrize("first", FIRST_TURNS.values(), ids=FIRST_TURNS)
async def test_affinity_key_when_a_chat_goes_on_then_it_stays_and_another_chat_has_another(
    router: RunningRouter, start_engine: StartEngine, first: list[Any]
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    more = [{"role": "assistant", "content": "hm"}, {"role": "user", "content": "go on"}]
    other = json.loads(json.dumps(first).replace("drift", "a canary"))
    for messages in (first, first + more, first + more + more, other):
        await ask(router, {"user": "me", "messages": messages})
    keys = [seen["headers"][KEY_HEADER] for seen in engine.seen]
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] != keys[0]


async def test_affinity_key_when_revisions_differ_then_it_is_the_same(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 50, "bbbb": 50}, aaaa=[a], bbbb=[b])
    for _ in range(30):
        await ask(router, {"messages": ["same"]})
    keys = {s["headers"][KEY_HEADER] for s in a.seen + b.seen}
    assert a.seen
    assert b.seen
    assert len(keys) == 1


async def test_affinity_when_one_key_is_hot_then_bounded_load_spreads_it(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engines = [await start_engine(f"a{i}") for i in range(4)]
    await router.serve(1, {"aaaa": 100}, aaaa=engines)
    body = {"messages": ["the same"], "stub": {"sleep": 1.0}}
    requests = []
    for _ in range(40):
        requests.append(asyncio.create_task(ask(router, body)))
        # Load is what engines are working on: a request still connecting is not seen yet.
        await asyncio.sleep(0.01)
    await asyncio.gather(*requests)
    counts = sorted(len(e.seen) for e in engines)
    assert counts[-1] <= 16, counts  # 125 % of 10, and the requests racing with each other


@pytest.mark.parametrize("policy", list(Policy))
async def test_policy_when_chosen_then_all_engines_serve(
    policy: Policy, tmp_path: Path, start_engine: StartEngine
) -> None:
    engines = [await start_engine(f"a{i}") for i in range(3)]
    async with running_router(tmp_path, policy=policy) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=engines)
        answers = await asyncio.gather(
            *[ask(router, {"messages": [str(i)]}, x_session_id=str(i % 20)) for i in range(60)]
        )
        by_session: dict[int, set[str]] = {}
        for i, (status, answer, _) in enumerate(answers):
            assert status == 200
            by_session.setdefault(i % 20, set()).add(answer["engine"])
        assert all(e.seen for e in engines)
        if policy is Policy.ROUND_ROBIN:
            assert {len(e.seen) for e in engines} == {20}


async def test_retry_when_connection_refused_then_another_engine_answers_large_bodies_too(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    dead = Endpoint(address="127.0.0.1", port=free_ports(1)[0])
    router.agent.store.set_endpoints({"aaaa": (engine.endpoint, dead)})
    router.command(1, aaaa=100)
    await router.confirmed(1)
    for i in range(30):
        status, _, _ = await ask(router, {"messages": [f"q{i}" + "x" * 200_000]})
        assert status == 200
    assert len(engine.seen) == 30


async def test_retry_when_503_is_marked_retriable_then_elsewhere_and_hidden(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
    a.refuse_retriable = b.refuse_retriable = 1 + RETRIES
    status, _, headers = await ask(router, {"messages": []})
    assert status == 503
    assert len(a.seen) + len(b.seen) == 1 + RETRIES
    assert a.seen, "the other engine was asked as well"
    assert b.seen, "the other engine was asked as well"
    assert "x-envoy-ratelimited" not in headers
    b.refuse_retriable = 0
    a.refuse_retriable = 1
    assert (await ask(router, {"messages": []}))[0] == 200


async def test_retry_when_the_body_is_large_then_it_was_not_kept_and_the_refusal_is_passed_on(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
    a.refuse_retriable = b.refuse_retriable = 1
    assert (await ask(router, {"messages": ["x" * RETRIED_BYTES]}))[0] == 503
    assert len(a.seen) + len(b.seen) == 1


@pytest.mark.parametrize(
    "stub", [{"reset": True}, {"status": 503}, {"status": 500}, {"status": 429}],
    ids=["reset after sending", "plain 503", "500", "429"],
)  # fmt: skip
async def test_retry_when_the_request_was_sent_then_never(
    router: RunningRouter, start_engine: StartEngine, stub: dict[str, Any]
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
    async with (
        aiohttp.ClientSession() as session,
        session.post(router.url + CHAT, json={"stub": stub}) as answer,
    ):
        assert answer.status == stub.get("status", 503)
    assert len(a.seen) + len(b.seen) == 1


async def test_stream_when_the_engine_dies_then_the_client_sees_a_cut_and_it_is_counted(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    body = {"messages": [], "stub": {"stream": 9, "delay": 0.05, "cut_after": 2}}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.post(router.url + CHAT, json=body) as answer:
                await answer.read()
    state = await router.confirmed(1)
    assert (state["revisions"][0]["requests"], state["revisions"][0]["errors"]) == (1, 1)


async def test_state_when_requests_fail_then_errors_count_attempts_and_not_refusals(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[a])
    for status in (200, 400, 429, 500, 502):
        await ask(router, {"stub": {"status": status}})
    state = await router.confirmed(1)
    (revision,) = state["revisions"]
    assert revision["requests"] == 5
    assert revision["errors"] == 2
    assert revision["inFlight"] == 0


@pytest.mark.parametrize(("sent", "errors"), [(9, 0), (10, 1)], ids=["sends", "waits"])
async def test_state_when_the_client_leaves_then_an_error_only_where_an_engine_was_asked(
    router: RunningRouter, start_engine: StartEngine, sent: int, errors: int
) -> None:
    engine = await start_engine("a")
    engine.held = asyncio.Event()
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    _, writer = await asyncio.open_connection("127.0.0.1", router.agent.settings.http_port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: 10\r\n\r\n".encode() + b'{"a": "b"}'[:sent])
    active = "http.public.downstream_rq_active"
    await shown(router, active, 1, operator.eq)
    if errors:
        await asyncio.wait_for(poll(lambda: engine.active == 1), 10)
    writer.close()
    await shown(router, active, 0, operator.eq)
    engine.held.set()
    (revision,) = (await router.confirmed(1))["revisions"]
    assert (revision["requests"], revision["errors"]) == (errors, errors)


async def test_ejection_when_one_of_two_engines_refuses_then_it_rests_but_never_the_last(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    dead = Endpoint(address="127.0.0.1", port=free_ports(1)[0])
    router.agent.store.set_endpoints({"aaaa": (engine.endpoint, dead)})
    router.command(1, aaaa=100)
    await router.confirmed(1)
    ejections = "cluster.rev-aaaa.outlier_detection.ejections_enforced_total"
    sent = 0
    while not (await router.agent.admin.numbers([ejections]))[ejections]:
        assert (await ask(router, {"messages": [f"q{sent}"]}))[0] == 200
        sent += 1
    assert sent < 60
    await engine.stop()
    for i in range(20):
        await ask(router, {"messages": [f"q{i}"]})
    active = "cluster.rev-aaaa.outlier_detection.ejections_active"
    assert (await router.agent.admin.numbers([active]))[active] <= 1


async def test_retry_when_a_pod_does_not_answer_then_another_one_does(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        silent = Endpoint(address="127.0.0.1", port=listener.getsockname()[1])
        for _ in range(4):  # nobody takes them, so further ones are not even refused
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((silent.address, silent.port))
        router.agent.store.set_endpoints({"aaaa": (engine.endpoint, silent)})
        router.command(1, aaaa=100)
        await router.confirmed(1)
        bodies = [{"messages": [f"q{i}" + "x" * 100_000]} for i in range(20)]
        assert await ask_many(router.url, bodies) == [200] * len(bodies)
    retries = "cluster.rev-aaaa.upstream_rq_retry_success"
    assert (await router.agent.admin.numbers([retries]))[retries] > 0
    assert len(engine.seen) == 20


async def test_idle_connection_when_the_engine_would_close_it_then_envoy_closed_it_first(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    await ask(router, {"messages": []})
    closed = "cluster.rev-aaaa.upstream_cx_idle_timeout"
    async with asyncio.timeout(4.5):
        while not (await router.agent.admin.numbers([closed]))[closed]:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
