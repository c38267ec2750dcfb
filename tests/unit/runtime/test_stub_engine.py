"""The stub engine of the campaigns goes through the runtime's own guard, as it is today."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from llmfleet_runtime.activity import Activity
from llmfleet_runtime.settings import PluginSettings
from tests.zerolost.stub.vllm.entrypoints.openai import api_server

ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


async def test_stub_engine_when_asked_through_the_runtimes_guard_then_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activity = tmp_path / "activity"
    Activity(activity, create=True)
    settings = PluginSettings(
        revision="r1", served_names=("tiny",), token_file=None, loopback_key="key",
        activity_file=str(activity), priority_scheduling=False,
    )  # fmt: skip
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    transport = httpx.ASGITransport(app=api_server.application("tiny"))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        answer = await client.post("/v1/chat/completions", json=ASKED)
        refused = await client.post("/v1/chat/completions", json=ASKED | {"n": 10_000})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert refused.status_code == 400
