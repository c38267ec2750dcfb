"""The part of the pod template that users may set: a typed allow-list.

Left out on purpose, since they would let an LLMDeployment's author act as the node or as the
operator: hostPath, hostNetwork, securityContext, serviceAccountName, containers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from llmfleet.api.scheduling import Affinity, Toleration
from llmfleet.api.values import (
    ATOMIC,
    DNS_LABEL,
    SPARSE,
    Cel,
    Long,
    ObjectName,
    ResourceModel,
    Short,
    StringMap,
    Text,
    list_map,
    rules,
)

RESERVED_ENV_NAMES = (
    "HOME",
    "HF_HOME",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "PYTHONPATH",
    "VLLM_API_KEY",
    "VLLM_PLUGINS",
    "VLLM_ENABLE_RESPONSES_API_STORE",
    "VLLM_SERVER_DEV_MODE",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
)
"""Environment variables that the operator or the runtime sets, or that would open the engine's
administrative routes; names beginning with ``LLMFLEET_`` are reserved too."""

RESERVED_MOUNT_PATHS = (
    "/models",
    "/tmp",  # noqa: S108 - a path inside the engine's container, where an emptyDir is mounted
    "/dev",
    "/proc",
    "/sys",
    "/etc/llmfleet",
    "/var/cache/llmfleet",
    "/var/run",
    "/run",
    "/opt/llmfleet",
)
"""Directories of the engine's container that are in use (docs/contract.md, Runtime)."""

_OWN_KEYS = "!k.startsWith('llmfleet.dev/') && k != 'app.kubernetes.io/managed-by'"

Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maxLength": 32,
            "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)"
            r"([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$",
        }
    ),
]
ResourceList = Annotated[dict[str, Quantity], Field(max_length=16)]


class PodMetadata(ResourceModel):
    """Labels and annotations of the engine pods."""

    labels: Annotated[
        StringMap,
        Cel(
            f"self.all(k, {_OWN_KEYS})",
            "labels under llmfleet.dev/ and app.kubernetes.io/managed-by are the operator's:"
            " remove them",
        ),
    ] = Field(default_factory=dict)
    """Labels added to every pod."""
    annotations: Annotated[
        StringMap,
        Cel(
            "self.all(k, !k.startsWith('llmfleet.dev/') && !k.startsWith('prometheus.io/'))",
            "annotations under llmfleet.dev/ and prometheus.io/ are the operator's: remove them",
        ),
    ] = Field(default_factory=dict)
    """Annotations added to every pod."""


class KeySelector(ResourceModel):
    """Names one key of a Secret or ConfigMap."""

    name: ObjectName
    """Name of the object."""
    key: Text
    """Key in it."""
    optional: bool | None = None
    """Whether the pod may start without it."""


class FieldSelector(ResourceModel):
    """Names a field of the pod."""

    field_path: Text
    """Such as `metadata.labels['team']`."""


class EnvSource(ResourceModel):
    """Where a variable's value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)]"
                ".filter(x, x).size() == 1",
                "valueFrom needs exactly one of secretKeyRef, configMapKeyRef and fieldRef",
            )
        )
    )

    secret_key_ref: KeySelector | None = None
    """A key of a Secret."""
    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap."""
    field_ref: FieldSelector | None = None
    """A field of the pod."""


