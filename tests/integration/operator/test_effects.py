"""``observe`` and ``apply`` against a real API server, one step at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.waiting import eventually

from llmfleet.cluster import metrics
from llmfleet.cluster.errors import Conflict, Forbidden, Invalid, NotLeading, Unavailable
from llmfleet.cluster.kinds import CHILD_KINDS, LLM_DEPLOYMENT
from llmfleet.planning.decide import decide
from llmfleet.planning.plan import Child, Plan
from llmfleet.planning.snapshot import ObjectKey
from tests.integration.operator.effects import Effects, running_effects

JSON = dict[str, Any]


@pytest.fixture
def fleet(api_server: ApiServer, namespace: str) -> Fleet:
    return Fleet(api_server, namespace)


@pytest.fixture
async def effects(fleet: Fleet) -> AsyncIterator[Effects]:
    async with running_effects(fleet) as running:
        yield running


def sent() -> float:
    """All writes sent so far in this process."""
    return sum(
        sample.value
        for metric in metrics.API_WRITES.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


def not_found() -> float:
    """How often the API server had nothing of a name that was asked for."""
    return metrics.API_ERRORS.labels("NotFound")._value.get()


def started(fleet: Fleet) -> list[str]:
    """What Events say of rollouts that began."""
    return [event["note"] for event in fleet.events("RolloutStarted")]


async def test_apply_when_the_resource_is_new_then_only_its_memory_is_asked_for_by_name(
    effects: Effects, fleet: Fleet
) -> None:
    before = not_found()
    fleet.apply(llm_deployment())
    await effects.settle()
    assert not_found() - before == 2  # before the pass that makes the engines, and after it


async def test_apply_when_the_watch_lags_behind_then_own_writes_are_seen_and_none_repeated(
    effects: Effects, fleet: Fleet
) -> None:
    await effects.caches.stop()  # from here on only the answers of our own writes arrive
    fleet.apply(llm_deployment())
    await effects.settle()
    before = sent()
    assert not await effects.step()
    assert sent() == before


async def test_apply_when_the_resource_changed_since_the_snapshot_then_conflict_and_no_write(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/two"}}})
    snapshot = await effects.observer.observe(effects.owner)
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/three"}}})
    before = fleet.children("Deployment")
    with pytest.raises(Conflict):
        await effects.applier.apply(snapshot, decide(snapshot, datetime.now(UTC)))
    assert fleet.children("Deployment") == before


@pytest.mark.parametrize(
    ("is_stale", "weight", "error"), [(False, 101, Invalid), (True, 50, Conflict)],
    ids=["refused", "changed since"],
)  # fmt: skip
async def test_patch_when_it_fails_then_the_error_says_whether_to_try_again(
    effects: Effects, fleet: Fleet, is_stale: bool, weight: int, error: type[Exception]
) -> None:
    read = fleet.apply(llm_deployment())["metadata"]
    if is_stale:
        fleet.patch(fleet.resource_path("chat"), {"spec": {"replicas": 2}})
    status = {"traffic": [{"revision": "0123456789", "weight": weight}], "trafficGeneration": 1}
    patch = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": read["resourceVersion"]},
        {"op": "replace", "path": "/status", "value": {"observedGeneration": 1, **status}},
    ]
    with pytest.raises(error) as raised:
        await effects.api.json_patch(LLM_DEPLOYMENT, fleet.namespace, "chat", patch, "status")
    assert type(raised.value) is error
    assert "422" in str(raised.value)


async def test_apply_when_the_resource_is_new_then_its_engine_comes_before_its_status(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    assert await effects.step()
    assert fleet.resource()["status"] == {"observedGeneration": -1}  # the CRD's default
    assert len(fleet.children("Deployment")) == len(engines(fleet)) == 1
    assert len(fleet.children("ControllerRevision")) == 1
    assert fleet.children("Service") == []
    await effects.settle()
    assert fleet.resource()["status"]["tokenSecret"]["uid"]


async def test_apply_when_spec_changes_before_the_first_status_then_the_first_engine_goes(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.step()
    (first,) = fleet.children("Deployment")
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/two"}}})
    await effects.settle()
    assert engines(fleet) == [f"chat-rev-{fleet.resource()['status']['specRevision']}"]
    assert engines(fleet) != [first["metadata"]["name"]]


async def test_event_when_it_is_as_stored_and_nothing_is_to_do_then_nothing_is_read_or_written(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    from_event = fleet.resource()
    await effects.api.close()  # whatever is asked now fails
    snapshot = await effects.observer.observe(effects.owner, from_event)
    applied = await effects.applier.apply(snapshot, decide(snapshot, datetime.now(UTC)))
    assert not applied.changed
    assert not applied.look_again


async def test_event_when_a_child_is_to_be_written_then_the_resource_is_read_first(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    from_event = fleet.resource()
    await effects.caches.stop()
    path = fleet.path("Deployment", "chat-router")
    scaled = fleet.patch(path, {"spec": {"replicas": 7}})
    effects.caches.written(scaled)
    snapshot = await effects.observer.observe(effects.owner, from_event)
    applied = await effects.applier.apply(snapshot, decide(snapshot, datetime.now(UTC)))
    assert applied.look_again
    assert (fleet.get(path) or {})["spec"]["replicas"] == 7
    await effects.settle()
    assert (fleet.get(path) or {})["spec"]["replicas"] != 7


async def test_event_when_it_is_out_of_date_then_what_follows_from_it_is_refused(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/two"}}})
    from_event = fleet.resource()
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/three"}}})
    before = fleet.children("Deployment")
    snapshot = await effects.observer.observe(effects.owner, from_event)
    with pytest.raises(Conflict):
        await effects.applier.apply(snapshot, decide(snapshot, datetime.now(UTC)))
    assert fleet.children("Deployment") == before


async def test_apply_when_a_child_changed_since_the_snapshot_then_conflict_and_next_try_works(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    await effects.caches.stop()
    path = fleet.path("Deployment", "chat-router")
    fleet.patch(path, {"spec": {"replicas": 7}})
    fleet.patch(fleet.resource_path("chat"), {"spec": {"router": {"replicas": 3}}})
    with pytest.raises(Conflict):
        await effects.step()
    assert (fleet.get(path) or {})["spec"]["replicas"] == 7
    await effects.settle()
    assert (fleet.get(path) or {})["spec"]["replicas"] == 3


async def test_apply_when_a_child_conflicts_after_the_status_then_its_transition_is_published(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    await effects.caches.stop()
    fleet.patch(fleet.path("Deployment", "chat-router"), {"spec": {"replicas": 7}})
    spec = {"model": {"source": "pvc://m/two"}, "router": {"replicas": 3}}
    fleet.patch(fleet.resource_path("chat"), {"spec": spec})
    with pytest.raises(Conflict):
        await effects.step()
    begun = (fleet.resource() or {})["status"]["specRevision"]
    await effects.settle()
    assert started(fleet).count(f"rolling out {begun}") == 1


@pytest.mark.parametrize("arrives", [True, False])
async def test_apply_when_the_status_gets_no_answer_then_its_transition_is_published_once(
    effects: Effects, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    begun = set(started(fleet))
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/two"}}})
    write = effects.api.apply

    async def unanswered(*arguments: Any, **options: Any) -> JSON:
        if arrives:
            await write(*arguments, **options)
        raise Unavailable("no answer", status=0)

    with monkeypatch.context() as patched:
        patched.setattr(effects.api, "apply", unanswered)
        with pytest.raises(Unavailable):
            await effects.step()
    assert set(started(fleet)) == begun
    await effects.settle()
    revision = (fleet.resource() or {})["status"]["specRevision"]
    assert started(fleet).count(f"rolling out {revision}") == 1


async def test_apply_when_a_child_is_gone_and_the_watch_lags_then_it_is_made_again(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    await effects.caches.stop()
    path = fleet.path("Deployment", "chat-router")
    fleet.server.request("DELETE", f"{path}?propagationPolicy=Background")
    fleet.patch(fleet.resource_path("chat"), {"spec": {"router": {"replicas": 3}}})
    await effects.settle()
    assert (fleet.get(path) or {})["spec"]["replicas"] == 3


async def test_apply_when_a_child_belongs_to_another_uid_then_it_is_not_touched(
    effects: Effects, fleet: Fleet
) -> None:
    foreign = {
        "metadata": {
            "name": "chat-router",
            "labels": {"llmfleet.dev/deployment": "chat"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u-x", "controller": True}
            ],
        }
    }
    fleet.apply(llm_deployment())
    await effects.caches.stop()  # the watch must not tell before the plan is applied
    unaware = decide(await effects.observer.observe(effects.owner), datetime.now(UTC))
    stored = fleet.server.create(fleet.path("ServiceAccount"), foreign)
    account = replace(
        unaware,
        status=None,
        children=tuple(child for child in unaware.children if child.key.kind == "ServiceAccount"),
    )
    assert account.children
    with pytest.raises(Conflict):
        await effects.step(account)  # found by its name, before anything is sent
    assert not await effects.step(account)
    assert fleet.child("ServiceAccount", "chat-router") == stored
    await effects.settle()
    assert fleet.child("ServiceAccount", "chat-router") == stored
    assert fleet.condition("NameTaken") is not None


async def test_children_when_a_backup_tool_stripped_their_owners_then_they_get_them_back(
    effects: Effects, fleet: Fleet
) -> None:
    uid = fleet.apply(llm_deployment())["metadata"]["uid"]
    await effects.settle()
    made = [kind for kind in CHILD_KINDS if fleet.children(kind.kind)]
    before = {kind.kind: fleet.children(kind.kind) for kind in made}
    for kind, children in before.items():
        for child in children:
            path = fleet.path(kind, child["metadata"]["name"])
            fleet.patch(path, {"metadata": {"ownerReferences": []}})
    await asyncio.sleep(1)  # until the caches know
    await effects.settle()
    assert fleet.condition("NameTaken") is None
    assert "ControllerRevision" in before
    for kind, children in before.items():
        for child in children:
            after = fleet.child(kind, child["metadata"]["name"]) or {}
            owners = after["metadata"].get("ownerReferences") or []
            owned = [] if kind == "ConfigMap" else [uid]  # the memory has no owner
            assert [each["uid"] for each in owners] == owned, kind
            assert after.get("spec") == child.get("spec")
            assert after.get("data") == child.get("data")
    assert not await effects.step()


async def test_name_when_taken_before_a_restart_then_the_next_operator_writes_nothing(
    effects: Effects, fleet: Fleet
) -> None:
    taken = {"metadata": {"name": "chat"}, "spec": {"ports": [{"port": 5432}]}}
    fleet.server.create(fleet.path("Service"), taken)
    fleet.apply(llm_deployment())
    await effects.settle()
    assert fleet.condition("NameTaken") is not None
    before = sent()
    async with running_effects(fleet) as restarted:
        await restarted.settle()
    assert sent() == before


async def test_child_when_the_intent_drops_a_field_then_it_goes_though_the_post_owned_it(
    effects: Effects, fleet: Fleet
) -> None:
    raw = fleet.apply(llm_deployment())
    key = ObjectKey(api_version="v1", kind="ConfigMap", name="chat-llmfleet-memory")
    snapshot = await effects.observer.observe(effects.owner)
    decided = decide(snapshot, datetime.now(UTC))
    memory = next(child for child in decided.children if child.key == key)

    def plan(data: JSON, digest: str) -> Plan:
        meta = {**memory.body["metadata"], "annotations": {"llmfleet.dev/digest": digest}}
        child = Child(
            key=key, mode=memory.mode, body={**memory.body, "metadata": meta, "data": data}
        )
        return replace(decided, status=None, children=(child,), deletions=(), events=())

    del raw
    assert await effects.step(plan({"a": "1", "b": "1"}, "d1"))
    assert not await effects.step(plan({"a": "1", "b": "1"}, "d1"))
    assert await effects.step(plan({"a": "2"}, "d2"))
    assert (fleet.child("ConfigMap", key.name) or {})["data"] == {"a": "2"}
    fleet.patch(fleet.path("ConfigMap", key.name), {"data": {"c": "3"}})

    def seen_by_the_cache() -> bool:
        held = effects.caches.children(effects.owner).get(key)
        return held is not None and "c" in held.body["data"]

    await asyncio.to_thread(eventually, seen_by_the_cache, "the watch tells")
    assert await effects.step(plan({"a": "2"}, "d2"))
    assert (fleet.child("ConfigMap", key.name) or {})["data"] == {"a": "2"}
    assert not await effects.step(plan({"a": "2"}, "d2"))


async def test_write_when_the_lease_is_not_surely_held_then_nothing_is_sent(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    effects.api.may_write = lambda: False
    with pytest.raises(NotLeading):
        await effects.step()
    assert fleet.children("ConfigMap") == []


async def test_child_when_quota_refuses_it_then_a_condition_says_so_until_it_is_lifted(
    effects: Effects, fleet: Fleet
) -> None:
    quotas = f"/api/v1/namespaces/{fleet.namespace}/resourcequotas"
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/deployments.apps": "0"}}}
    made = fleet.server.create(quotas, quota)
    made["status"] = {"hard": quota["spec"]["hard"], "used": {"count/deployments.apps": "0"}}
    assert fleet.server.request("PUT", f"{quotas}/none/status", made).status_code == 200
    fleet.apply(llm_deployment())

    assert await effects.step()  # the engine is refused
    assert await effects.step()  # the router too
    with pytest.raises(Forbidden):  # all is recorded; from now on it backs off
        await effects.step()
    found = fleet.condition("Progressing") or {}
    assert (found["status"], found["reason"]) == ("False", "ChildRefused")
    assert "Deployment chat-router was refused" in found["message"]
    assert "exceeded quota: none" in found["message"]
    assert fleet.children("Service")
    stored = fleet.resource()
    with pytest.raises(Forbidden):
        await effects.step()
    assert fleet.resource() == stored

    assert fleet.server.request("DELETE", f"{quotas}/none").status_code == 200
    await effects.settle()
    assert (fleet.condition("Progressing") or {})["reason"] == "WaitingForReady"
    assert len(fleet.children("Deployment")) == 2


def refuse(fleet: Fleet, resource: str) -> str:
    """A quota that lets nothing more of this resource be made; returns its path."""
    quotas = f"/api/v1/namespaces/{fleet.namespace}/resourcequotas"
    hard = {f"count/{resource}": "0"}
    made = fleet.server.create(quotas, {"metadata": {"name": "none"}, "spec": {"hard": hard}})
    made["status"] = {"hard": hard, "used": hard}
    assert fleet.server.request("PUT", f"{quotas}/none/status", made).status_code == 200
    return f"{quotas}/none"


def engines(fleet: Fleet) -> list[str]:
    """Names of the engines' Deployments."""
    label = "llmfleet.dev/component"
    return [
        each["metadata"]["name"]
        for each in fleet.children("Deployment")
        if each["metadata"]["labels"][label] == "engine"
    ]


