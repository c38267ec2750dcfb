"""What users want: the spec of an LLMDeployment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from llmfleet.api.engine import EngineSpec
from llmfleet.api.pod_template import PodTemplate, RouterPodTemplate
from llmfleet.api.rollout import DriftSpec, RolloutSpec
from llmfleet.api.scaling import Autoscaling, Replicas, ScaleToZero
from llmfleet.api.source import ModelSpec
from llmfleet.api.values import (
    Cel,
    DurationBetween,
    ResourceModel,
    SizeBetween,
    parse_duration_seconds,
    parse_size_bytes,
    rules,
)

DEFAULT_ACCELERATOR_RESOURCE = "nvidia.com/gpu"


class Accelerator(ResourceModel):
    """What one replica computes on: `{resource, count}` or `{type: cpu}`."""

    model_config = ConfigDict(
        json_schema_extra={
            "default": {"resource": DEFAULT_ACCELERATOR_RESOURCE, "count": 1},
            **rules(
                Cel(
                    "!has(self.type) || (!has(self.resource) && !has(self.count))",
                    "accelerator takes either type: cpu, or resource and count: remove one",
                )
            ),
        }
    )

    type: Literal["cpu"] | None = None
    """`cpu` serves without accelerators; then `resource` and `count` are left out."""
    resource: (
        Annotated[
            str,
            Field(max_length=253),
            Cel(
                "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9][-A-Za-z0-9_.]*$')",
                "must be an extended resource such as nvidia.com/gpu",
            ),
        ]
        | None
    ) = None
    """Extended resource that nodes offer, nvidia.com/gpu when left out."""
    count: Annotated[int, Field(ge=1, le=64)] | None = None
    """Accelerators per replica, 1 when left out."""

    @property
    def is_cpu(self) -> bool:
        """Whether replicas run without accelerators."""
        return self.type == "cpu"

    @property
    def resource_name(self) -> str | None:
        """The extended resource a replica asks for; None on CPU."""
        return None if self.is_cpu else self.resource or DEFAULT_ACCELERATOR_RESOURCE

    @property
    def resource_count(self) -> int:
        """Accelerators a replica asks for; 0 on CPU."""
        return 0 if self.is_cpu else self.count or 1


class RouterSpec(ResourceModel):
    """The Envoy routers in front of the replicas; not part of the revision hash."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 2
    """Router pods."""
    policy: Literal["PrefixHash", "LeastRequest", "RoundRobin", "Session"] = "PrefixHash"
    """How a pod is chosen inside a revision: by the prompt's beginning (prefix cache), by load, in
    turn, or by the x-session-id header."""
    prefix_bytes: Annotated[int, Field(ge=64, le=65536)] = 4096
    """Bytes of the prompt's beginning that PrefixHash looks at."""
    body_limit: Annotated[str, SizeBetween("1Ki", "1Gi")] = "8Mi"
    """Largest request body."""
    drain_timeout: Annotated[str, DurationBetween("1s", "24h")] = "600s"
    """Longest a stopping router waits for its streams."""
    pod_template: RouterPodTemplate | None = None
    """What users may set on router pods."""

    @property
    def body_limit_bytes(self) -> int:
        """`body_limit` in bytes."""
        return parse_size_bytes(self.body_limit)

    @property
    def drain_timeout_seconds(self) -> int:
        """`drain_timeout` in seconds."""
        return parse_duration_seconds(self.drain_timeout)


class Drain(ResourceModel):
    """How engine pods end; part of the revision hash."""

    timeout: Annotated[str, DurationBetween("10s", "24h")] = "300s"
    """Longest a stopping engine pod finishes its requests (its termination grace period)."""

    @property
    def timeout_seconds(self) -> int:
        """`timeout` in seconds."""
        return parse_duration_seconds(self.timeout)


_PRODUCT = (
    "self.engine.parallelism.tensor * self.engine.parallelism.pipeline"
    " * self.engine.parallelism.data"
)
_ON_CPU = "has(self.accelerator.type)"
_BLOCK = "self.engine.kvCache.blockSize"
_NO_BLOCK = "!has(self.engine.kvCache.blockSize)"

