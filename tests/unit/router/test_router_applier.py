"""The applier beside an Envoy that may start again whenever it is asked something."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmfleet_router import applier as applying
from llmfleet_router.admin import Admin
from llmfleet_router.applier import Applier
from llmfleet_router.counters import Counters
from llmfleet_router.model import Command, Desired, Endpoint
from llmfleet_router.served import read_served
from llmfleet_router.settings import Settings
from llmfleet_router.store import Store
from llmfleet_router.updates import Applied
from llmfleet_router.xds import XdsFiles

POD = (Endpoint(address="10.0.0.1", port=8000),)


class ShownFiles(Admin):
    """An Envoy that takes every file at once, and has no requests."""

    def __init__(self, where: Settings) -> None:
        self._where = where
        self.asked = 0
        self.meanwhile: Callable[[int], None] = lambda _: None
        """Called at each question with its number."""

    async def live(self) -> bool:
        return True

    async def stats(self, *patterns: str) -> dict[str, str]:
        self.asked += 1
        self.meanwhile(self.asked)
        await asyncio.sleep(0)
        found = read_served(self._where)
        assert found is not None
        assert routed(self._where) <= clusters(self._where), "a route to a cluster that is gone"
        return {
            name: value
            for name, value in found.proof.items()
            if any(re.fullmatch(pattern, name) for pattern in patterns)
        }


def clusters(where: Settings) -> set[str]:
    content = json.loads((where.xds_dir / "cds.json").read_text())
    return {cluster["name"] for cluster in content["resources"]}


def routed(where: Settings) -> set[str]:
    tables = [(where.xds_dir / name).read_text() for name in ("rds.json", "rds-preview.json")]
    return set(re.findall(r'"((?:rev|mirror)-[0-9a-f]+)"', "".join(tables)))


async def follow(where: Settings, wishes: list[Desired], restart_at: int) -> int:
    """An applier's life, in which Envoy starts again at this question; how many there were."""
    XdsFiles(where).write_initial()
    store, admin = Store(), ShownFiles(where)
    applier = Applier(where, store, admin, Counters(admin, where.counters_file))

    def meanwhile(asked: int) -> None:
        if asked == restart_at:
            applier.adopt_anew()
        known = applier._adopted_start == applier._start
        assert known or applier.applied == Applied(), "nothing is confirmed by this Envoy yet"

    admin.meanwhile = meanwhile
    task = asyncio.create_task(applier.run())
    try:
        async with asyncio.timeout(20):
            for desired in wishes:
                store.set_endpoints(desired.endpoints)
                assert desired.command is not None
                store.set_command(desired.command)
                while not is_served(applier, desired):
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return admin.asked


def is_served(applier: Applier, desired: Desired) -> bool:
    """Whether that is what it says, and what the files say."""
    routes = applier.applied.routes
    return routes is not None and routes.command == desired.command


def wish(generation: int, *revisions: str) -> Desired:
    """The last one gets all requests; no other is named, and only these have endpoints."""
    return Desired(
        command=Command(generation=generation, weights=((revisions[-1], 100),)),
        endpoints=dict.fromkeys(revisions, POD),
    )


@pytest.mark.parametrize("kept_seconds", [0.0, 1e9], ids=["gone at once", "kept"])
def test_applier_when_envoy_starts_again_at_any_question_then_no_route_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_seconds: float
) -> None:
    monkeypatch.setattr(applying, "MIN_UNROUTED_SECONDS", kept_seconds)
    wishes = [wish(1, "a"), wish(2, "a", "b"), wish(3, "b"), wish(4, "c")]
    for restart_at in itertools.count():  # 0: never
        where = Settings(namespace="n", name="m", xds_dir=tmp_path / str(restart_at))
        where.xds_dir.mkdir()
        asked = asyncio.run(follow(where, wishes, restart_at))
        assert asked > len(wishes)
        if restart_at > asked:
            return
