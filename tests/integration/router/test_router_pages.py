"""Envoy's code on huge pages: in the process that serves, unless its environment says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hack.processes.agent import RunningRouter, running_router

from tests.huge_pages import needs_huge_pages
from tests.integration.router.conftest import StartEngine
from tests.integration.router.test_router_requests import ask

pytestmark = needs_huge_pages


def _copied_code(router: RunningRouter) -> int:
    """Bytes of Envoy's executable mappings that belong to no file."""
    size = 0
    for line in Path(f"/proc/{router.launcher.envoy.pid}/maps").read_text().splitlines():
        span, rights, _, _, inode, *name = line.split()
        if "x" in rights and inode == "0" and not name:
            start, end = (int(part, 16) for part in span.split("-"))
            size += end - start
    return size


async def test_envoy_when_serving_then_its_code_is_a_copy(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(1, {"aaaa": 100}, aaaa=[engine])
    status, _, _ = await ask(router, {"messages": []})
    assert status == 200
    assert _copied_code(router) > 50 << 20


async def test_envoy_when_switched_off_then_its_code_is_the_file_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMFLEET_HUGE_PAGES", "0")
    async with running_router(tmp_path) as router:
        assert _copied_code(router) == 0
