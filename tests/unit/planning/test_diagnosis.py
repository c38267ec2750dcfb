"""What a failing pod's facts become: a reason, a sentence, and whether trying again can help."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.rollout.diagnosis import diagnose_arm, diagnose_pod, waiting_for_capacity
from llmfleet.planning.snapshot import Termination
from tests.unit.planning.fleet import START, engine_pod


def ended(message: str, *, code: int = 1, reason: str = "Error") -> dict[str, Any]:
    end = Termination(exit_code=code, reason=reason, message=message, finished_at=START)
    return {"last_termination": end, "restarts": 1, "waiting_reason": "CrashLoopBackOff"}


def said(reason: str, *, retriable: bool) -> dict[str, Any]:
    words = {"reason": reason, "message": "the engine's own words", "retriable": retriable}
    return ended(json.dumps(words))


CASES = {
    "model missing": (said("ModelNotFound", retriable=False), "ModelNotFound", "own words", True),
    "download": (said("DownloadFailed", retriable=True), "DownloadFailed", "own words", False),
    "unknown reason": (said("Whatever", retriable=False), "CrashLoop", "own words", False),
    "free text": (ended("Segmentation fault", code=139), "CrashLoop", "139: Segmentation", False),
    "JSON that is no object": (ended("[1]"), "CrashLoop", "[1]", False),
    "no message": (ended(""), "CrashLoop", "Error", False),
    "memory limit": (ended("", code=137, reason="OOMKilled"), "OutOfMemory", "raise", True),
    "image": (
        {"waiting_reason": "ImagePullBackOff", "waiting_message": "not found"},
        "ImagePullFailed",
        "not found",
        False,
    ),
    "secret": (
        {
            "waiting_reason": "CreateContainerConfigError",
            "waiting_message": 'secret "absent" not found',
        },
        "SecretMissing",
        'secret "absent" not found',
        False,
    ),
    "claim": (
        {"unschedulable": '0/1 nodes: persistentvolumeclaim "absent" not found.'},
        "ClaimMissing",
        "absent",
        False,
    ),
    "a claim that is going": (
        {"unschedulable": '0/1 nodes: persistentvolumeclaim "old" is being deleted.'},
        "ClaimMissing",
        "is being deleted",
        False,
    ),
    "a claim of no class": (
        {"unschedulable": 'storageclass.storage.k8s.io "fast" not found.'},
        "ClaimMissing",
        "fast",
        False,
    ),
    "never ready": (
        {"running_since": START - timedelta(seconds=60)},
        "NeverReady",
        "60 s",
        True,
    ),
}


@pytest.mark.parametrize(("facts", "reason", "words", "fatal"), CASES.values(), ids=CASES)
def test_diagnosis_when_a_pod_fails_then_reason_and_message_are_given(
    facts: dict[str, Any], reason: str, words: str, fatal: bool
) -> None:
    found = diagnose_pod(engine_pod(**facts), START, 60)
    assert found is not None
    assert (found.reason, found.fatal) == (reason, fatal)
    assert words in found.message


WELL = {
    "starting": {},
    "ready after a crash": {**said("EngineError", retriable=True), "ready": True},
    "ending": {**said("EngineError", retriable=True), "deleting": True},
    "no room": {"unschedulable": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."},
    "running, deadline not reached": {"running_since": START - timedelta(seconds=59)},
}


@pytest.mark.parametrize("facts", WELL.values(), ids=WELL)
def test_diagnosis_when_nothing_is_wrong_with_the_pod_then_nothing_is_told(
    facts: dict[str, Any],
) -> None:
    assert diagnose_pod(engine_pod(**facts), START, 60) is None


def test_diagnosis_when_several_fail_then_the_fatal_one_is_told() -> None:
    arm = Arm(
        wanted=2,
        pods=(
            engine_pod("a", **said("DownloadFailed", retriable=True)),
            engine_pod("b", **said("BadConfig", retriable=False)),
        ),
    )
    found = diagnose_arm(arm, START, 60, {})
    assert found is not None
    assert found.pod == "b"


def test_capacity_when_a_claim_is_missing_then_it_is_not_a_lack_of_room() -> None:
    assert waiting_for_capacity(engine_pod(**WELL["no room"]))
    assert not waiting_for_capacity(engine_pod(**CASES["claim"][0]))


@pytest.mark.parametrize(
    ("container", "facts", "words"),
    [
        ("envoy", ended("Envoy ended"), "'s container envoy ended with exit code 1: Envoy ended"),
        ("agent", ended("not set", code=2), "'s container agent ended with exit code 2: not set"),
        (
            "agent",
            {"waiting_reason": "ErrImagePull", "waiting_message": "no such tag"},
            "'s container agent cannot pull its image: no such tag",
        ),
        (
            "envoy",
            ended("", code=137, reason="OOMKilled"),
            "raise spec.router.podTemplate.resources",
        ),
        ("agent", ended("", code=137, reason="OOMKilled"), "Envoy serves meanwhile"),
    ],
)
def test_router_when_one_of_its_containers_fails_then_the_sentence_names_it(
    container: str, facts: dict[str, Any], words: str
) -> None:
    pod = engine_pod("chat-router-1", component="router", revision=None, ready=False)
    found = diagnose_pod(dataclasses.replace(pod, container=container, **facts), START, 60)
    assert found is not None
    assert found.message.startswith(f"router pod chat-router-1's container {container} ")
    assert words in found.message
    assert "spec.podTemplate" not in found.message, "that is the engines'"
