"""Pods in phase Failed: what the kubelet's word for it means, and who can do something about it.

Engine pods restart for ever, so nothing that an engine does makes its pod Failed: a node ended it,
or refused to begin it. The ReplicaSet makes another one at once. No revision is at fault, and none
is rejected or aborted for it: it is told, and the progress deadline runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llmfleet.planning.snapshot import ObservedPod

FAILED_TOLD_FOR: Final = timedelta(minutes=10)
"""Failed pods lie about until they are collected; older ones explain nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a kubelet's word means."""

    reason: str
    sentence: str
    """With ``{node}``; the kubelet's own sentence follows it."""


_REFUSED: Final = Meaning(
    reason="NodeRefused", sentence="node {node} refuses an engine pod that was given to it"
)
_FAILED: Final = Meaning(reason="PodFailed", sentence="node {node} ended an engine pod")
_SHUTDOWN: Final = Meaning(
    reason="NodeShutdown", sentence="node {node} shuts down, and ended or refused an engine pod"
)
_MEANINGS: Final = {
    "Evicted": Meaning(reason="Evicted", sentence="node {node} evicted an engine pod"),
    "NodeShutdown": _SHUTDOWN,
    "Terminated": _SHUTDOWN,
    "Preempting": Meaning(
        reason="Preempted",
        sentence="node {node} ended an engine pod to make room for a critical one",
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


def describe_failed(pod: ObservedPod) -> tuple[str, str]:
    """Reason and sentence for a pod in phase Failed: the node, the kubelet's word, its sentence."""
    word, said = pod.reason or "no reason given", (pod.message or "").strip()
    refused = word.startswith(_OUT_OF) or said.startswith(_REJECTED)
    meaning = _MEANINGS.get(word, _REFUSED if refused else _FAILED)
    text = f"{meaning.sentence.format(node=pod.node)} ({word})"
    return meaning.reason, f"{text}: {said}" if said else text


def failed_at(pod: ObservedPod) -> datetime:
    """When it failed; a pod that a node refused fails as soon as it is made."""
    return pod.unready_since or pod.created_at