async def lose(effects: Effects, fleet: Fleet, kind: str, name: str) -> None:
    """Somebody deletes a child, and the cache knows."""
    fleet.server.request("DELETE", f"{fleet.path(kind, name)}?propagationPolicy=Background")
    for _ in range(200):
        if (kind, name) not in {(k.kind, k.name) for k in effects.caches.children(effects.owner)}:
            break
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "resource", "goes"),
    [
        ("PodDisruptionBudget", "poddisruptionbudgets.policy", True),
        ("Deployment", "deployments.apps", True),
        ("ConfigMap", "configmaps", False),
    ],
)
async def test_f23_deletion_when_one_child_is_refused_then_it_waits_only_for_what_remembers(
    effects: Effects, fleet: Fleet, kind: str, resource: str, goes: bool
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    (first,) = engines(fleet)
    name = {"ConfigMap": "chat-llmfleet-memory"}.get(kind, "chat-router")
    await lose(effects, fleet, kind, name)
    quota = refuse(fleet, resource)
    # Nothing of the first revision ever ran, so it gives way to the second at once.
    fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/two"}}})
    for _ in range(4):
        with contextlib.suppress(Forbidden, Conflict):
            await effects.step()
    found = fleet.condition("Progressing") or {}
    assert found["reason"] == "ChildRefused"
    assert f"{kind} {name} was refused" in found["message"]
    assert (first not in engines(fleet)) is goes

    assert fleet.server.request("DELETE", quota).status_code == 200
    await effects.settle()
    assert first not in engines(fleet)
    assert fleet.child(kind, name) is not None


def break_webhook(fleet: Fleet, group: str, resource: str) -> str:
    """A policy for one resource whose webhook nobody answers for; returns its path."""
    webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["*"]}
    webhook = {
        "name": "policy.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{**rule, "resources": [resource]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    body = {"metadata": {"name": f"broken-{fleet.namespace}"}, "webhooks": [webhook]}
    fleet.server.create(webhooks, body)
    return f"{webhooks}/broken-{fleet.namespace}"


async def test_f23_deletion_when_a_webhook_for_another_child_does_not_answer_then_it_goes_on(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    (first,) = engines(fleet)
    await lose(effects, fleet, "PodDisruptionBudget", "chat-router")
    webhook = break_webhook(fleet, "policy", "poddisruptionbudgets")
    try:
        fleet.patch(fleet.resource_path("chat"), {"spec": {"model": {"source": "pvc://m/two"}}})
        for _ in range(4):
            with contextlib.suppress(Forbidden, Conflict):
                await effects.step()
        assert "failed calling webhook" in (fleet.condition("Progressing") or {})["message"]
        assert first not in engines(fleet)
    finally:
        assert fleet.server.request("DELETE", webhook).status_code == 200
    await effects.settle()
    assert fleet.child("PodDisruptionBudget", "chat-router") is not None


async def test_status_when_somebody_edits_it_then_it_is_put_back_once(
    effects: Effects, fleet: Fleet
) -> None:
    fleet.apply(llm_deployment())
    await effects.settle()
    path = fleet.resource_path("chat")
    before = (fleet.get(path) or {})["status"]
    fleet.patch(f"{path}/status", {"status": {"message": "nonsense", "canaryWeight": 7}})
    await effects.settle()
    after = (fleet.get(path) or {})["status"]
    assert after == before
    count = sent()
    assert not await effects.step()
    assert sent() == count
