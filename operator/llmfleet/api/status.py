"""What is: the status of an LLMDeployment, written by the operator alone.

Every list is bounded and no field is a heartbeat, so nothing is written when nothing changed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from llmfleet.api.rollout import HeaderMatch
from llmfleet.api.values import (
    ABSENT_IF_UNKNOWN,
    ANYTHING,
    ATOMIC,
    SPARSE,
    ResourceModel,
    SchemaExtra,
    Short,
    Text,
    Time,
    list_map,
)

STATUS_SCHEMA = 2
"""Latest version of the status that this operator reads."""
COMPATIBLE_SCHEMA = 1
"""Version it writes while nothing is under way that operators of that version could not go on
with; an undo's target in mid-rollout is version 2."""

INT64 = SchemaExtra((("format", "int64"),))
Generation = Annotated[int, INT64]
Sentence = Annotated[str, Field(max_length=32768)]
Hash = Annotated[str, Field(max_length=64)]
Anything = Annotated[dict[str, Any], ANYTHING]


class TrafficShare(ResourceModel):
    """A revision and its share of the requests."""

    revision: Hash
    """Hash of the revision."""
    weight: Annotated[int, Field(ge=0, le=100)]
    """Percent of the requests."""


class HeaderRouting(ResourceModel):
    """Requests with these headers go to a revision, whatever the weights."""

    revision: Hash
    """Hash of the revision."""
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=8), ATOMIC]
    """Headers that a request must have, all of them."""


class Mirroring(ResourceModel):
    """Copies of requests go to a revision, whose answers are discarded."""

    revision: Hash
    """Hash of the revision."""
    percent: Annotated[int, Field(ge=1, le=100)]
    """Percent of the requests."""


class Routing(ResourceModel):
    """What routers do besides splitting by weight."""

    header_route: HeaderRouting | None = None
    """Which requests go to the canary whatever its weight."""
    mirror: Mirroring | None = None
    """Which share of the requests is copied to the canary."""
    preview: Hash | None = None
    """Hash of the revision that the preview address leads to."""
    stickiness: Literal["Session"] | None = None
    """Requests of one session get the same revision."""


class MetricResult(ResourceModel):
    """What an analysis says about one metric."""

    name: Short
    """The metric."""
    verdict: Short
    """Running, Successful, Failed, Inconclusive or Error."""
    stable: float | None = None
    """Value of the stable revision."""
    canary: float | None = None
    """Value of the canary."""
    n: Annotated[int, INT64] | None = None
    """Requests looked at."""
    effect: float | None = None
    """Relative worsening of the canary."""
    lower: float | None = None
    """Lower end of the confidence sequence of the effect."""
    upper: float | None = None
    """Upper end."""
    min_effect: float | None = None
    """Smallest worsening that matters."""
    message: Sentence | None = None
    """The verdict in a sentence."""
    as_of: Time | None = None
    """When the numbers were read; they are written anew once a minute, or with the verdict."""


class CountedRequests(ResourceModel):
    """Requests of one revision in an attempt."""

    total: Annotated[int, INT64]
    """Those sent to it."""
    failed: Annotated[int, INT64]
    """Those of them that failed."""


class RequestsAtStart(ResourceModel):
    """Requests of both revisions of an attempt, when a step's clock started."""

    stable: CountedRequests
    """Of the served revision."""
    canary: CountedRequests
    """Of the one being rolled out."""


class RolloutStatus(ResourceModel):
    """The rollout under way; absent when there is none."""

    id: Annotated[int, INT64] | None = None
    """Number of the attempt; rises by one with every rollout."""
    state: Annotated[str, Field(max_length=64)] | None = None
    """`Forward`, `Undoing` (to a kept revision, without steps), `Returning` (to the served one) or
    `BackingOff` (between two tries)."""
    revision: Hash | None = None
    """Hash of the revision being rolled out."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Index of the step under way."""
    step_started_at: Time | None = None
    """When the step's traffic was really served."""
    requests_at_start: RequestsAtStart | None = None
    """Requests of the attempt so far at that time; an analysis step is judged by later ones."""
    started_at: Time | None = None
    """When the rollout began."""
    served_since: Time | None = None
    """When its first requests were really served; they are counted from here."""
    progressed_at: Time | None = None
    """When it last made progress; the progress deadline counts from here."""
    attempt: Annotated[int, Field(ge=0)] | None = None
    """Tries of this revision so far, after aborts that were not its fault."""
    retry_at: Time | None = None
    """When an aborted revision is tried again."""
    aborted: Annotated[str, Field(max_length=128)] | None = None
    """Reason of the last abort; absent while the attempt goes on."""
    ended_before: Annotated[
        dict[str, Annotated[int, Field(ge=0), INT64]], Field(max_length=256)
    ] = Field(default_factory=dict)
    """By engine pod: how often its container had ended before the attempt began, or has without
    its fault since. These do not count against the revision."""
    trouble_since: Time | None = None
    """Since when engine pods show what is not the revision's fault; after 2 minutes it is
    aborted."""
    waiting_since: Time | None = None
    """Since when the rollout waits for capacity or a person; its clock stands still."""
    cause: Annotated[str, Field(max_length=128)] | None = None
    """`Undo` when somebody asked for a kept revision, `Rollback` when spec went back to one within
    rollbackWindow: both skip the steps. Absent otherwise."""
    undo_target: Hash | None = None
    """Kept revision that is rolled out once the traffic has returned to the served one."""
    message: Sentence | None = None
    """What the rollout is doing."""
    plan: Anything | None = None
    """The rollout's settings, frozen when it began."""
    metric_results: Annotated[tuple[MetricResult, ...], Field(max_length=16), list_map("name")] = ()
    """Verdicts per metric."""


