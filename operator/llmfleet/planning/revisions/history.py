"""The history of one LLMDeployment: revisions and memory, as far as they can be used.

What is not used is left where it is and said in a sentence, so that somebody can mend it; a person
has to be told what, why, and how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.naming import memory_key
from llmfleet.planning.revisions.memory import Memory, parse_memory
from llmfleet.planning.revisions.revision import Revision, adopt_revision
from llmfleet.planning.revisions.stored import UnusableError, read_controller_revision
from llmfleet.planning.snapshot import ObjectKey, ObservedObject

MOST_TOLD: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known of the past."""

    memory: Memory
    revisions: Mapping[str, Revision]
    """By hash: those whose ControllerRevision can be used, and memory's last good one."""
    stored: Mapping[str, ObservedObject]
    """The ControllerRevisions themselves, by hash, also those that cannot be used."""
    unusable: Mapping[str, str]
    """Hash → why its ControllerRevision is not used, in a sentence."""
    held: str | None
    """Why nothing may be rolled out until the memory can be read, in a sentence. The ConfigMap is
    left as it is as long."""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Everything that is there and is not used, each in a sentence that says how to mend it."""
        found = [self.held] if self.held is not None else []
        if self.held is None and self.memory.problem is not None:
            found.append(
                "what could not be read of the memory was dropped, and it is written anew from"
                f" what is known: {self.memory.problem}"
            )
        found += list(self.unusable.values())
        more = [f"and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
        return (*found[:MOST_TOLD], *more)


def read_history(deployment: LLMDeployment, ours: Mapping[ObjectKey, ObservedObject]) -> History:
    """Read ControllerRevisions and memory.

    Args:
        deployment: whose.
        ours: its children.
    """
    name = deployment.metadata.name
    stored = {
        key.name.removeprefix(f"{name}-rev-"): found
        for key, found in ours.items()
        if key.kind == "ControllerRevision"
    }
    revisions: dict[str, Revision] = {}
    unusable: dict[str, str] = {}
    for revision, found in stored.items():
        try:
            read = read_controller_revision(found, name)
        except UnusableError as error:
            unusable[revision] = _unusable_sentence(found.key.name, str(error))
        else:
            revisions[revision] = adopt_revision(deployment, read)
    memory = parse_memory(ours.get(memory_key(name)))
    if memory.last_good is not None:
        memory = replace(memory, last_good=adopt_revision(deployment, memory.last_good))
    if memory.last_good is not None:
        revisions.setdefault(memory.last_good.hash, memory.last_good)
    holds = memory.holds(without_status=deployment.status.schema_ is None)
    return History(
        memory=memory,
        revisions=revisions,
        stored=stored,
        unusable=unusable,
        held=_held_sentence(name, memory) if holds else None,
    )


def _held_sentence(name: str, memory: Memory) -> str:
    config_map = memory_key(name).name
    return (
        "the memory cannot be read, so nobody knows what was rejected and nothing is rolled out:"
        f" ConfigMap {config_map}, {memory.problem}; correct it, restore it from a backup, or, to"
        f" forget what it held, kubectl delete configmap {config_map}"
    )


def _unusable_sentence(controller_revision: str, problem: str) -> str:
    return (
        f"ControllerRevision {controller_revision} is not used, since {problem}: restore it from a"
        f" backup, or kubectl delete controllerrevision {controller_revision}, and it is made anew"
        " if spec asks for it"
    )
