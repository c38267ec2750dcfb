"""A snapshot read in the words of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from llmfleet.api import LLMDeployment, Routing, unknown_settings
from llmfleet.planning.children.naming import is_ours
from llmfleet.planning.facts.arms import NO_ARM, Arm, read_arms
from llmfleet.planning.facts.pods import released_at
from llmfleet.planning.facts.routers import Routers, read_routers
from llmfleet.planning.revisions.history import History, read_history
from llmfleet.planning.revisions.memory import Memory
from llmfleet.planning.revisions.revision import Revision, revision_hash, spec_payload
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import (
    ObservedObject,
    OperatorSettings,
    RequestCounts,
    Snapshot,
)

COUNTS_LAST: Final = timedelta(seconds=60)
"""So old, counts of requests tell nothing any more: routers are asked every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that decisions look at besides spec."""

    deployment: LLMDeployment
    settings: OperatorSettings
    replicas: int
    """N, the fleet's size."""
    unknown_settings: tuple[str, ...]
    """Paths in ``spec.rollout`` that this operator does not know."""
    stored_rollout: object
    """``status.rollout`` as stored; ``rollout.record`` alone reads it."""
    arms: Mapping[str, Arm]
    revisions: Mapping[str, Revision]
    """By hash: those whose ControllerRevision can be used, and memory's last good one."""
    stored_revisions: Mapping[str, ObservedObject]
    """The ControllerRevisions themselves, also those that cannot be used."""
    spec_revision: str
    """The hash that spec asks for."""
    known: frozenset[str]
    """Hashes of which anything is left: a copy, an object, a pod, or spec itself."""
    memory: Memory
    history: History
    served: str | None
    """The promoted revision that status records, if anything else knows of it too."""
    traffic: Mapping[str, int]
    """The command recorded in status, percent by revision; empty before the first."""
    routing: Routing | None
    """The rest of that command."""
    generation: int | None
    next_generation: int
    """A trafficGeneration that was never commanded: above status' and memory's, whatever routers
    report."""
    routers: Routers
    rejected: Mapping[str, str]
    """Rejected hash → reason, from memory and status."""
    requests: Signal[Mapping[str, RequestCounts]]
    """By revision; unknown when it is too old to decide by."""

    @property
    def may_shrink(self) -> bool:
        """Replicas go down only when every Ready router serves the present split, or is lost.

        Where status was lost, routers go on with a split that nobody knows.
        """
        return self.routers.drained or not (self.traffic or self.memory.traffic_generation)

    def reaches(self, revision: str | None) -> bool:
        """Whether the recorded command sends requests of any kind to a revision."""
        return revision is not None and bool(
            self.traffic.get(revision) or revision in routed_to(self.routing)
        )

    def arm(self, revision: str | None) -> Arm:
        """The arm of a revision, empty when nothing of it is there."""
        return NO_ARM if revision is None else self.arms.get(revision, NO_ARM)

    def present_besides(self, revision: str) -> int:
        """Pods that hold accelerators and are not of this revision's Deployment."""
        others = sum(arm.present for name, arm in self.arms.items() if name != revision)
        return others + len(self.arm(revision).left)

    @property
    def release_times(self) -> tuple[datetime, ...]:
        """When pods on lost nodes stop to count as present."""
        pods = (pod for arm in self.arms.values() for pod in (*arm.pods, *arm.left))
        return tuple(when for pod in pods if (when := released_at(pod)) is not None)


def read_facts(snapshot: Snapshot, replicas: int, now: datetime) -> Facts:
    """Read a snapshot.

    Args:
        snapshot: everything observed.
        replicas: N, the fleet's size.
        now: the time of the decision, which tells how long routers have been silent.
    """
    deployment = snapshot.deployment
    ours = {key: found for key, found in snapshot.objects.items() if is_ours(deployment, found)}
    history = read_history(deployment, ours)
    memory, revisions, stored = history.memory, history.revisions, history.stored
    arms = read_arms(snapshot, ours, stored, now)
    status = deployment.status
    # A status edited by hand may name anything; what has no template and no pods cannot serve.
    spec_revision = revision_hash(spec_payload(snapshot.raw))
    known = frozenset({*revisions, *arms, spec_revision})
    return Facts(
        deployment=deployment,
        settings=snapshot.settings,
        replicas=replicas,
        unknown_settings=unknown_settings(
            (snapshot.raw.get("spec") or {}).get("rollout") or {}, "spec.rollout"
        ),
        stored_rollout=(snapshot.raw.get("status") or {}).get("rollout"),
        arms=arms,
        revisions=revisions,
        stored_revisions=stored,
        spec_revision=spec_revision,
        known=known,
        memory=memory,
        history=history,
        served=status.served_revision if status.served_revision in known else None,
        traffic={share.revision: share.weight for share in status.traffic if share.weight},
        routing=status.routing,
        generation=status.traffic_generation,
        next_generation=_next_generation(status.traffic_generation, memory),
        routers=read_routers(snapshot, now),
        rejected=_rejected(deployment, memory),
        requests=snapshot.requests.at(now, COUNTS_LAST, "the newest request counts are"),
    )


def routed_to(routing: Routing | None) -> frozenset[str]:
    """The revisions that get requests, or copies of them, beside the weights."""
    if routing is None:
        return frozenset()
    named = [routing.preview]
    named += [each.revision for each in (routing.header_route, routing.mirror) if each is not None]
    return frozenset(each for each in named if each is not None)


def give_up_silent(facts: Facts, left: str, turned_at: datetime, now: datetime) -> Facts:
    """The facts of a rollout that goes back: silent routers are not waited for for ever.

    Args:
        facts: what is observed.
        left: the revision that is given up.
        turned_at: when the rollout turned back.
        now: the time of the decision.
    """
    routers = facts.routers
    if routers.confirmed or routers.lagging or facts.arm(left).wanted is None:
        return facts
    drain = timedelta(seconds=facts.deployment.spec.router.drain_timeout_seconds)
    at = max([turned_at, *routers.silent_since]) + drain
    return replace(facts, routers=replace(routers, give_up_at=at, given_up=now >= at))


def _next_generation(recorded: int | None, memory: Memory) -> int:
    """Memory is written after status: when status was lost, its number may be one behind."""
    lost = recorded is None and memory.traffic_generation > 0
    return 1 + max(recorded or 0, memory.traffic_generation + lost)


def _rejected(deployment: LLMDeployment, memory: Memory) -> dict[str, str]:
    """Memory's rejections but the one that a newer ``retry`` lifted, and those of status."""
    retried = deployment.status.handled_acts.get("retry")
    lifted = (
        retried.partition("@")[0] if retried and retried != memory.handled_acts.get("retry") else ""
    )
    rejected = {name: why for name, why in memory.rejected.items() if name != lifted}
    for each in deployment.status.rejected_revisions:
        rejected.setdefault(each.hash, each.reason)
    return rejected
