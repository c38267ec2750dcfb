"""A history: what may happen to a fleet, one action after the other, and what then must hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from llmfleet.planning.plan import Plan, Result
from llmfleet.planning.snapshot import JSON
from tests.unit.planning.canaries import annotate, canary, split
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.load import Load
from tests.unit.planning.oracles import command, weights
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said

CRASH = said("BadConfig", retriable=False)
GOOD = ("one", "two", "three")
MODELS = (*GOOD, "broken")
PLACES = ("target", "served", "spec", *MODELS)
"""Which revision an act is about: one by its part in the rollout, or by its model."""
ENDS = frozenset({"EngineExited", "CrashLoop"})
"""Reasons that an engine which ended by itself is rejected for."""
START = canary([{"setWeight": 10}])


@cache
def served_fleet(surge: int, replicas: int, *, kept: bool = False) -> Fleet:
    """Every history begins with a copy of it.

    Args:
        surge: of its rollouts.
        replicas: N.
        kept: another good revision was served before.
    """
    world = Fleet(resource(replicas=replicas, rollout={**START, "maxSurge": surge}))
    world.settle()
    if kept:
        world.edit(rollout={"strategy": "RollingUpdate", "maxSurge": 1})
        for name in ("three", "one"):
            world.edit(model=model(name))
            world.settle()
        world.edit(rollout={**START, "maxSurge": surge})
        world.settle()
    world.plans.clear()
    return world


class History:
    """A fleet, its clients, and what is known of it that no single decision shows."""

    def __init__(self, surge: int, replicas: int, *, new: bool = False, kept: bool = False) -> None:
        self.surge, self.tokens = surge, 0
        self.world = copy.deepcopy(served_fleet(surge, replicas, kept=kept))
        if new:
            self.world = Fleet(copy.deepcopy(self.world.raw))
            del self.world.raw["status"]
        self.hashes = {name: hash_of(resource(model=model(name))) for name in MODELS}
        self.world.broken = frozenset({self.hashes["broken"]})
        self.load = Load(bad=frozenset({self.hashes["two"]}))
        self.lagging: frozenset[int] = frozenset()
        """Routers, by their order, that do not take over what is commanded."""
        self.rejected: set[str] = set()
        self.shares: dict[str, int] = {}
        self.seen = self.world.snapshot()
        self.commands: dict[int, str] = {}
        """What was commanded under each trafficGeneration."""
        self.attempts: dict[int, tuple[str, bool]] = {}
        """Every attempt by its number: when it began, and whether it was given up."""
        self.done: set[str] = set()
        """Acts that were carried out, as ``ACT VALUE``."""
        self.asked: list[tuple[str, str]] = []
        """Acts that were ever annotated, and their values."""
        self.forged: set[int] = set()
        """Numbers that somebody else put there, or put something else under."""
        self.begun: tuple[int, dict[str, int]] = (0, {})
        """The attempt under way, and how often each engine had ended before it."""
        self.good_status: JSON | None = None
        """What the operator wrote before somebody else wrote into it."""

    def turn(self, crash_after: int | None = None) -> None:
        """A pass of the operator, and then everything else."""
        self.reconcile(crash_after=crash_after)
        self.cluster()

    def reconcile(self, **how: Any) -> None:
        """One pass, which may be cut short, and what must hold after it."""
        world, before = self.world, self.needed_sizes()
        seen = how.pop("snapshot", None) or world.snapshot()
        restarts = {pod.name: pod.restarts for pod in seen.pods}
        written = world.raw.get("status")
        plan = world.reconcile(snapshot=seen, **how)
        if world.raw.get("status") is not written:
            self.check(plan, restarts)
        fleets = (seen.deployment.spec.wanted_replicas, world.raw["spec"]["replicas"])
        self.check_capacity(before, min(fleets))

    def check(self, plan: Plan, restarts: Mapping[str, int]) -> None:
        """What a decision that was recorded must keep to."""
        status = self.world.status()
        shares = dict(split(self.world))
        for name in self.rejected:
            assert shares.get(name, 0) <= self.shares.get(name, 0), f"{name} was rejected"
        self.shares = shares
        generation = status.get("trafficGeneration")
        if generation is not None and generation not in self.forged:
            said = self.commands.setdefault(generation, command(status))
            assert said == command(status), f"two commands under generation {generation}"
            assert generation >= max(self.commands), f"generation {generation} came before"
        self.check_attempt(status)
        self.check_acts(plan)
        self.check_reason(plan, restarts)
        self.rejected |= {each["hash"] for each in status.get("rejectedRevisions", [])}

    def check_attempt(self, status: JSON) -> None:
        """Numbers of attempts rise, and one that was given up never goes on."""
        rollout = status.get("rollout") or {}
        number = rollout.get("id")
        if number is None or self.good_status is not None:
            return
        if number not in self.attempts:
            assert number > max(self.attempts, default=0), f"attempt {number} comes too late"
        given_up, began = rollout.get("aborted") not in {None, "Superseded"}, rollout["startedAt"]
        before = self.attempts.setdefault(number, (began, given_up))
        assert began == before[0], f"two attempts with number {number}"
        assert given_up or not before[1], f"attempt {number} had been given up"
        self.attempts[number] = (began, given_up)

    def check_acts(self, plan: Plan) -> None:
        """Every value runs once."""
        annotations = self.world.raw["metadata"].get("annotations") or {}
        for event in plan.events:
            if event.reason == "ActDone":
                act = event.message.removeprefix("llmfleet.dev/").partition(" ")[0]
                said = f"{act} {annotations.get(f'llmfleet.dev/{act}')}"
                assert said not in self.done, f"{said} runs again"
                self.done.add(said)

    def check_reason(self, plan: Plan, restarts: Mapping[str, int]) -> None:
        """An engine is rejected for its own ends, counted since the attempt began."""
        number, before = self.begun
        outcome = plan.outcome
        if outcome is not None and outcome.result is Result.REJECTED and outcome.reason in ENDS:
            pods = self.world.pods.values()
            mine = [pod.name for pod in pods if pod.revision == outcome.revision]
            ends = [restarts.get(name, 0) - before.get(name, 0) for name in mine]
            assert max(ends, default=0) >= 2, f"{outcome.revision} is rejected for ends of its past"
        now = (self.world.status().get("rollout") or {}).get("id", number)
        if now != number:
            self.begun = (now, dict(restarts))

    def check_capacity(self, before: Mapping[str, int], fleet: int) -> None:
        """Nobody takes away pods that the share of the requests needs: the one that is commanded,
        or that a router still serves. With maxSurge 0 one pod of each arm may be replaced."""
        world, now = self.world, self.world.replicas()
        served = [
            shares
            for name, (_, shares) in world.served.items()
            if name in world.pods and world.pods[name].ready and name not in world.silent
        ]
        for name, had in before.items():
            weight = max(each.get(name, 0) for each in (dict(split(world)), *served))
            needed = fleet * weight // 100 - (self.surge == 0)
            left = now.get(name, 0)
            assert left >= min(had, needed), f"{name}: {had} to {left} pods for {weight} %"

    def needed_sizes(self) -> dict[str, int]:
        """Replicas by revision; with a status that was lost, the ready ones among them: nobody
        knows of the others what they were for."""
        had = self.world.replicas()
        if self.world.status().get("traffic"):
            return had
        return {name: min(size, self.world.ready(name)) for name, size in had.items()}

    def cluster(self) -> None:
        """What everybody but the operator does in a turn."""
        world = self.world
        world.kubelet()
        for name, pod in world.pods.items():
            if pod.revision in world.broken and pod.component == "engine":
                end = CRASH["last_termination"]
                world.pods[name] = replace(pod, last_termination=end, restarts=pod.restarts + 1)
        for index in {0, 1} - self.lagging:
            world.routers(index)
        world.wait(1)
        answers = [split for name, (_, split) in world.served.items() if name in world.pods]
        attempt = (world.status().get("rollout") or {}).get("id")
        self.load.turn(answers[0] if answers else {}, attempt)
        world.requests, world.requests_as_of = self.load.counts(), self.load.stopped_at

    def act(self, act: str, place: str) -> None:
        """A person annotates an act."""
        self.tokens += 1
        revision = self.named(place)
        if act == "retry":
            self.rejected.discard(revision)
        self.asked.append((act, f"{revision}@{self.tokens}"))
        annotate(self.world, *self.asked[-1])

    def named(self, place: str) -> str:
        """The hash that an act is about."""
        status = self.world.status()
        spec = hash_of(self.world.raw)
        if place == "target":
            return str((status.get("rollout") or {}).get("revision") or spec)
        if place == "served":
            return str(status.get("servedRevision") or spec)
        return spec if place == "spec" else self.hashes[place]

    def lose_status(self) -> None:
        """A backup that is restored has none; nobody knows of what only stood there."""
        world = self.world
        known = max((int(body["data"]["rolloutId"]) for body in self.memories()), default=0)
        self.attempts = {number: it for number, it in self.attempts.items() if number <= known}
        kept = max((int(body["data"]["trafficGeneration"]) for body in self.memories()), default=0)
        # One more than memory knows is allowed for; lost twice before memory is written, it is not.
        self.commands = {number: it for number, it in self.commands.items() if number <= kept + 1}
        world.raw = {key: each for key, each in world.raw.items() if key != "status"}
        self.shares = {name: 100 for name in self.rejected if name in self.shares}

    def memories(self) -> list[JSON]:
        """The memory, if there is one yet."""
        return [each.body for key, each in self.world.objects.items() if key.kind == "ConfigMap"]

    def remembered(self) -> set[str]:
        """Hashes that memory says are rejected."""
        found = self.memories()
        return {name for body in found for name, _ in json.loads(body["data"]["rejected"])}

    def forge(self, change: Mapping[str, Any]) -> None:
        """Somebody writes into the status by hand."""
        world, status = self.world, dict(self.world.status())
        if not status.get("traffic"):
            return
        self.good_status = self.good_status or status
        status |= change
        world.raw = {**world.raw, "status": copy.deepcopy(status)}
        self.forged.add(status["trafficGeneration"])
        self.commands.pop(status["trafficGeneration"], None)
        self.shares = weights(status)

    def correct(self) -> None:
        """The status is what the operator wrote last, but for what it commanded since."""
        if self.good_status is None:
            return
        self.good_status = None
        self.rejected &= self.remembered()
        self.lose_status()

    def finish(self) -> None:
        """Nothing is asked for any more, and all is well; who waits for a person gets an answer."""
        for act in ("abort", "undo", "retry", "promote", "restart", "pause"):
            annotate(self.world, act, None)
        self.correct()
        self.world.silent.clear()
        self.world.settings = replace(self.world.settings, crd_outdated=False)
        self.world.lingering, self.lagging = 0, frozenset()
        self.world.broken = frozenset({self.hashes["broken"]})
        self.load.stopped_at, self.load.bad = None, frozenset()
        if self.load.kind == "idle":
            self.load.kind = "healthy"
        for _ in range(150):
            writes, pods = self.world.writes, dict(self.world.pods)
            self.turn()
            self.world.wait(70)
            status = self.world.status()
            if status.get("phase") == "Paused":
                self.act("promote", "target")
            elif self.world.condition("Progressing").get("reason") == "RetriesExhausted":
                self.act("retry", "target")
            quiet = self.world.writes == writes and self.world.pods == pods
            if quiet and self.world.plans[-1].requeue_after is None:
                break
