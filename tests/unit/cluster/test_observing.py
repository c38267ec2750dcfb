"""Whose pods are asked: those of our own Deployments, whatever labels others have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from llmfleet.cluster.caches import Caches
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import NotFound
from llmfleet.cluster.inspecting import PodInspector
from llmfleet.cluster.ledger import LedgerPoller
from llmfleet.cluster.observing import Observer
from llmfleet.cluster.routers import RouterPoller
from llmfleet.planning.snapshot import JSON, OperatorSettings
from tests.unit.cluster.test_signals_page import OF_ROUTER, pod, reference
from tests.unit.planning.builders import SETTINGS, resource

OWNER = ("team-a", "chat")


class NobodyElse:
    """An API server that has nothing but what the caches hold."""

    async def get(self, path: str, *_: Any, **__: Any) -> JSON:
        raise NotFound(path, status=404)


class Settings:
    def current(self) -> OperatorSettings:
        return SETTINGS


class Asked:
    """An observer with real pollers, which find nobody where they ask."""

    def __init__(self, *pods: JSON) -> None:
        api = cast("ApiClient", NobodyElse())
        self.caches = Caches(api, [], lambda _: None)
        for each in pods:
            self.caches._pods.put(each)
        self.routers = RouterPoller(lambda _: None, port=1)
        self.ledger = LedgerPoller(lambda _: None, port=1)
        self.inspector = PodInspector(api, lambda _: None)
        self.observer = Observer(
            api, self.caches, self.routers, self.ledger, self.inspector, Settings()
        )

    async def observe(self) -> None:
        served = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        status = {
            "rollout": {"revision": "b000000002", "servedSince": served},
            "conditions": [
                {
                    "type": "RoutersConfirmed",
                    "status": "True",
                    "reason": "Confirmed",
                    "lastTransitionTime": served,
                }
            ],
        }
        await self.observer.observe(OWNER, {**resource(), "status": status})


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    strangers = {
        "nobody-s": None,
        "a-job-s": reference("Job", "chat-router-x", "job"),
        "another-s": reference("ReplicaSet", "other-7d9", "rs-other"),
    }
    pods = [at_home(pod("ours", "router", OF_ROUTER))]
    pods += [at_home(pod(name, "router", made_by)) for name, made_by in strangers.items()]
    pods.append(at_home(pod("engine", "engine", None, ready=False)))
    found = Asked(*pods)
    yield found
    await found.observer.close()


def at_home(body: JSON) -> JSON:
    return {**body, "spec": {"nodeName": "n1"}, "status": {**body["status"], "podIP": "127.0.0.1"}}


async def test_i2_routers_when_others_carry_our_labels_then_only_ours_is_asked_what_it_counted(
    asked: Asked,
) -> None:
    await asked.observe()
    readers = asked.ledger._tracked[OWNER].readers.values()
    assert [each.router.pod for each in readers] == ["ours"]
    assert list(asked.routers._pollers[OWNER]) == ["ours"]


async def test_i12_pod_when_it_has_our_labels_and_no_owner_then_nobody_is_asked_about_it(
    asked: Asked,
) -> None:
    await asked.observe()
    assert OWNER not in asked.inspector._pods