class EnvVar(ResourceModel):
    """An environment variable of the engine container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!(has(self.value) && has(self.valueFrom))",
                "an env entry takes value or valueFrom, not both: remove one",
            )
        )
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=128),
        Cel("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')", "must be a variable name"),
        Cel(
            f"!self.startsWith('LLMFLEET_') && !(self in {list(RESERVED_ENV_NAMES)})",
            message_expression="'env: ' + self + ' is set by llmfleet itself: remove it"
            " (docs/resource.md lists the reserved names)'",
            message="the name is set by llmfleet itself: remove it",
        ),
    ]
    """Name; those that the runtime sets itself are refused."""
    value: Long | None = None
    """Literal value."""
    value_from: EnvSource | None = None
    """Value read from elsewhere."""


class KeyToPath(ResourceModel):
    """Puts one key at a path of a volume."""

    key: Text
    """Key of the object."""
    path: Text
    """Relative path in the volume."""


class SecretVolume(ResourceModel):
    """A Secret as files."""

    secret_name: ObjectName
    """Name of the Secret."""
    items: Annotated[tuple[KeyToPath, ...], Field(max_length=32), ATOMIC] = ()
    """Keys taken; none = all."""
    optional: bool | None = None
    """Whether the pod may start without it."""


class ConfigMapVolume(ResourceModel):
    """A ConfigMap as files."""

    name: ObjectName
    """Name of the ConfigMap."""
    items: Annotated[tuple[KeyToPath, ...], Field(max_length=32), ATOMIC] = ()
    """Keys taken; none = all."""
    optional: bool | None = None
    """Whether the pod may start without it."""


class EmptyDirVolume(ResourceModel):
    """Space that lives as long as the pod."""

    medium: Literal["", "Memory"] | None = None
    """`Memory` for a RAM disk."""
    size_limit: Quantity | None = None
    """Most that may be written."""


class ClaimVolume(ResourceModel):
    """A PersistentVolumeClaim of the namespace."""

    claim_name: ObjectName
    """Name of the claim."""
    read_only: bool | None = None
    """Mount it read-only."""


class Volume(ResourceModel):
    """A volume of the engine pod; hostPath is not offered."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "[has(self.configMap), has(self.secret), has(self.emptyDir),"
                " has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
                "a volume needs exactly one of configMap, secret, emptyDir and"
                " persistentVolumeClaim (hostPath and others are not allowed)",
            )
        )
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=63),
        DNS_LABEL,
        SPARSE,
        Cel(
            "!self.startsWith('llmfleet-')",
            "volume names beginning with llmfleet- are the operator's: choose another",
        ),
    ]
    """Name that `mounts` refer to."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap as files."""
    secret: SecretVolume | None = None
    """A Secret as files."""
    empty_dir: EmptyDirVolume | None = None
    """Space that lives as long as the pod."""
    persistent_volume_claim: ClaimVolume | None = None
    """A PersistentVolumeClaim."""


class Mount(ResourceModel):
    """Mounts a volume of the podTemplate into the engine container."""

    name: Short
    """Name of the volume."""
    mount_path: Annotated[
        str,
        Field(min_length=2, max_length=253),
        Cel(
            "self.matches('^(/[^/:]+)+$') && !self.contains('..') && !self.matches('/[.](/|$)')",
            "must be an absolute path without '..' and ':', written as shortly as it can be:"
            " no '//', no '/.', no '/' at its end",
        ),
        Cel(
            f"!{list(RESERVED_MOUNT_PATHS)}.exists(p,"
            " self == p || self.startsWith(p + '/') || p.startsWith(self + '/'))",
            f"lies in or over a directory that llmfleet uses ({', '.join(RESERVED_MOUNT_PATHS)}):"
            " choose another, such as /data",
        ),
    ]
    """Absolute path in the container."""
    sub_path: Text | None = None
    """Path inside the volume."""
    read_only: bool | None = None
    """Mount it read-only."""


class PodResources(ResourceModel):
    """CPU, memory and other resources of a container, accelerators excepted."""

    requests: ResourceList = Field(default_factory=dict)
    """What the scheduler reserves."""
    limits: ResourceList = Field(default_factory=dict)
    """Most that may be used."""


class PodTemplate(ResourceModel):
    """What users may set on engine pods: a typed allow-list."""

    model_config = ConfigDict(
        json_schema_extra={
            SPARSE: True,
            **rules(
                Cel(
                    "!has(self.mounts) || self.mounts.all(m, has(self.volumes)"
                    " && self.volumes.exists(v, v.name == m.name))",
                    "podTemplate.mounts must name volumes listed in podTemplate.volumes: add the"
                    " volume, or correct the name",
                )
            ),
        }
    )

    metadata: PodMetadata = Field(default_factory=PodMetadata)
    """Labels and annotations of the engine pods."""
    node_selector: StringMap = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32), ATOMIC] = ()
    """Node taints that are tolerated."""
    affinity: Affinity | None = None
    """Rules about which nodes and which neighbours."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16), list_map("name")] = ()
    """Further volumes."""
    mounts: Annotated[tuple[Mount, ...], Field(max_length=16), list_map("mountPath")] = ()
    """Where volumes appear in the engine container."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), list_map("name")] = ()
    """Environment variables of the engine container."""
    resources: PodResources = Field(default_factory=PodResources)
    """CPU, memory and other resources of the engine container."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods."""


class RouterPodTemplate(ResourceModel):
    """What users may set on router pods: a typed allow-list."""

    model_config = ConfigDict(json_schema_extra={SPARSE: True})

    metadata: PodMetadata = Field(default_factory=PodMetadata)
    """Labels and annotations of the router pods."""
    node_selector: StringMap = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32), ATOMIC] = ()
    """Node taints that are tolerated."""
    affinity: Affinity | None = None
    """Rules about which nodes and which neighbours."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    resources: PodResources = Field(default_factory=PodResources)
    """CPU and memory of the container envoy; a resource named here has no default beside it."""
