"""Why an engine pod is not ready, from the facts of the pod, as a reason and a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.api import clean_text
from llmfleet.planning.snapshot import ObservedPod, Termination

UNSCHEDULABLE_SECONDS: Final = 10
"""So long the scheduler's refusal must last (design, section 6 rule 5)."""
RUNTIME_REASONS: Final = frozenset({
    "ModelNotFound", "ModelUnreadable", "DownloadFailed", "Unauthorized", "OutOfMemory",
    "UnsupportedOption", "EngineError", "BadConfig",
})  # fmt: skip
"""What the runtime's termination log may say (docs/contract.md, Runtime)."""

_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_UNBOUND: Final = "unbound immediate PersistentVolumeClaims"
_IMAGE_WORDS: Final = frozenset({
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
    "ImageInspectError", "RegistryUnavailable",
})  # fmt: skip
_LONGEST_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One pod's trouble."""

    reason: str
    message: str
    """A sentence, ending with the last words of whoever failed."""
    fatal: bool
    """Trying again with the same spec cannot help."""
    pod: str


def diagnose_pods(
    pods: Iterable[ObservedPod], now: datetime, deadline_seconds: int
) -> Diagnosis | None:
    """The trouble worth telling: a fatal one first, then the first by pod name."""
    found = [each for pod in pods if (each := diagnose_pod(pod, now, deadline_seconds)) is not None]
    return min(found, key=lambda each: (not each.fatal, each.pod), default=None)


def diagnose_pod(  # noqa: PLR0911 - ordered checks, one answer each
    pod: ObservedPod, now: datetime, deadline_seconds: int
) -> Diagnosis | None:
    """What is wrong with a pod; None while it is well, starting, ending, or merely waits for room.

    Args:
        pod: an engine pod.
        now: the time of the decision.
        deadline_seconds: progressDeadline; running so long without being ready is a failure.
    """
    if pod.ready or pod.deleting:
        return None
    if pod.unschedulable is not None:
        return _claim(pod, pod.unschedulable)
    if pod.waiting_reason in _IMAGE_WORDS:
        return _say(pod, "ImagePullFailed", f"cannot pull its image: {pod.waiting_message}")
    if pod.waiting_reason == "CreateContainerConfigError":
        return _say(
            pod,
            "SecretMissing",
            f"needs a Secret or ConfigMap that is missing: {pod.waiting_message}; create it",
        )
    if pod.last_termination is not None and (pod.restarts > 0 or pod.running_since is None):
        return _ended(pod, pod.last_termination)
    since = waiting_since(pod)
    if since is not None and now >= since + timedelta(seconds=deadline_seconds):
        text = f"has been running for {deadline_seconds} s without being ready"
        return _say(pod, "NeverReady", text, fatal=True)
    return None


def waiting_since(pod: ObservedPod) -> datetime | None:
    """Since when a running pod should be ready: its start, or the loss of its readiness."""
    if pod.running_since is None or pod.unready_since is None:
        return pod.running_since
    return max(pod.running_since, pod.unready_since)


def waiting_for_capacity(pod: ObservedPod) -> bool:
    """Whether the scheduler finds no node for it (a missing claim is another matter)."""
    return (
        not pod.deleting
        and pod.unschedulable is not None
        and _claim(pod, pod.unschedulable) is None
    )


def _claim(pod: ObservedPod, sentence: str) -> Diagnosis | None:
    match = _CLAIM.search(sentence)
    if match:
        text = f"needs the PersistentVolumeClaim {match[1]}, which does not exist: create it"
        return _say(pod, "ClaimMissing", text)
    if _UNBOUND in sentence:
        text = f"needs a PersistentVolumeClaim that is not bound to a volume: {sentence}"
        return _say(pod, "ClaimMissing", text)
    return None


def _ended(pod: ObservedPod, termination: Termination) -> Diagnosis:
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
    message = f"engine pod {pod.name} {text}"[:_LONGEST_MESSAGE]
    return Diagnosis(reason=reason, message=message, fatal=fatal, pod=pod.name)
