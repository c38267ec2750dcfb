"""Who may ask the engine, what reaches it, and how it is counted."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from prometheus_client import CollectorRegistry

from llmfleet_runtime import middleware
from tests.unit.runtime.conftest import shown
from tests.unit.runtime.guarded_app import KEY, TOKEN, GuardedApp

BODY = {"model": "tiny", "prompt": "a"}
LOOPBACK = {"x-llmfleet-token": "", "x-llmfleet-loopback": KEY}


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/health", "/v1/completions", "/nowhere"]
)
async def test_request_when_token_is_wrong_then_401(
    engine: GuardedApp, token: str, path: str
) -> None:
    async with engine.client(**{"x-llmfleet-token": token}) as client:
        answer = await client.get(path)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_token_when_rotated_then_new_one_opens(
    engine: GuardedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_TOKEN_RECHECK_SECONDS", -1.0)
    engine.token_file.write_text("second")
    async with engine.client() as client:
        assert (await client.get("/v1/models")).status_code == 401
        assert (
            await client.get("/v1/models", headers={"x-llmfleet-token": "second"})
        ).status_code == 200


async def test_token_when_file_vanishes_before_first_use_then_closed(engine: GuardedApp) -> None:
    engine.token_file.unlink()
    async with engine.client() as client:
        assert (await client.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/tokenize"),
        ("GET", "/metrics"),
        ("GET", "/v1/completions"),
        ("POST", "/v1/completions/"),
        ("POST", "//v1/completions"),
        ("POST", "/v1/../tokenize"),
        ("GET", "/openapi.json"),
    ],
)
async def test_path_when_not_an_inference_path_then_404(
    engine: GuardedApp, method: str, path: str
) -> None:
    async with engine.client() as client:
        answer = await client.request(method, httpx.URL(f"http://engine{path}"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_loopback_when_supervisor_asks_then_metrics_open_and_nothing_counted(
    engine: GuardedApp, registry: CollectorRegistry
) -> None:
    async with engine.client(**LOOPBACK) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post("/v1/completions", json=BODY)).status_code == 200
        assert (await client.post("/tokenize", json={})).status_code == 404
    assert engine.activity.arrived == 0
    assert "llm_requests_total{" not in shown(registry)


async def test_headers_when_engine_would_obey_them_then_not_forwarded(engine: GuardedApp) -> None:
    sent = {
        "x-data-parallel-rank": "3",
        "authorization": "Bearer x",
        "x-session-id": "s",
        "x-request-id": "abc",
        "traceparent": "00-1",
    }
    async with engine.client(**sent) as client:
        await client.post("/v1/completions", json=BODY)
    assert engine.seen_headers["x-request-id"] == "abc"
    assert engine.seen_headers["traceparent"] == "00-1"
    assert not {"x-data-parallel-rank", "authorization", "x-session-id", "x-llmfleet-token"} & set(
        engine.seen_headers
    )


async def test_request_id_when_client_pretends_to_be_us_then_dropped(engine: GuardedApp) -> None:
    async with engine.client(**{"x-request-id": "llmfleet-own-1"}) as client:
        await client.post("/v1/completions", json=BODY)
    assert "x-request-id" not in engine.seen_headers


async def test_counts_when_requests_end_then_bounded_labels(
    engine: GuardedApp, registry: CollectorRegistry
) -> None:
    async with engine.client() as client:
        await client.post("/v1/completions", json=BODY)
        for i in range(5):
            await client.post("/v1/completions", json={**BODY, "model": f"invented-{i}", "bad": 1})
            await client.post("/v1/completions", json={**BODY, "model": f"invented-{i}"})
    page = shown(registry)
    assert 'llm_requests_total{model="tiny",revision="r1",status="200"} 1.0' in page
    assert 'llm_requests_total{model="unknown",revision="r1",status="400"} 5.0' in page
    assert "invented" not in page
    assert (
        'llm_request_duration_seconds_count{model="tiny",operation="completion",revision="r1"} 1.0'
        in page
    )


async def test_activity_when_request_runs_then_in_flight_until_its_end(engine: GuardedApp) -> None:
    async with engine.client() as client:
        task = asyncio.create_task(client.post("/v1/completions", json={**BODY, "user": "wait"}))
        await engine.reached.wait()
        assert (engine.activity.arrived, engine.activity.in_flight) == (1, 1)
        engine.release.set()
        assert (await task).status_code == 200
    assert (engine.activity.arrived, engine.activity.in_flight) == (1, 0)


async def test_request_when_engine_is_stopping_then_retriable_503(engine: GuardedApp) -> None:
    engine.activity.stop()
    async with engine.client() as client:
        answer = await client.post("/v1/completions", json=BODY)
    assert answer.status_code == 503
    assert answer.headers["x-envoy-ratelimited"] == "true"
    assert answer.json()["error"]["type"] == "server_error"


async def test_stream_when_engine_fails_midway_then_never_completed(
    engine: GuardedApp, registry: CollectorRegistry
) -> None:
    body = json.dumps({**BODY, "stream": True, "user": "boom"}).encode()
    sent: list[dict[str, object]] = []

    requests = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, object]:
        for message in requests:
            return dict(message)
        return await asyncio.Event().wait()  # type: ignore[return-value]  # never: the client stays

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"x-llmfleet-token", TOKEN.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }
    await engine.asgi(scope, receive, send)  # type: ignore[arg-type]  # dicts are mutable mappings
    bodies = [message for message in sent if message["type"] == "http.response.body"]
    assert b"EngineCore died" in bytes(bodies[-1]["body"])  # type: ignore[arg-type]
    assert all(message["more_body"] for message in bodies)
    assert not any(b"[DONE]" in bytes(message["body"]) for message in bodies)  # type: ignore[arg-type]
    assert 'status="500"} 1.0' in shown(registry)
    assert engine.activity.in_flight == 0


async def test_websocket_when_opened_then_closed(engine: GuardedApp) -> None:
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    await engine.asgi({"type": "websocket", "path": "/v1/chat", "headers": []}, receive, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
