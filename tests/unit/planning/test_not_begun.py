"""Pods that their nodes do not begin: told in the words of the one Event, aborted, tried again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from llmfleet.planning.facts.read import read_facts
from llmfleet.planning.rollout.diagnosis import diagnose_pod
from llmfleet.planning.snapshot import PodWarning
from tests.unit.planning.canaries import STEPS, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import START, engine_pod
from tests.unit.planning.test_nodes import engine_of, last_warning, stay
from tests.unit.planning.test_rollout import turn

SETUP = 'MountVolume.SetUp failed for volume "template" : '
WARNINGS = {
    "a chat template's ConfigMap": (
        "FailedMount", f'{SETUP}configmap "chat-template" not found', "ConfigMapMissing",
    ),
    "a volume's Secret": ("FailedMount", f'{SETUP}secret "certs" not found', "SecretMissing"),
    "a key of a ConfigMap": (
        "FailedMount", f"{SETUP}references non-existent config key: x.jinja", "ConfigMapMissing",
    ),
    "a disk that another node has": (
        "FailedAttachVolume",
        'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other',
        "VolumeFailed",
    ),
    "a disk that is gone": ("FailedMount", "Unable to attach or mount volumes", "VolumeFailed"),
    "a runtime that is not there": (
        "FailedCreatePodSandBox",
        'Failed to create pod sandbox: no runtime for "gvisor" is configured',
        "SandboxFailed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("word", "sentence", "reason"), WARNINGS.values(), ids=WARNINGS)
def test_canary_when_its_pod_cannot_be_begun_then_it_is_told_aborted_and_tried_again(
    word: str, sentence: str, reason: str
) -> None:
    world, old, new = started(canary(STEPS), broken=True)
    world.kubelet()
    warning = PodWarning(reason=word, message=sentence)
    stay(world, engine_of(world, new), sandbox_missing_since=world.now, warning=warning)
    world.wait(30)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", reason)
    assert sentence in found["message"]
    world.wait(119)
    world.reconcile()
    assert "aborted" not in world.status()["rollout"]

    world.wait(1)
    world.reconcile()
    assert world.status()["rollout"]["aborted"] == reason
    assert sentence in last_warning(world)
    assert (split(world), rejected(world)) == ({old: 100}, {})
    turn(world, 5)
    assert world.condition("Progressing")["reason"] == "WaitingForRetry"
    assert new not in world.replicas(), "its accelerators are given back"


def test_canary_when_what_its_pod_needs_is_made_then_it_goes_on() -> None:
    world, _, new = started(canary(STEPS), broken=True)
    world.kubelet()
    name = engine_of(world, new)
    _, sentence, _ = WARNINGS["a chat template's ConfigMap"]
    warning = PodWarning(reason="FailedMount", message=sentence)
    stay(world, name, sandbox_missing_since=world.now, warning=warning)
    world.wait(100)
    world.reconcile()
    world.pods[name] = replace(world.pods[name], sandbox_missing_since=None)  # begun
    world.broken = frozenset()
    turn(world, 5)
    world.wait(200)
    world.reconcile()
    assert split(world)[new] == 25
    assert "troubleSince" not in world.status()["rollout"]


CONFIG_ERRORS = {
    'configmap "settings" not found': "ConfigMapMissing",
    'secret "token" not found': "SecretMissing",
    "couldn't find key x in Secret team-a/token": "SecretMissing",
    "couldn't find key x in ConfigMap team-a/settings": "ConfigMapMissing",
    "container has runAsNonRoot and image will run as root": "StartError",
    "failed to prepare subPath for volumeMount": "StartError",
}


@pytest.mark.parametrize("words", CONFIG_ERRORS)
def test_pod_when_a_variable_of_its_container_is_missing_then_it_is_told_of_which_kind(
    words: str,
) -> None:
    facts: dict[str, Any] = {"waiting_reason": "CreateContainerConfigError"}
    found = diagnose_pod(engine_pod(**facts, waiting_message=words), START, 60)
    assert found is not None
    assert found.reason == CONFIG_ERRORS[words]
    assert words in found.message
    assert ("create it" in found.message) is ("not found" in words)


def test_pod_when_its_image_cannot_be_pulled_and_nobody_says_why_then_it_says_that() -> None:
    found = diagnose_pod(engine_pod(waiting_reason="ErrImageNeverPull"), START, 60)
    assert found is not None
    assert found.message.endswith("cannot pull its image: ErrImageNeverPull, and nothing says why")


def test_canary_when_nobody_makes_its_pods_then_its_deployment_is_named() -> None:
    world, old, new = started(canary(STEPS, progressDeadline="5m"))
    world.wait(301)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert f"no pod of its Deployment chat-rev-{new} is made" in found["message"]
    assert (split(world), rejected(world)) == ({old: 100}, {})


def test_f22_canary_when_its_node_died_before_it_was_ever_ready_then_it_is_not_rejected() -> None:
    world, old, new = started(canary(STEPS, progressDeadline="2m"), broken=True)
    world.kubelet()
    name = engine_of(world, new)
    running = {"phase": "Running", "running_since": world.now, "unready_since": world.now}
    stay(world, name, **running, asked=False)
    world.wait(600)
    world.reconcile()
    assert rejected(world) == {}, "nobody has said yet whether its node lives"
    wanted = f"nothing is concluded about engine pod {name} until its node"
    assert wanted in world.condition("Progressing")["message"]

    stay(world, name, node_lost=True, asked=True)
    world.reconcile()
    assert world.condition("Progressing")["reason"] in {"NodeLost", "ProgressDeadlineExceeded"}
    world.wait(120)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    assert world.status()["rollout"]["aborted"] == "NodeLost"
    assert "n1 is not ready" in last_warning(world)


def test_f22_canary_when_nobody_answers_for_its_pod_then_its_node_has_time_to_be_missed() -> None:
    world, old, new = started(canary(STEPS, progressDeadline="45s"), broken=True)
    world.kubelet()
    name = engine_of(world, new)
    running = {"phase": "Running", "running_since": world.now, "unready_since": world.now}
    stay(world, name, **running, silent_since=world.now)
    world.wait(60)
    plan = world.reconcile()
    assert rejected(world) == {}
    assert plan.requeue_after is not None
    stay(world, name, silent_since=None, node_lost=True)
    world.reconcile()
    world.wait(120)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})

    world, _, new = started(canary(STEPS, progressDeadline="45s"), broken=True)
    world.kubelet()
    running |= {"running_since": world.now, "unready_since": world.now}
    stay(world, engine_of(world, new), **running, silent_since=world.now)
    world.wait(119)
    world.reconcile()
    assert rejected(world) == {}
    world.wait(1)
    world.reconcile()
    assert rejected(world) == {new: "NeverReady"}, "a network policy may be all there is to it"


def test_canary_when_it_is_never_ready_on_a_node_that_lives_then_it_is_rejected() -> None:
    world, _, new = started(canary(STEPS, progressDeadline="2m"), broken=True)
    world.kubelet()
    running = {"phase": "Running", "running_since": world.now, "unready_since": world.now}
    stay(world, engine_of(world, new), **running)
    world.wait(120)
    world.reconcile()
    assert rejected(world) == {new: "NeverReady"}


def test_pod_when_never_ready_and_deleted_on_a_dead_node_then_it_holds_nothing() -> None:
    world, _, new = started(canary(STEPS))
    at_share(world, new, 25)
    name = engine_of(world, new)
    stay(world, name, deleting=True, ends_at=world.now, node_lost=True)
    before = read_facts(world.snapshot(), 2, world.now).arm(new).present
    world.wait(31)
    facts = read_facts(world.snapshot(), 2, world.now)
    assert facts.arm(new).present == before - 1
    assert facts.release_times == ()


def test_pod_when_its_sandbox_was_late_then_its_deadline_counts_from_its_start() -> None:
    begun = {"running_since": START - timedelta(seconds=59), "sandbox_missing_since": None}
    warning = PodWarning(reason="FailedMount", message="once")
    assert diagnose_pod(engine_pod(**begun, warning=warning), START, 60) is None
