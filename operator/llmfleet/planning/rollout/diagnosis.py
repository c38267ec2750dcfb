"""Why an engine pod is not ready, from the facts of the pod, as a reason and a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.api import clean_text
from llmfleet.planning.facts.arms import Arm
from llmfleet.planning.rollout.downloads import stalls_at
from llmfleet.planning.rollout.kubelet import (
    FAILED_TOLD_FOR,
    describe_failed,
    explain_missing,
    explain_warning,
    failed_at,
)
from llmfleet.planning.snapshot import ObservedPod, Termination

UNSCHEDULABLE_SECONDS: Final = 10
"""So long the scheduler's refusal must last (design, section 6 rule 5)."""
SANDBOX_SECONDS: Final = 120
"""Volumes are attached and a pod's network is made well within this."""
RUNTIME_REASONS: Final = frozenset({
    "ModelNotFound", "ModelUnreadable", "DownloadFailed", "Unauthorized", "OutOfMemory",
    "UnsupportedOption", "EngineError", "BadConfig",
})  # fmt: skip
"""What the runtime's termination log may say (docs/contract.md, Runtime)."""
NOT_ITS_FAULT: Final = frozenset({
    "ImagePullFailed", "SecretMissing", "ConfigMapMissing", "ClaimMissing", "VolumeFailed",
    "DownloadFailed", "Unauthorized", "NodeLost", "StartError", "SandboxFailed",
})  # fmt: skip
"""Reasons of the cluster's, not of the revision."""
GRACE: Final = timedelta(minutes=2)
"""So long what is not a revision's fault may last: most of it mends itself. A container that has
run again for so long is not in trouble any more: it downloads, or loads."""

_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_UNBOUND: Final = "unbound immediate PersistentVolumeClaims"
_IMAGE_WORDS: Final = frozenset({
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
    "ImageInspectError", "RegistryUnavailable",
})  # fmt: skip
_START_WORDS: Final = frozenset({"CreateContainerError", "RunContainerError"})
"""The kubelet's words while it cannot make a container start."""
_STARTS_THAT_FAILED: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Container runtimes' words for a container whose first process never ran."""
_CONTAINERS_LOST: Final = frozenset({"ContainerStatusUnknown", "Unknown"})
"""The kubelet's and containerd's words for one that was there before the node restarted."""
_LONGEST_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One pod's trouble."""

    reason: str
    message: str
    """A sentence, ending with the message of whoever failed."""
    fatal: bool
    """Trying again with the same spec cannot help."""
    pod: str


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
    recent = [pod for pod in arm.failed if now < failed_at(pod) + FAILED_TOLD_FOR]
    # Not the latest: nodes can refuse pods every second, and the sentence should stay the same.
    first = min(recent, key=lambda pod: (pod.node or "", pod.reason or "", pod.name), default=None)
    if first is None:
        return None
    reason, text = describe_failed(first)
    return Diagnosis(reason=reason, message=text[:_LONGEST_MESSAGE], fatal=False, pod=first.name)


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
        return _say(pod, "NodeLost", f"cannot be reached: its node {pod.node} is not ready")
    if pod.waiting_reason in _IMAGE_WORDS:
        return _say(pod, "ImagePullFailed", f"cannot pull its image: {pod.waiting_message}")
    if pod.waiting_reason == "CreateContainerConfigError":
        return _say(pod, *explain_missing(pod.waiting_message or ""))
    if pod.waiting_reason in _START_WORDS:
        return _not_started(pod, pod.waiting_message)
    if pod.last_termination is not None and _tells(pod, now, ended_before):
        return _ended(pod, pod.last_termination)
    if pod.sandbox_missing_since is not None:
        if pod.warning is not None:
            return _say(pod, *explain_warning(pod.warning, pod.node))
        if now < _sandbox_due(pod.sandbox_missing_since):
            return None
        text = f"was not begun by its node {pod.node} for {SANDBOX_SECONDS} s: a volume cannot be"
        return _say(pod, "SandboxMissing", f"{text} mounted, or its network cannot be made")
    due = _ready_due(pod, deadline_seconds)
    if due is not None and now >= due and pod.asked:
        text = f"has been running for {deadline_seconds} s without being ready"
        return _say(pod, "NeverReady", text, fatal=True)
    return None


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


