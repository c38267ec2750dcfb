"""How a pod's container ended, from what the kubelet and the container itself say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from llmfleet.api import clean_text, shorten
from llmfleet.planning.snapshot import ObservedPod, Termination

RUNTIME_REASONS: Final = frozenset({
    "ModelNotFound", "ModelUnreadable", "DownloadFailed", "Unauthorized", "OutOfMemory",
    "UnsupportedOption", "EngineError", "BadConfig",
})  # fmt: skip
"""What the runtime's termination log may say (docs/contract.md, Runtime)."""
NOT_ITS_FAULT: Final = frozenset({
    "ImagePullFailed", "SecretMissing", "ConfigMapMissing", "ClaimMissing", "VolumeFailed",
    "DownloadFailed", "Unauthorized", "NodeLost", "StartError", "SandboxFailed",
    "SidecarFailed",
})  # fmt: skip
"""Reasons of the cluster's, not of the revision."""
_STARTS_THAT_FAILED: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Container runtimes' words for a container whose first process never ran."""
_CONTAINERS_LOST: Final = frozenset({"ContainerStatusUnknown", "Unknown"})
"""The kubelet's and containerd's words for one that was there before the node restarted."""
LONGEST_MESSAGE: Final = 2000
"""Bytes of what is said about one pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One pod's trouble."""

    reason: str
    message: str
    """A sentence, ending with the message of whoever failed."""
    fatal: bool
    """Trying again with the same spec cannot help."""
    pod: str


def count_ends(pod: ObservedPod) -> int:
    """How often its container has ended in the pod's life: restarted, or waiting for that.

    >>> from dataclasses import replace
    >>> from datetime import UTC, datetime
    >>> born = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> end = Termination(exit_code=1, reason="Error", message="", finished_at=born)
    >>> facts = dict.fromkeys(("revision", "pod_ip", "unschedulable", "unschedulable_since",
    ...                        "waiting_reason", "waiting_message", "running_since"))
    >>> pod = ObservedPod(name="p", uid="u", component="engine", phase="Running", ready=False,
    ...     deleting=False, created_at=born, restarts=1, last_termination=end, **facts)
    >>> count_ends(pod), count_ends(replace(pod, running_since=born))
    (2, 1)
    """
    return pod.restarts + (pod.last_termination is not None and pod.running_since is None)


def ended_innocently(pod: ObservedPod) -> bool:
    """Whether a pod's container ended last, or never began, by no fault of its revision."""
    end = pod.last_termination
    return end is not None and explain_end(pod, end).reason in NOT_ITS_FAULT


def explain_end(pod: ObservedPod, termination: Termination) -> Diagnosis:
    """What the end of a container says of its pod."""
    if termination.reason in _STARTS_THAT_FAILED:
        return explain_start(pod, termination.message)
    if termination.reason in _CONTAINERS_LOST:
        text = f"lost its container on node {pod.node}, as when a node restarts"
        return say(pod, "NodeLost", text)
    try:
        said = json.loads(termination.message)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and str(said.get("reason")) in RUNTIME_REASONS:
        # Cleaned here too: what JSON spells with escapes is there only after reading it.
        message = said.get("message")
        words = clean_text(message) if isinstance(message, str) and message else "no message"
        return say(
            pod, str(said["reason"]), f"ended: {words}", fatal=said.get("retriable") is False
        )
    if termination.reason == "OOMKilled":
        text = f"was killed because it used more memory than its limit: {_more_memory(pod)}"
        return say_of_container(pod, "OutOfMemory", text, fatal=True)
    words = termination.message.strip() or termination.reason or "it said nothing"
    text = f"ended with exit code {termination.exit_code}: {words}"
    return say_of_container(pod, "CrashLoop", text)


def explain_start(pod: ObservedPod, words: str | None) -> Diagnosis:
    """Why its node cannot make its container run."""
    said = (words or "").strip() or "it does not say why"
    return say_of_container(pod, "StartError", f"cannot be started by its node {pod.node}: {said}")


def _more_memory(pod: ObservedPod) -> str:
    """What helps a container that runs out of memory."""
    if pod.component == "engine":
        return "raise spec.podTemplate.resources.limits.memory, or lower maxModelLen or maxNumSeqs"
    if pod.container == "agent":
        return "the kubelet starts it again, and Envoy serves meanwhile"
    return "raise spec.router.podTemplate.resources.limits.memory, or lower spec.router.bodyLimit"


def say(
    pod: ObservedPod, reason: str, text: str, *, fatal: bool = False, whose: str = ""
) -> Diagnosis:
    """What is wrong with a pod, as a sentence that begins with its name."""
    message = shorten(f"{pod.component} pod {pod.name}{whose} {text}", LONGEST_MESSAGE)
    return Diagnosis(reason=reason, message=message, fatal=fatal, pod=pod.name)


def say_of_container(pod: ObservedPod, reason: str, text: str, *, fatal: bool = False) -> Diagnosis:
    """What is wrong with its container, which is named where a pod has several of ours."""
    whose = "" if pod.container is None else f"'s container {pod.container}"
    return say(pod, reason, text, fatal=fatal, whose=whose)
