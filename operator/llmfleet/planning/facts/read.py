"""A snapshot read in the words of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from llmfleet.api import LLMDeployment, RolloutSpec, Routing
from llmfleet.planning.children.naming import is_ours, memory_key
from llmfleet.planning.facts.arms import NO_ARM, Arm, read_arms
from llmfleet.planning.facts.pods import released_at
from llmfleet.planning.facts.routers import Routers, read_routers
from llmfleet.planning.revisions.memory import Memory, parse_memory
from llmfleet.planning.revisions.revision import (
    Revision,
    adopt_revision,
    parse_controller_revision,
    revision_hash,
    spec_payload,
)
from llmfleet.planning.snapshot import (
    ObservedObject,
    OperatorSettings,
    RequestCounts,
    Snapshot,
)


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
    """By hash: those with a ControllerRevision of ours, and memory's last good one."""
    stored_revisions: Mapping[str, ObservedObject]
    """The ControllerRevisions themselves."""
    spec_revision: str
    """The hash that spec asks for."""
    memory: Memory
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

    def present_besides(self, revision: str) -> int:
        """Pods that hold accelerators and are not of this revision's Deployment."""
        others = sum(arm.present for name, arm in self.arms.items() if name != revision)
        return others + len(self.arm(revision).left)

    @property
    def release_times(self) -> tuple[datetime, ...]:
        """When pods on lost nodes stop to count as present."""
        pods = (pod for arm in self.arms.values() for pod in (*arm.pods, *arm.left))
        return tuple(when for pod in pods if (when := released_at(pod)) is not None)


def read_facts(snapshot: Snapshot, now: datetime) -> Facts:
    """Read a snapshot.

    Args:
        snapshot: everything observed.
        now: the time of the decision, which tells how long routers have been silent.
    """
    deployment = snapshot.deployment
    name = deployment.metadata.name
    ours = {key: found for key, found in snapshot.objects.items() if is_ours(deployment, found)}
    stored = {
        key.name.removeprefix(f"{name}-rev-"): found
        for key, found in ours.items()
        if key.kind == "ControllerRevision"
    }
    memory = parse_memory(ours.get(memory_key(name)))
    parsed = (parse_controller_revision(found) for found in stored.values())
    revisions = {each.hash: each for each in parsed if each is not None}
    if memory.last_good is not None:
        memory = replace(memory, last_good=adopt_revision(deployment, memory.last_good))
    if memory.last_good is not None:
        revisions.setdefault(memory.last_good.hash, memory.last_good)
    arms = read_arms(snapshot, ours, stored, now)
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
        memory=memory,
        served=status.served_revision if status.served_revision in known else None,
        traffic={share.revision: share.weight for share in status.traffic if share.weight},
        routing=status.routing,
        generation=status.traffic_generation,
        next_generation=1 + max([status.traffic_generation or 0, *reported]),
        routers=read_routers(snapshot, arms, now),
        rejected=_rejected(deployment, memory),
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