class RevisionStatus(ResourceModel):
    """A revision that is kept."""

    hash: Hash
    """Its hash."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """Runtime image it was made with."""
    created_at: Time | None = None
    """When it was made."""
    promoted_at: Time | None = None
    """When it became the served revision."""
    unserved_since: Time | None = None
    """Since when it has had no traffic; its pods go scaleDownDelay later."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Engine pods wanted."""
    ready_replicas: Annotated[int, Field(ge=0)] | None = None
    """Engine pods ready."""


class RejectedRevision(ResourceModel):
    """A revision that will not be rolled out again unless asked for."""

    hash: Hash
    """Its hash."""
    reason: Text
    """Why, as a CamelCase word."""
    at: Time
    """When."""
    message: Sentence | None = None
    """Why, as a sentence with the numbers."""
    evidence: Annotated[str, Field(max_length=4096)] | None = None
    """Where the evidence record is."""


class ScalingDecision(ResourceModel):
    """A change of replicas, with the numbers it rests on."""

    at: Time
    """When."""
    desired: Annotated[int, Field(ge=0)]
    """Replicas decided on."""
    reason: Text | None = None
    """Why, as a CamelCase word."""
    message: Sentence | None = None
    """Why, as a sentence with the numbers."""
    inputs: Anything | None = None
    """The numbers."""


class AutoscalingStatus(ResourceModel):
    """What autoscaling decided."""

    desired: Annotated[int, Field(ge=0)] | None = None
    """Replicas decided on last."""
    last_scale_time: Time | None = None
    """When replicas last changed."""
    decisions: Annotated[tuple[ScalingDecision, ...], Field(max_length=10), ATOMIC] = ()
    """The latest decisions."""


class Condition(ResourceModel):
    """One aspect of the state, as in Kubernetes' own resources."""

    type: Annotated[str, Field(max_length=316)]
    """The aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: Generation | None = None
    """Generation of the spec this is about."""
    last_transition_time: Time
    """When the status last changed."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, as a stable CamelCase word (docs/conditions.md)."""
    message: Sentence = ""
    """Why, as a sentence with the numbers."""


class ObjectIdentity(ResourceModel):
    """Names one incarnation of an object."""

    name: Text
    """Its name."""
    uid: Annotated[str, Field(max_length=128)]
    """Its uid."""


class LLMDeploymentStatus(ResourceModel):
    """What is served, what was wanted, what was decided, and what happens next."""

    model_config = ConfigDict(json_schema_extra={SPARSE: True})

    observed_generation: Generation = -1
    """Generation of the spec that this status is about; -1 = none yet."""
    schema_: int | None = Field(default=None, alias="schema")
    """Version of the status' shape; an operator older than it leaves the object alone."""
    phase: Annotated[
        Literal["Healthy", "Progressing", "Paused", "Degraded"] | None, ABSENT_IF_UNKNOWN
    ] = None
    """Summary of the conditions."""
    message: Sentence | None = None
    """What happens and what happens next, in a sentence with the numbers."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """The stable address inside the cluster."""
    preview_url: Annotated[str, Field(max_length=512)] | None = None
    """The address of a blue-green rollout's new set, outside a rollout of the served one."""
    ready: Short | None = None
    """Ready engine pods of all revisions that get requests, of the replicas wanted, as 6/6; more
    than those while a rollout takes its surge, as 7/6."""
    canary_weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent of the requests that the revision being rolled out gets."""
    served_revision: Hash | None = None
    """Hash of the revision that clients get."""
    spec_revision: Hash | None = None
    """Hash of the revision that the spec asks for."""
    traffic: Annotated[tuple[TrafficShare, ...], Field(max_length=8), list_map("revision")] = ()
    """The split that routers obey; a command, not a report."""
    routing: Routing | None = None
    """What routers do besides that; also a command."""
    traffic_generation: Generation | None = None
    """Changes with every change of `traffic` or `routing`; routers confirm it."""
    rollout: RolloutStatus | None = None
    """The rollout under way."""
    revisions: Annotated[tuple[RevisionStatus, ...], Field(max_length=128), list_map("hash")] = ()
    """The revisions that are kept, newest first."""
    rejected_revisions: Annotated[
        tuple[RejectedRevision, ...], Field(max_length=10), list_map("hash")
    ] = ()
    """The latest rejected revisions; the memory ConfigMap holds more."""
    handled_acts: Annotated[
        dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=16)
    ] = Field(default_factory=dict)
    """The last value of each act that was carried out."""
    autoscaling: AutoscalingStatus | None = None
    """What autoscaling decided."""
    token_secret: ObjectIdentity | None = None
    """The Secret with the engine token, as made; its content is never read."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), list_map("type")] = ()
    """The aspects of the state (docs/conditions.md)."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Engine pods of the served revision; read by the scale subresource."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of those pods; read by the scale subresource."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, if present."""
        return next((each for each in self.conditions if each.type == kind), None)
