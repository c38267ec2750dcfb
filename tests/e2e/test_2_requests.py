"""Hostile and broken requests through the router: an OpenAI-shaped 4xx, and serving goes on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hack.demo import conversation

from tests.e2e.fleet import Fleet

CHAT = "/v1/chat/completions"
JSON_TYPE = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "hello"}]


def body(**extra: Any) -> bytes:
    return json.dumps(
        {"model": "tiny-llama", "messages": MESSAGES, "max_tokens": 4, **extra}
    ).encode()


def raw(fragment: str) -> bytes:
    """A valid body with one more fragment, byte for byte as given."""
    return body()[:-1] + b", " + fragment.encode() + b"}"


@pytest.fixture
def address(fleet: Fleet) -> Iterator[str]:
    with fleet.address() as url:
        yield url


HOSTILE = {
    "broken JSON": (CHAT, b'{"model": "tiny-llama", "messages": [', {}, {400}),
    "not an object": (CHAT, b"[1, 2]", {}, {400, 422}),
    "unknown model": (CHAT, body(model="gpt-99"), {}, {404}),
    "forbidden field": (CHAT, body(chat_template="{{ 1 }}"), {}, {400}),
    "forbidden field, escaped": (CHAT, raw(r'"\u0063hat_template": "x"'), {}, {400}),
    "priority": (CHAT, body(priority=-100), {}, {400}),
    "cache_salt": (CHAT, body(cache_salt="other-tenant"), {}, {400}),
    "kv_transfer_params": (CHAT, body(kv_transfer_params={"a": 1}), {}, {400}),
    "vllm_xargs": (CHAT, body(vllm_xargs={"a": 1}), {}, {400}),
    "duplicate key hides a forbidden field": (
        CHAT,
        raw('"cache_salt": null, "cache_salt": "x"'),
        {},
        {400},
    ),
    "duplicate n": (CHAT, raw('"n": 1, "n": 500'), {}, {400}),
    "n above 8": (CHAT, body(n=9), {}, {400}),
    "n times prompts above 8": (
        "/v1/completions",
        json.dumps({"model": "tiny-llama", "prompt": ["a", "b", "c"], "n": 4}).encode(),
        {},
        {400},
    ),
    "UTF-16 body": (CHAT, body(priority=1).decode().encode("utf-16"), {}, {400, 415}),
    "UTF-16 by charset": (
        CHAT,
        body().decode().encode("utf-16"),
        {"content-type": "application/json; charset=utf-16"},
        {400, 415},
    ),
    "compressed body": (CHAT, gzip.compress(body()), {"content-encoding": "gzip"}, {415}),
    "form body": (CHAT, b"model=x", {"content-type": "application/x-www-form-urlencoded"}, {415}),
    "oversized body": (CHAT, body(user="x" * (9 * 1024 * 1024)), {}, {413}),
    "prompt longer than the model": (
        "/v1/completions",
        json.dumps({"model": "tiny-llama", "prompt": "word " * 5000, "max_tokens": 4}).encode(),
        {},
        {400},
    ),
    "administrative path": ("/v1/load_lora_adapter", body(), {}, {404}),
    "path outside": ("/metrics", body(), {}, {404}),
    "path with escaped slash": ("/v1%2fchat/completions", body(), {}, {400, 404}),
    "path with dots": ("/v1/models/../../metrics", body(), {}, {400, 404}),
    "tokenizer path": ("/tokenize", body(), {}, {404}),
}


@pytest.mark.parametrize(("path", "content", "headers", "codes"), HOSTILE.values(), ids=HOSTILE)
def test_request_when_hostile_then_an_openai_shaped_4xx(
    address: str, path: str, content: bytes, headers: dict[str, str], codes: set[int]
) -> None:
    url = httpx.URL(address).copy_with(raw_path=path.encode())
    reply = httpx.post(url, content=content, headers=JSON_TYPE | headers, timeout=60)

    assert reply.status_code in codes, reply.text[:500]
    error = reply.json()["error"]
    assert error["message"]
    assert error["type"]


def test_request_when_the_method_is_wrong_then_405(address: str) -> None:
    reply = httpx.get(f"{address}{CHAT}", timeout=30)

    assert reply.status_code == 405
    assert reply.json()["error"]["message"]


def test_request_when_it_claims_our_headers_then_they_are_ignored(address: str) -> None:
    claims = {
        "x-llmfleet-token": "guess",
        "x-llmfleet-tenant": "someone else",
        "x-llmfleet-max-tokens": "1",
        "x-llmfleet-priority": "-5",
    }
    reply = httpx.post(f"{address}{CHAT}", content=body(), headers=JSON_TYPE | claims, timeout=60)

    assert reply.status_code == 200, reply.text
    assert reply.headers["x-llmfleet-revision"]


def test_serving_when_hostile_requests_came_then_it_goes_on(fleet: Fleet) -> None:
    with fleet.client() as client:
        answer = conversation.chat(client, fleet.model, "Still there?", max_tokens=8)

    assert answer.tokens > 0
    restarts = [
        status["restartCount"]
        for pod in fleet.pods("engine") + fleet.pods("router")
        for status in pod["status"]["containerStatuses"]
    ]
    assert not any(restarts), restarts
