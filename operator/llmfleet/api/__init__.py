"""The resource ``llmfleet.dev/v1alpha1 LLMDeployment``: the only place that knows field names.

Models, their parsing, the canonical payload that revisions are hashed from, and the generator of
the CRD. Nothing here does I/O, except the two generators' ``main``.
"""

from llmfleet.api.canonical import (
    HASHED_SECTIONS,
    UNBUILT_FIELDS,
    hash_payload,
    unbuilt_fields,
    unknown_fields,
)
from llmfleet.api.deployment import (
    API_VERSION,
    CRD_SCHEMA,
    GROUP,
    KIND,
    PLURAL,
    SCHEMA_ANNOTATION,
    SHORT_NAME,
    VERSION,
    LLMDeployment,
    ObjectMeta,
    parse,
)
from llmfleet.api.engine import (
    ChatTemplate,
    ConfigMapKey,
    EngineSpec,
    KvCache,
    Lora,
    Parallelism,
    SpeculativeDecoding,
)
from llmfleet.api.extra_args import ALLOWED_EXTRA_ARGS, TYPED_ARGS
from llmfleet.api.pod_template import PodTemplate
from llmfleet.api.rollout import DEFAULT_STEPS, Analysis, DriftSpec, Pause, RolloutSpec, Step
from llmfleet.api.scaling import Autoscaling, ScaleToZero
from llmfleet.api.source import (
    DraftModel,
    LoraAdapter,
    ModelSpec,
    SourceScheme,
    source_claim,
    source_scheme,
)
from llmfleet.api.spec import Accelerator, Drain, LLMDeploymentSpec, RouterSpec
from llmfleet.api.status import (
    STATUS_SCHEMA,
    Condition,
    LLMDeploymentStatus,
    ObjectIdentity,
    RejectedRevision,
    RevisionStatus,
    RolloutStatus,
    TrafficShare,
)
from llmfleet.api.values import parse_duration_seconds

__all__ = [
    "ALLOWED_EXTRA_ARGS",
    "API_VERSION",
    "CRD_SCHEMA",
    "DEFAULT_STEPS",
    "GROUP",
    "HASHED_SECTIONS",
    "KIND",
    "PLURAL",
    "SCHEMA_ANNOTATION",
    "SHORT_NAME",
    "STATUS_SCHEMA",
    "TYPED_ARGS",
    "UNBUILT_FIELDS",
    "VERSION",
    "Accelerator",
    "Analysis",
    "Autoscaling",
    "ChatTemplate",
    "Condition",
    "ConfigMapKey",
    "DraftModel",
    "Drain",
    "DriftSpec",
    "EngineSpec",
    "KvCache",
    "LLMDeployment",
    "LLMDeploymentSpec",
    "LLMDeploymentStatus",
    "Lora",
    "LoraAdapter",
    "ModelSpec",
    "ObjectIdentity",
    "ObjectMeta",
    "Parallelism",
    "Pause",
    "PodTemplate",
    "RejectedRevision",
    "RevisionStatus",
    "RolloutSpec",
    "RolloutStatus",
    "RouterSpec",
    "ScaleToZero",
    "SourceScheme",
    "SpeculativeDecoding",
    "Step",
    "TrafficShare",
    "hash_payload",
    "parse",
    "parse_duration_seconds",
    "source_claim",
    "source_scheme",
    "unbuilt_fields",
    "unknown_fields",
]
