"""The kubelet's words: what they mean, and who can do something about it.

Pods in phase Failed first.

Containers restart for ever, so nothing that one of them does makes its pod Failed: a node ended it,
or refused to begin it. The ReplicaSet makes another one at once. No revision is at fault, and none
is rejected or aborted for it: it is told, and the progress deadline runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.snapshot import ObservedPod, PodWarning

FAILED_TOLD_FOR: Final = timedelta(minutes=10)
"""Failed pods lie about until they are collected; older ones explain nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a kubelet's word means."""

    reason: str
    sentence: str
    """With ``{node}`` and ``{pod}``; the kubelet's own sentence follows it."""


_REFUSED: Final = Meaning(
    reason="NodeRefused", sentence="node {node} refuses {pod} that was given to it"
)
_FAILED: Final = Meaning(reason="PodFailed", sentence="node {node} ended {pod}")
_SHUTDOWN: Final = Meaning(
    reason="NodeShutdown", sentence="node {node} shuts down, and ended or refused {pod}"
)
_MEANINGS: Final = {
    "Evicted": Meaning(reason="Evicted", sentence="node {node} evicted {pod}"),
    "NodeShutdown": _SHUTDOWN,
    "Terminated": _SHUTDOWN,
    "Preempting": Meaning(
        reason="Preempted",
        sentence="node {node} ended {pod} to make room for a critical one",
    ),
    # A device plugin that has no healthy devices, most of all.
    "UnexpectedAdmissionError": _REFUSED,
    "TopologyAffinityError": _REFUSED,
    "NodeAffinity": _REFUSED,
}
_OUT_OF: Final = "OutOf"
"""OutOfcpu, OutOfmemory, OutOfnvidia.com/gpu: somebody else's pod was quicker on that node."""
_REJECTED: Final = "Pod was rejected"
"""How the kubelet begins its sentence about a pod that it does not admit, whatever its word."""


_MISSING: Final = re.compile(r'\b(secret|configmap)s? "([^"]+)" not found', re.IGNORECASE)
_NO_KEY: Final = re.compile(
    r"references non-existent (secret|config) key|couldn't find key .+ in (secret|configmap)",
    re.IGNORECASE,
)
_VOLUME_WORDS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})


def is_missing(said: str) -> bool:
    """Whether a Secret, a ConfigMap or a key of one is missing, in the kubelet's words."""
    return bool(_MISSING.search(said) or _NO_KEY.search(said))


def explain_missing(said: str) -> tuple[str, str]:
    """Reason and sentence for a Secret or ConfigMap that a container cannot be made without.

    >>> explain_missing('configmap "chat" not found')[0]
    'ConfigMapMissing'
    """
    key = _NO_KEY.search(said)
    found = key or _MISSING.search(said)
    kind = next(filter(None, found.groups())).lower() if found else ""
    if kind.startswith("config"):
        reason, what = "ConfigMapMissing", "a ConfigMap"
    else:
        reason, what = "SecretMissing", "a Secret"
    if key:
        return reason, f"names a key that {what} does not have: {said}; add it"
    return reason, f"needs {what} that is missing: {said}; create it"


def explain_warning(warning: PodWarning, node: str | None) -> tuple[str, str]:
    """Reason and sentence for an Event about a pod that its node does not begin.

    >>> said = 'MountVolume.SetUp failed for volume "t" : configmap "chat" not found'
    >>> explain_warning(PodWarning(reason="FailedMount", message=said), "n1")[0]
    'ConfigMapMissing'
    """
    said = warning.message
    if is_missing(said):
        return explain_missing(said)
    if warning.reason in _VOLUME_WORDS:
        return "VolumeFailed", f"waits on node {node} for a volume: {said}"
    return "SandboxFailed", f"cannot be begun by its node {node} ({warning.reason}): {said}"


def describe_failed(pod: ObservedPod) -> tuple[str, str]:
    """Reason and sentence for a pod in phase Failed: the node, the kubelet's word, its sentence."""
    word, said = pod.reason or "no reason given", (pod.message or "").strip()
    refused = word.startswith(_OUT_OF) or said.startswith(_REJECTED)
    meaning = _MEANINGS.get(word, _REFUSED if refused else _FAILED)
    which = "a router pod" if pod.component == "router" else "an engine pod"
    text = f"{meaning.sentence.format(node=pod.node, pod=which)} ({word})"
    return meaning.reason, f"{text}: {said}" if said else text


def failed_at(pod: ObservedPod) -> datetime:
    """When it failed; a pod that a node refused fails as soon as it is made."""
    return pod.unready_since or pod.created_at
