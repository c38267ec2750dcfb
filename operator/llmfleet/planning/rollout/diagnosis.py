"""Why an engine pod is not ready, from the facts of the pod, as a reason and a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from llmfleet.api import shorten
from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.rollout.downloads import stalls_at
from llmfleet.planning.rollout.ends import (
    LONGEST_MESSAGE,
    Diagnosis,
    count_ends,
    ended_innocently,
    explain_end,
    explain_start,
    say,
    say_of_container,
)
from llmfleet.planning.rollout.kubelet import (
    FAILED_TOLD_FOR,
    describe_failed,
    explain_missing,
    explain_warning,
    failed_at,
    is_missing,
)
from llmfleet.planning.snapshot import ObservedPod

UNSCHEDULABLE_SECONDS: Final = 10
"""So long the scheduler's refusal must last (design, section 6 rule 5)."""
SANDBOX_SECONDS: Final = 120
"""Volumes are attached and a pod's network is made well within this; a scheduler has looked at a
pod, and containers that run before its own have ended."""
GRACE: Final = timedelta(minutes=2)
"""So long what is not a revision's fault may last: most of it mends itself. A container that has
run again for so long is not in trouble any more: it downloads, or loads."""

_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_OF_A_CLAIM: Final = re.compile(
    'unbound immediate PersistentVolumeClaims|persistentvolumeclaim "|storageclass[a-z0-9.]* "'
)
"""The scheduler's words for a claim that cannot be used: unbound, being deleted, of no class."""
_IMAGE_WORDS: Final = frozenset({
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
    "ImageInspectError", "RegistryUnavailable",
})  # fmt: skip
_START_WORDS: Final = frozenset({
    "CreateContainerError", "RunContainerError", "CreateContainerConfigError",
    "PreCreateHookError", "PreStartHookError", "PostStartHookError",
})  # fmt: skip
"""The kubelet's words while it cannot make a container start: the last, of one that must run as no
root, say."""


def diagnose_arm(
    arm: Arm, now: datetime, deadline_seconds: int, ended_before: Mapping[str, int]
) -> Diagnosis | None:
    """The trouble worth telling: a fatal one first, then the first by pod name.

    Pods that their nodes ended are told of when nothing else explains why one is missing.

    Args:
        arm: what is observed of a revision.
        now: the time of the decision.
        deadline_seconds: progressDeadline; running so long without being ready is a failure.
        ended_before: pod → its container's ends that do not count (``count_ends``).
    """
    found = [
        each
        for pod in arm.live
        if (each := diagnose_pod(pod, now, deadline_seconds, ended_before.get(pod.name, 0)))
    ]
    if found or arm.wanted is None or arm.ready >= arm.wanted:
        return min(found, key=lambda each: (not each.fatal, each.pod), default=None)
    return diagnose_failed(arm.failed, now)


def diagnose_failed(failed: Iterable[ObservedPod], now: datetime) -> Diagnosis | None:
    """Why nodes ended or refused pods of late."""
    recent = [pod for pod in failed if now < failed_at(pod) + FAILED_TOLD_FOR]
    # Not the latest: nodes can refuse pods every second, and the sentence should stay the same.
    first = min(recent, key=lambda pod: (pod.node or "", pod.reason or "", pod.name), default=None)
    if first is None:
        return None
    reason, text = describe_failed(first)
    return Diagnosis(
        reason=reason, message=shorten(text, LONGEST_MESSAGE), fatal=False, pod=first.name
    )


def diagnose_pod(  # noqa: PLR0911 - ordered checks, one answer each
    pod: ObservedPod, now: datetime, deadline_seconds: int, ended_before: int = 0
) -> Diagnosis | None:
    """What is wrong with a pod; None while it is well, starting, ending, or merely waits for room.

    Args:
        pod: an engine pod that has not ended.
        now: the time of the decision.
        deadline_seconds: progressDeadline; running so long without being ready is a failure.
        ended_before: its container's ends that do not count (``count_ends``).
    """
    if pod.ready or pod.deleting or pod.gates:
        return None
    if pod.unschedulable is not None:
        return _claim(pod, pod.unschedulable)
    if pod.node_lost:
        return say(pod, "NodeLost", f"cannot be reached: its node {pod.node} is not ready")
    if pod.waiting_reason in _IMAGE_WORDS:
        return say_of_container(pod, "ImagePullFailed", f"cannot pull its image: {_why(pod)}")
    if pod.waiting_reason == "CreateContainerConfigError" and is_missing(pod.waiting_message or ""):
        return say_of_container(pod, *explain_missing(pod.waiting_message or ""))
    if pod.waiting_reason in _START_WORDS:
        return explain_start(pod, pod.waiting_message)
    if pod.last_termination is not None and _tells(pod, now, ended_before):
        return explain_end(pod, pod.last_termination)
    if pod.hindrance is not None and pod.hindrance.failed:
        return say(pod, "SidecarFailed", f"cannot get ready: {pod.hindrance.text}")
    if pod.sandbox_missing_since is not None:
        if pod.warning is not None:
            return say(pod, *explain_warning(pod.warning, pod.node))
        if now < _sandbox_due(pod.sandbox_missing_since):
            return None
        text = f"was not begun by its node {pod.node} for {SANDBOX_SECONDS} s: a volume cannot be"
        return say(pod, "SandboxMissing", f"{text} mounted, or its network cannot be made")
    return _never_ready(pod, now, deadline_seconds)