SPEC_RULES = (
    Cel(
        "!(has(self.replicas) && has(self.autoscaling))",
        "spec.replicas and spec.autoscaling exclude each other: remove replicas to let"
        " autoscaling decide, or remove autoscaling",
    ),
    Cel(
        f"{_ON_CPU} || (has(self.accelerator.count) ? self.accelerator.count : 1)"
        f" % ({_PRODUCT}) == 0",
        "spec.engine.parallelism: tensor x pipeline x data must divide"
        " spec.accelerator.count (1 when left out): raise the count to a multiple of the"
        " product, or lower parallelism",
    ),
    Cel(
        f"!{_ON_CPU} || {_PRODUCT} == 1",
        "spec.engine.parallelism: a pod serves one engine on CPU: set tensor, pipeline and data"
        " to 1 and raise spec.replicas",
    ),
    Cel(
        "self.engine.parallelism.data == 1",
        "spec.engine.parallelism.data: several engines in one pod are not supported yet: set it"
        " to 1 and raise spec.replicas",
    ),
    Cel(
        f"!{_ON_CPU} || self.engine.quantization != 'fp8'",
        "spec.engine.quantization: fp8 does not work on CPU: use none, int8, awq or gptq",
    ),
    Cel(
        f"!{_ON_CPU} || !(self.engine.kvCache.dtype in ['float16', 'bfloat16'])",
        "spec.engine.kvCache.dtype must be auto or one of the fp8 types on CPU",
    ),
    Cel(
        f"!{_ON_CPU} || self.engine.kvCache.offloadGiB == 0",
        "spec.engine.kvCache.offloadGiB must be 0 on CPU, where the cache already is in host"
        " memory: remove it",
    ),
    Cel(
        f"!{_ON_CPU} || {_NO_BLOCK} || {_BLOCK} % 32 == 0",
        "spec.engine.kvCache.blockSize must be a multiple of 32 on CPU: use 32, 64 or 128, or"
        " leave it out",
    ),
    Cel(
        f"{_ON_CPU} || {_NO_BLOCK} || {_BLOCK} in [16, 32, 64, 128]",
        "spec.engine.kvCache.blockSize must be 16, 32, 64 or 128 on GPUs, or left out",
    ),
    Cel(
        "self.engine.lora.adapters.all(a, a.name != self.model.servedName"
        " && !(a.name in self.model.aliases))",
        "spec.engine.lora.adapters: an adapter must not have the model's servedName or one of"
        " its aliases: rename it",
    ),
    Cel(
        "!has(self.engine.speculativeDecoding)"
        " || !has(self.engine.speculativeDecoding.draftModel.secretRef)"
        " || (has(self.model.secretRef) && self.model.secretRef.name"
        " == self.engine.speculativeDecoding.draftModel.secretRef.name)",
        "spec.engine.speculativeDecoding.draftModel.secretRef must name the same Secret as"
        " spec.model.secretRef, since a pod has one token: set both to one Secret",
    ),
    Cel(
        "self.engine.lora.adapters.all(a, !has(a.secretRef) || (has(self.model.secretRef)"
        " && a.secretRef.name == self.model.secretRef.name))",
        "spec.engine.lora.adapters: secretRef must name the same Secret as spec.model.secretRef,"
        " since a pod has one token: set both to one Secret",
    ),
    Cel(
        f"{_ON_CPU} || !has(self.podTemplate.resources) || ["
        "has(self.podTemplate.resources.requests) ? self.podTemplate.resources.requests : {},"
        " has(self.podTemplate.resources.limits) ? self.podTemplate.resources.limits : {}]"
        ".all(r, !((has(self.accelerator.resource) ? self.accelerator.resource"
        f" : '{DEFAULT_ACCELERATOR_RESOURCE}') in r))",
        "spec.podTemplate.resources must not name the accelerator: set spec.accelerator.count"
        " instead",
    ),
)


class LLMDeploymentSpec(ResourceModel):
    """What shall be served, on what, and how changes are rolled out."""

    model_config = ConfigDict(json_schema_extra=rules(*SPEC_RULES))

    model: ModelSpec
    """Which weights are served, and under which names."""
    engine: EngineSpec = Field(default_factory=EngineSpec)
    """Typed settings of the inference engine. Left out = the engine's own default."""
    accelerator: Accelerator = Field(default_factory=Accelerator)
    """What one replica computes on: `{resource, count}` or `{type: cpu}`."""
    replicas: Replicas | None = None
    """Engine pods; 1 when neither this nor `autoscaling` is set. Excludes `autoscaling`."""
    autoscaling: Autoscaling | None = None
    """Replicas follow demand. Excludes `replicas`."""
    rollout: RolloutSpec = Field(default_factory=RolloutSpec)
    """How a changed spec becomes the served revision."""
    drift: DriftSpec = Field(default_factory=DriftSpec)
    """The watch kept on a promoted revision."""
    router: RouterSpec = Field(default_factory=RouterSpec)
    """The Envoy routers in front of the replicas."""
    scale_to_zero: ScaleToZero = Field(default_factory=ScaleToZero)
    """What happens at `autoscaling.minReplicas` 0."""
    drain: Drain = Field(default_factory=Drain)
    """How engine pods end."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """What users may set on engine pods."""

    @property
    def wanted_replicas(self) -> int:
        """Engine pods to run while nothing scales them.

        `replicas`, or 1; with `autoscaling`, its minimum, but at least 1, since nothing could
        wake a deployment at zero yet.
        """
        if self.replicas is not None:
            return self.replicas
        return max(1, self.autoscaling.min_replicas) if self.autoscaling else 1

    @property
    def claims(self) -> tuple[str, ...]:
        """Names of the PersistentVolumeClaims that sources name, sorted, each once."""
        sources = [self.model.claim, *(adapter.claim for adapter in self.engine.lora.adapters)]
        if self.engine.speculative_decoding:
            sources.append(self.engine.speculative_decoding.draft_model.claim)
        return tuple(sorted({claim for claim in sources if claim}))
