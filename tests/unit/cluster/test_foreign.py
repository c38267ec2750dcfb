"""Words of others, from where they come in to the status: none keeps it from being written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from llmfleet.api import clean_line, clean_tree, parse
from llmfleet.cluster.equality import Difference
from llmfleet.cluster.errors import error_from_answer
from llmfleet.cluster.notifying import build_cloud_event
from llmfleet.cluster.observing import UnreadableError
from llmfleet.cluster.pods import observe_pod, observe_replica_set
from llmfleet.cluster.routers import read_report
from llmfleet.planning.plan import PlannedEvent
from tests.unit.cluster.test_small_parts import ROUTER
from tests.unit.planning.canaries import annotate, started
from tests.unit.planning.fleet import Fleet, hash_of, resource

JSON = dict[str, Any]
HALF = "\ud83d"
HOSTILE = f"no\x1b]0;owned\x07 \x1b[2Jroom\u202e\x00{HALF}\r\nforged: line"


def pod(world: Fleet, *, state: JSON, conditions: list[JSON] | None = None) -> JSON:
    labels = {
        "llmfleet.dev/deployment": "chat", "llmfleet.dev/component": "engine",
        "llmfleet.dev/revision": hash_of(world.raw),
    }  # fmt: skip
    meta = {"name": "p", "uid": "p", "creationTimestamp": "2026-03-01T12:00:00Z", "labels": labels}
    container = {"name": "engine", "state": state, "restartCount": 1}
    status = {"conditions": conditions or [], "containerStatuses": [container]}
    return {"metadata": meta, "status": status}


def ended(message: str, reason: str = "Error") -> JSON:
    return {"terminated": {"exitCode": 1, "reason": reason, "message": message}}


def spelled(**said: Any) -> JSON:
    """Last words as JSON, in which escapes stand for what cannot be seen."""
    return ended(json.dumps(said))


STATES: dict[str, JSON] = {
    "free last words": ended(HOSTILE),
    "a reason": ended("", reason=HOSTILE),
    "the runtime's words": spelled(reason="EngineError", message=HOSTILE),
    "half a surrogate spelled out": ended('{"reason": "BadConfig", "message": "\\ud83d"}'),
    "words of another type": spelled(reason="EngineError", message=[HOSTILE]),
    "a reason of another type": spelled(reason=["EngineError"], message="x"),
    "4,000 brackets": ended("[" * 4000),
    "an image": {"waiting": {"reason": "ErrImagePull", "message": HOSTILE}},
    "a missing Secret": {"waiting": {"reason": "CreateContainerConfigError", "message": HOSTILE}},
}


def assert_clean(status: JSON | None) -> None:
    assert status is not None
    assert clean_tree(status) == status
    assert b"owned" not in orjson.dumps(status)


@pytest.mark.parametrize("state", STATES)
def test_status_when_a_pod_ends_with_hostile_words_then_it_is_written_without_them(
    state: str,
) -> None:
    world = Fleet(resource())
    world.reconcile()
    world.pods["p"] = observe_pod(pod(world, state=STATES[state]))
    plan = world.reconcile()
    assert_clean(plan.status)
    for event in plan.events:
        orjson.dumps(event.message)


def test_status_when_the_scheduler_or_quota_says_hostile_words_then_they_are_one_line() -> None:
    world = Fleet(resource())
    condition = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": HOSTILE,
    }  # fmt: skip
    found = observe_pod(pod(world, state={}, conditions=[condition]))
    assert found.unschedulable == "no room\ufffd forged: line"
    refused = {
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": f"exceeded quota: {HOSTILE}",
    }  # fmt: skip
    body = {"metadata": {"uid": "u"}, "status": {"conditions": [refused]}}
    assert observe_replica_set(body).refused == "exceeded quota: no room\ufffd forged: line"


def test_refusal_when_the_api_server_or_a_proxy_answers_anything_then_its_words_are_clean() -> None:
    body = json.dumps({"reason": HOSTILE, "message": HOSTILE}).encode()
    for answer in (body, HOSTILE.encode(errors="surrogatepass"), b"[" * 5000):
        error = error_from_answer(403, answer, "PATCH x", "1e400")
        assert str(error) == clean_line(str(error))
        assert error.retry_after_seconds == 300
    assert error_from_answer(503, b"", "GET x", "nan").retry_after_seconds is None


@pytest.mark.parametrize("generation", [True, "7", 1.5, float("inf"), -1, [], {}], ids=repr)
def test_router_when_its_generation_is_no_number_then_the_answer_is_refused(
    generation: Any,
) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_report(ROUTER, {"trafficGeneration": generation})


def test_edit_when_its_author_has_a_hostile_name_then_the_sentence_is_clean() -> None:
    found = Difference(digest_changed=False, leaves=(), surplus={HOSTILE: (f"spec.{HOSTILE}",)})
    assert found.sentence() == clean_line(found.sentence())


def test_act_when_its_value_is_hostile_then_it_is_refused_in_clean_words_once() -> None:
    world, *_ = started()
    annotate(world, "promote", f"zzz@{HOSTILE}")
    plan = world.reconcile()
    assert_clean(plan.status)
    assert world.condition("ActRefused")["status"] == "True"
    world.reconcile()
    assert world.condition("ActRefused")["status"] == "True"
    assert world.events.count("ActRefused") == 1
    event = build_cloud_event(
        world.raw, PlannedEvent(type="Warning", reason="ActRefused",
                                message=world.condition("ActRefused")["message"]),
        world.status(), datetime(2026, 3, 1, tzinfo=UTC),
    )  # fmt: skip
    orjson.dumps(event)


def test_resource_when_its_stored_status_is_hostile_then_what_is_written_again_is_clean() -> None:
    world = Fleet(resource())
    world.settle()
    rejected = {"hash": "0123456789", "reason": "Bad", "at": "2026-03-01T12:00:00Z",
                "message": HOSTILE.replace(HALF, "")}  # fmt: skip
    world.raw["status"]["rejectedRevisions"] = [rejected]
    assert_clean(world.reconcile().status)


def test_resource_when_a_key_that_cannot_be_read_is_hostile_then_the_problem_is_clean() -> None:
    raw = resource(podTemplate={"nodeSelector": {f"x\x1b[31m\n{HALF}": 5}})
    with pytest.raises(ValueError, match="nodeSelector") as error:
        parse(raw)
    told = UnreadableError(raw, error.value).problem  # type: ignore[arg-type]
    assert told == clean_line(told)