def _why(pod: ObservedPod) -> str:
    return pod.waiting_message or f"{pod.waiting_reason}, and nothing says why"


def why_undecided(arm: Arm, now: datetime, deadline_seconds: int) -> str:
    """Why pods that have taken too long are not taken for failed, as the end of a sentence.

    Args:
        arm: what is observed of a revision.
        now: the time of the decision.
        deadline_seconds: progressDeadline.
    """
    for pod in arm.live:
        due = _ready_due(pod, deadline_seconds)
        if not pod.ready and not pod.asked and due is not None and now >= due:
            return (
                f"; nothing is concluded about engine pod {pod.name} until its node and its"
                " supervisor have been asked"
            )
    return ""


def _never_ready(pod: ObservedPod, now: datetime, deadline_seconds: int) -> Diagnosis | None:
    """What is told when nothing is said to be wrong, and it takes too long.

    A revision is at fault for what its own container does, and not for what else is in its pods.
    """
    due = _ready_due(pod, deadline_seconds)
    if due is None:
        due = pod.created_at + timedelta(seconds=SANDBOX_SECONDS)
    if now < due or not pod.asked:
        return None
    if pod.hindrance is not None:
        return say(pod, "PodNotReady", f"is not ready yet: {pod.hindrance.text}")
    if pod.running_since is not None:
        text = f"has been running for {deadline_seconds} s without being ready"
        return say(pod, "NeverReady", text, fatal=True)
    if pod.node is None:
        text = f"was given no node for {SANDBOX_SECONDS} s, and no scheduler says why: does the"
        return say(pod, "NotScheduled", f"{text} scheduler run?")
    return None


def _tells(pod: ObservedPod, now: datetime, ended_before: int) -> bool:
    """Whether the last end of a pod's container says why it is not ready now."""
    if count_ends(pod) > ended_before:
        return True
    return ended_innocently(pod) and (pod.running_since is None or now < pod.running_since + GRACE)


def waiting_since(pod: ObservedPod) -> datetime | None:
    """Since when a running pod should be ready.

    Its start, the loss of its readiness, or the last byte of its download.
    """
    if pod.running_since is None:
        return None
    later = [] if pod.unready_since is None else [pod.unready_since]
    later += [] if pod.download is None else [pod.download.moved_at]
    return max([pod.running_since, *later])


def waiting_for_capacity(pod: ObservedPod) -> bool:
    """Whether the scheduler finds no node for it, or may not look for one yet.

    A missing claim is another matter.
    """
    if pod.deleting:
        return False
    lacks_room = pod.unschedulable is not None and _claim(pod, pod.unschedulable) is None
    return lacks_room or bool(pod.gates)


def diagnosis_times(arm: Arm, deadline_seconds: int) -> list[datetime]:
    """When time alone changes what is said about an arm's pods."""
    times = failed_times(arm.failed)
    for pod in arm.live:
        times += pod_times(pod)
        if pod.ready:
            continue
        due = _ready_due(pod, deadline_seconds)
        times += [] if due is None else [due]
        times += [] if pod.running_since is None else [pod.running_since + GRACE]
        if pod.download is not None and (stalls := stalls_at(pod.download)) is not None:
            times.append(stalls)
    return times


def failed_times(failed: Iterable[ObservedPod]) -> list[datetime]:
    """When pods that failed explain nothing any more."""
    return [failed_at(pod) + FAILED_TOLD_FOR for pod in failed]


def pod_times(pod: ObservedPod) -> list[datetime]:
    """When time alone changes what is said about a pod that has not begun."""
    times = []
    if waiting_for_capacity(pod):
        since = pod.unschedulable_since or pod.created_at
        times.append(since + timedelta(seconds=UNSCHEDULABLE_SECONDS))
    if pod.sandbox_missing_since is not None and not pod.ready:
        times.append(_sandbox_due(pod.sandbox_missing_since))
    if _has_not_begun(pod):
        times.append(pod.created_at + timedelta(seconds=SANDBOX_SECONDS))
    return times


def _has_not_begun(pod: ObservedPod) -> bool:
    """Whether its own container does not run, and it takes time to tell what it waits for."""
    if pod.ready or pod.running_since is not None or pod.last_termination is not None:
        return False
    told = pod.unschedulable or pod.gates or pod.waiting_reason
    return pod.hindrance is not None or (pod.node is None and not told)


def _ready_due(pod: ObservedPod, deadline_seconds: int) -> datetime | None:
    """From when on a pod that runs without being ready counts as failed.

    One that nobody answers for may be on a node that has died, whatever was waited for before:
    Kubernetes says so within a minute.
    """
    since = waiting_since(pod)
    if since is None:
        return None
    due = since + timedelta(seconds=deadline_seconds)
    return due if pod.silent_since is None else max(due, pod.silent_since + GRACE)


def _sandbox_due(since: datetime) -> datetime:
    return since + timedelta(seconds=SANDBOX_SECONDS)


def _claim(pod: ObservedPod, sentence: str) -> Diagnosis | None:
    match = _CLAIM.search(sentence)
    if match:
        text = f"needs the PersistentVolumeClaim {match[1]}, which does not exist: create it"
        return say(pod, "ClaimMissing", text)
    if _OF_A_CLAIM.search(sentence):
        text = f"needs a PersistentVolumeClaim that is not bound to a volume: {sentence}"
        return say(pod, "ClaimMissing", text)
    return None
