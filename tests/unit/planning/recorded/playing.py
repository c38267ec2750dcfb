"""From a recorded state to its end: what people then do, time passing, and what must never be.

A continuation is a list of ``[VERB, VALUE]``, each carried out at once. ``settle`` lets everything
run until nothing changes any more; so does the end of the list. Revisions are named by the words
of the file's ``names``.

- ``promote``, ``abort``, ``retry``, ``undo``, ``pause``: annotates; None removes.
- ``edit``: replaces parts of spec. ``settings``: the operator is started with others.
- ``turns``: so many passes, a few seconds apart.
- ``mend``: what kept pods from starting is gone.
- ``requests``: ``{NAME: [TOTAL, FAILED]}``, counted as of now and ever after; with the key
  ``asOf`` they stay as of then. None: nobody can tell any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.unit.planning.canaries import annotate, split
from tests.unit.planning.fleet import Fleet, counted
from tests.unit.planning.recorded.plain import as_time

ROUNDS = 300
"""So many passes at most until everything is quiet; a failed rollout takes some 60."""
ROUND_SECONDS = 5
ACTS = {"promote", "abort", "retry", "undo", "pause"}
NOVEMBER_CONDITIONS = frozenset({
    "Accepted", "Ready", "Available", "Progressing", "CapacityAvailable", "RoutersConfirmed",
    "NameTaken", "RolledBack", "Paused", "ActRefused", "RuntimeOutdated", "Reconciling", "Stalled",
})  # fmt: skip
"""Those that an end speaks of; conditions made since then may come on top."""


@dataclass
class Play:
    """A cluster that goes on, watched."""

    world: Fleet
    names: Mapping[str, str]
    """Word → revision hash."""
    faults: list[str] = field(default_factory=list)
    """What happened although it must never: see ``_watch``."""
    stops: list[dict[str, Any]] = field(default_factory=list)
    """Where it was after each ``settle`` of the continuation."""

    def go_on(self, continuation: Sequence[Sequence[Any]]) -> None:
        """Carry out a continuation, to the end."""
        for verb, *value in continuation:
            if verb == "settle":
                self.settle()
                self.stops.append(self.end())
            else:
                self.do(verb, *value)
        self.settle()

    def settle(self) -> None:
        """Everything runs in turn, and time passes, until nothing changes any more."""
        world = self.world
        for _ in range(ROUNDS):
            writes, pods = world.writes, dict(world.pods)
            due = self.turn()
            quiet = world.writes == writes and world.pods == pods
            if quiet and due is None:
                return
            world.wait(due if quiet and due is not None else ROUND_SECONDS)

    def turn(self) -> float | None:
        """Everything runs once; seconds until time alone changes a decision."""
        world = self.world
        before = self._facts()
        plan = world.reconcile()
        self._watch(*before)
        world.kubelet()
        world.routers()
        return plan.requeue_after

    def do(self, verb: str, value: Any = None) -> None:
        """One thing that somebody does."""
        world = self.world
        if verb in ACTS:
            self._annotate(verb, value)
        elif verb == "edit":
            world.edit(**value)
        elif verb == "settings":
            world.settings = replace(world.settings, **value)
        elif verb == "turns":
            for _ in range(value):
                self.turn()
                world.wait(ROUND_SECONDS)
        elif verb == "mend":
            world.broken = frozenset()
            clear = {"unschedulable": None, "unschedulable_since": None, "waiting_reason": None}
            world.pods = {name: replace(pod, **clear) for name, pod in world.pods.items()}
        elif verb == "requests":
            self._count(value)
        else:
            raise ValueError(f"{verb} is no verb of a continuation: see this module's docstring")

    def end(self) -> dict[str, Any]:
        """Where the cluster is, in the words of the file."""
        world = self.world
        status, words = world.status(), {name: word for word, name in self.names.items()}
        rejected = status.get("rejectedRevisions", [])
        return {
            "served": words.get(status.get("servedRevision", "")),
            "traffic": {words[name]: share for name, share in sorted(split(world).items())},
            "phase": status.get("phase"),
            "deployments": {
                words.get(key.name.removeprefix("chat-rev-"), key.name.removeprefix("chat-")):
                found.body["spec"]["replicas"]
                for key, found in sorted(world.objects.items())
                if key.kind == "Deployment"
            },
            "rejected": {words[each["hash"]]: each["reason"] for each in rejected},
            "rollout": "rollout" in status,
            "kept": sorted(words[each["hash"]] for each in status.get("revisions", [])),
            "conditions": {
                each["type"]: each["status"]
                for each in sorted(status.get("conditions", []), key=lambda each: each["type"])
                if each["type"] in NOVEMBER_CONDITIONS
            },
        }  # fmt: skip

    def _annotate(self, act: str, value: str | None) -> None:
        if value is not None and act != "pause":
            word, _, token = value.partition("@")
            name, slash, full = word.partition("/")
            value = f"{self.names.get(name, name)}{slash}{full}@{token}"
        annotate(self.world, act, value)

    def _count(self, counts: Mapping[str, Any] | None) -> None:
        if counts is None:
            self.world.requests = None
            return
        as_of = counts.get("asOf")
        self.world.requests_as_of = as_time(as_of) if as_of else None
        self.world.requests = {
            self.names[word]: counted(*each) for word, each in counts.items() if word != "asOf"
        }

    def _facts(self) -> tuple[dict[str, int], str | None]:
        return dict(split(self.world)), self.world.status().get("servedRevision")

    def _watch(self, before: Mapping[str, int], served: str | None) -> None:
        """The two gates under every decision, seen from outside."""
        world = self.world
        traffic, now_served = self._facts()
        for each in world.status().get("rejectedRevisions", []):
            name = each["hash"]
            if before and traffic.get(name, 0) > before.get(name, 0):
                self.faults.append(f"{name} is rejected and gains: {before} to {traffic}")
            if now_served == name != served:
                self.faults.append(f"{name} is rejected and promoted")
        still = world.raw["spec"]["replicas"] == 0 and served is not None
        if still and (traffic, now_served) != (before, served):
            self.faults.append(f"something moved at N = 0: {before} to {traffic}")