def count_ends(pod: ObservedPod) -> int:
    """How often its container has ended in the pod's life: restarted, or waiting for that.

    >>> from datetime import UTC
    >>> born = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> end = Termination(exit_code=1, reason="Error", message="", finished_at=born)
    >>> facts = dict.fromkeys(("revision", "pod_ip", "unschedulable", "unschedulable_since",
    ...                        "waiting_reason", "waiting_message", "running_since"))
    >>> pod = ObservedPod(name="p", uid="u", component="engine", phase="Running", ready=False,
    ...     deleting=False, created_at=born, restarts=1, last_termination=end, **facts)
    >>> from dataclasses import replace
    >>> count_ends(pod), count_ends(replace(pod, running_since=born))
    (2, 1)
    """
    return pod.restarts + (pod.last_termination is not None and pod.running_since is None)


def ended_innocently(pod: ObservedPod) -> bool:
    """Whether a pod's container ended last, or never began, by no fault of its revision."""
    end = pod.last_termination
    return end is not None and _ended(pod, end).reason in NOT_ITS_FAULT


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
    times = [failed_at(pod) + FAILED_TOLD_FOR for pod in arm.failed]
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


def pod_times(pod: ObservedPod) -> list[datetime]:
    """When time alone changes what is said about a pod that has not begun."""
    times = []
    if waiting_for_capacity(pod):
        since = pod.unschedulable_since or pod.created_at
        times.append(since + timedelta(seconds=UNSCHEDULABLE_SECONDS))
    if pod.sandbox_missing_since is not None and not pod.ready:
        times.append(_sandbox_due(pod.sandbox_missing_since))
    return times


def _ready_due(pod: ObservedPod, deadline_seconds: int) -> datetime | None:
    """From when on a pod that runs without being ready counts as failed.

    One that nobody answers for may be on a node that has died: Kubernetes says so within a minute.
    """
    since = waiting_since(pod)
    if since is None:
        return None
    return since + timedelta(seconds=deadline_seconds) + (GRACE if pod.silent else timedelta())


def _sandbox_due(since: datetime) -> datetime:
    return since + timedelta(seconds=SANDBOX_SECONDS)


def _claim(pod: ObservedPod, sentence: str) -> Diagnosis | None:
    match = _CLAIM.search(sentence)
    if match:
        text = f"needs the PersistentVolumeClaim {match[1]}, which does not exist: create it"
        return _say(pod, "ClaimMissing", text)
    if _UNBOUND in sentence:
        text = f"needs a PersistentVolumeClaim that is not bound to a volume: {sentence}"
        return _say(pod, "ClaimMissing", text)
    return None


def _not_started(pod: ObservedPod, words: str | None) -> Diagnosis:
    said = (words or "").strip() or "it does not say why"
    return _say(pod, "StartError", f"cannot be started by its node {pod.node}: {said}")


def _ended(pod: ObservedPod, termination: Termination) -> Diagnosis:
    if termination.reason in _STARTS_THAT_FAILED:
        return _not_started(pod, termination.message)
    if termination.reason in _CONTAINERS_LOST:
        text = f"lost its container on node {pod.node}, as when a node restarts"
        return _say(pod, "NodeLost", text)
    try:
        said = json.loads(termination.message)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and str(said.get("reason")) in RUNTIME_REASONS:
        # Cleaned here too: what JSON spells with escapes is there only after reading it.
        message = said.get("message")
        words = clean_text(message) if isinstance(message, str) and message else "no message"
        return _say(
            pod, str(said["reason"]), f"ended: {words}", fatal=said.get("retriable") is False
        )
    if termination.reason == "OOMKilled":
        text = (
            "was killed because it used more memory than its limit: raise"
            " spec.podTemplate.resources.limits.memory, or lower maxModelLen or maxNumSeqs"
        )
        return _say(pod, "OutOfMemory", text, fatal=True)
    words = termination.message.strip() or termination.reason or "it said nothing"
    return _say(pod, "CrashLoop", f"ended with exit code {termination.exit_code}: {words}")


def _say(pod: ObservedPod, reason: str, text: str, *, fatal: bool = False) -> Diagnosis:
    message = f"{pod.component} pod {pod.name} {text}"[:_LONGEST_MESSAGE]
    return Diagnosis(reason=reason, message=message, fatal=fatal, pod=pod.name)
