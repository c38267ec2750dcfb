"""A snapshot read in the words of decisions: arms, routers' confirmation, what is ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from llmfleet.api import LLMDeployment, RolloutSpec, Routing
from llmfleet.planning.children.naming import deployment_key, is_ours
from llmfleet.planning.revisions.history import History, read_history
from llmfleet.planning.revisions.memory import Memory
from llmfleet.planning.revisions.revision import Revision, revision_hash, spec_payload
from llmfleet.planning.snapshot import (
    ObjectKey,
    ObservedObject,
    ObservedPod,
    OperatorSettings,
    RequestCounts,
    RouterReach,
    Snapshot,
)

_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is observed of one revision."""

    wanted: int | None
    """Replicas its Deployment has now; None without a Deployment of ours."""
    pods: tuple[ObservedPod, ...]
    """All that have not ended by themselves; those being deleted still hold accelerators."""

    @property
    def live(self) -> tuple[ObservedPod, ...]:
        """Pods that are not being deleted."""
        return tuple(pod for pod in self.pods if not pod.deleting)

    @property
    def ready(self) -> int:
        """Pods that take requests and will stay."""
        return sum(pod.ready for pod in self.live)


NO_ARM = Arm(wanted=None, pods=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Routers:
    """What the routers say about the present traffic command."""

    ready: int
    confirmed: bool
    """At least one is Ready, and every Ready one serves the present trafficGeneration."""
    silent: tuple[str, ...]
    """Ready pods that do not answer the operator."""
    lagging: tuple[str, ...]
    """Ready pods that answer, but serve another generation."""
    given_up: bool = False
    """A rollout goes back, and what it still waits for are routers that have had drainTimeout to
    end what they were doing: they are not waited for any longer (design, section 6 rule 2)."""
    give_up_at: datetime | None = None
    """When that will be so, as things are."""

    @property
    def let_go(self) -> bool:
        """What the present command does not name gets no request any more."""
        return self.confirmed or self.given_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that decisions look at besides spec."""

    deployment: LLMDeployment
    settings: OperatorSettings
    policy: RolloutSpec
    """Settings of the rollout under way, frozen when it began; outside one, spec's."""
    replicas: int
    """N, the fleet's size."""
    surge: int
    """S, replicas beyond N that a rollout may take."""
    arms: Mapping[str, Arm]
    revisions: Mapping[str, Revision]
    """By hash: those whose ControllerRevision can be used, and memory's last good one."""
    stored_revisions: Mapping[str, ObservedObject]
    """The ControllerRevisions themselves, also those that cannot be used."""
    spec_revision: str
    """The hash that spec asks for."""
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
    """A trafficGeneration that no router can have confirmed yet."""
    routers: Routers
    rejected: Mapping[str, str]
    """Rejected hash → reason, from memory and status."""
    requests: Mapping[str, RequestCounts] | None
    requests_problem: str
    """Why there are no counts."""

    @property
    def stepwise(self) -> bool:
        """The rollout under way goes in steps and is judged."""
        return self.policy.strategy in {"Canary", "BlueGreen"}

    @property
    def may_shrink(self) -> bool:
        """Replicas go down only when every Ready router serves the present split, or is lost."""
        return self.routers.let_go or not self.traffic

    def reaches(self, revision: str | None) -> bool:
        """Whether the recorded command sends requests of any kind to a revision."""
        return revision is not None and bool(
            self.traffic.get(revision) or revision in routed_to(self.routing)
        )

    def arm(self, revision: str | None) -> Arm:
        """The arm of a revision, empty when nothing of it is there."""
        return NO_ARM if revision is None else self.arms.get(revision, NO_ARM)


def read_facts(snapshot: Snapshot, now: datetime) -> Facts:
    """Read a snapshot.

    Args:
        snapshot: everything observed.
        now: the time of the decision, which tells how long routers have been silent.
    """
    deployment = snapshot.deployment
    ours = {key: found for key, found in snapshot.objects.items() if is_ours(deployment, found)}
    history = read_history(deployment, ours)
    revisions, stored = history.revisions, history.stored
    arms = _arms(snapshot, ours, stored)
    status, replicas = deployment.status, deployment.spec.wanted_replicas
    # A status edited by hand may name anything; what has no template and no pods cannot serve.
    spec_revision = revision_hash(spec_payload(snapshot.raw))
    known = {*revisions, *arms, spec_revision}
    reported = [
        report.traffic_generation
        for report in snapshot.routers.values()
        if report.traffic_generation is not None
    ]
    policy = _policy(deployment)
    return Facts(
        deployment=deployment,
        settings=snapshot.settings,
        policy=policy,
        replicas=replicas,
        surge=policy.surge_replicas(replicas),
        arms=arms,
        revisions=revisions,
        stored_revisions=stored,
        spec_revision=spec_revision,
        memory=history.memory,
        history=history,
        served=status.served_revision if status.served_revision in known else None,
        traffic={share.revision: share.weight for share in status.traffic if share.weight},
        routing=status.routing,
        generation=status.traffic_generation,
        next_generation=1 + max([status.traffic_generation or 0, *reported]),
        routers=_routers(snapshot, arms, now),
        rejected=_rejected(deployment, history.memory),
        requests=snapshot.requests,
        requests_problem=snapshot.requests_problem,
    )


def routed_to(routing: Routing | None) -> frozenset[str]:
    """The revisions that get requests, or copies of them, beside the weights."""
    if routing is None:
        return frozenset()
    named = [routing.preview]
    named += [each.revision for each in (routing.header_route, routing.mirror) if each is not None]
    return frozenset(each for each in named if each is not None)


def with_spec_policy(facts: Facts) -> Facts:
    """The facts as a rollout sees them that begins now: with spec's settings."""
    policy = facts.deployment.spec.rollout
    return replace(facts, policy=policy, surge=policy.surge_replicas(facts.replicas))


def _policy(deployment: LLMDeployment) -> RolloutSpec:
    """The frozen settings; a rollout begun before there were any rolls as RollingUpdate."""
    spec, rollout = deployment.spec.rollout, deployment.status.rollout
    if rollout is None or rollout.revision is None:
        return spec
    if rollout.plan is None:
        return spec.model_copy(update={"strategy": "RollingUpdate"})
    try:
        return RolloutSpec.model_validate(rollout.plan)
    except ValidationError:
        return spec


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


def _arms(
    snapshot: Snapshot,
    ours: Mapping[ObjectKey, ObservedObject],
    stored: Mapping[str, ObservedObject],
) -> dict[str, Arm]:
    name = snapshot.deployment.metadata.name
    engines = [
        pod
        for pod in snapshot.pods
        if pod.component == "engine" and pod.revision and pod.phase not in _ENDED
    ]
    prefix = f"{name}-rev-"
    hashes = {pod.revision for pod in engines if pod.revision} | set(stored)
    hashes |= {
        found.key.name.removeprefix(prefix)
        for found in ours.values()
        if found.key.kind in {"Deployment", "Service"} and found.key.name.startswith(prefix)
    }
    arms = {}
    for revision in sorted(hashes):
        found = ours.get(deployment_key(name, revision))
        wanted = (
            int((found.body.get("spec") or {}).get("replicas", 1))
            if found and not found.deleting
            else None
        )
        pods = tuple(pod for pod in engines if pod.revision == revision)
        arms[revision] = Arm(wanted=wanted, pods=pods)
    return arms


def _routers(snapshot: Snapshot, arms: Mapping[str, Arm], now: datetime) -> Routers:
    generation = snapshot.deployment.status.traffic_generation
    ready = [
        pod.name
        for pod in snapshot.pods
        if pod.component == "router" and pod.ready and not pod.deleting
    ]
    silent, lagging = [], []
    for name in ready:
        report = snapshot.routers.get(name)
        if report is not None and report.reach is RouterReach.SILENT:
            silent.append(name)
        elif report is None or report.traffic_generation != generation:
            lagging.append(name)
    confirmed = bool(ready) and generation is not None and not silent and not lagging
    give_up_at = None if confirmed or lagging else _give_up_at(snapshot, arms, silent)
    return Routers(
        ready=len(ready),
        confirmed=confirmed,
        silent=tuple(silent),
        lagging=tuple(lagging),
        given_up=give_up_at is not None and now >= give_up_at,
        give_up_at=give_up_at,
    )


def _give_up_at(
    snapshot: Snapshot, arms: Mapping[str, Arm], silent: Iterable[str]
) -> datetime | None:
    """When silent routers, or ones that are not even Ready, are no longer waited for."""
    rollout = snapshot.deployment.status.rollout
    if rollout is None or rollout.aborted is None or rollout.progressed_at is None:
        return None
    if arms.get(rollout.revision or "", NO_ARM).wanted is None:
        return None  # it is over, and only waits for another try
    since = [each for name in silent if (each := snapshot.routers[name].silent_since) is not None]
    drain = timedelta(seconds=snapshot.deployment.spec.router.drain_timeout_seconds)
    return max([rollout.progressed_at, *since]) + drain
