"""What the pod template of a stored revision may hold: an allow-list, never today's renderer.

A ControllerRevision or the memory may have been written by whoever may write such objects. What
they hold becomes pods, so it must stay within what the author of an LLMDeployment could have asked
for (``api.PodTemplate``) and what a released operator has ever rendered beside it: nothing of the
node, no privilege, no other identity, no other container. The template of every released version
passes (tests/unit/planning/released); a new field of the renderer or of podTemplate is a row here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from llmfleet.api import Affinity, EnvVar, Mount, Toleration, Volume
from llmfleet.api.pod_template import RESERVED_ENV_NAMES, RESERVED_MOUNT_PATHS
from llmfleet.planning.children.naming import RUNTIME_CONFIG_ANNOTATION, object_labels
from llmfleet.planning.revisions.shapes import (
    All,
    As,
    Choice,
    Fields,
    Items,
    Number,
    OneOf,
    Shape,
    Text,
    TextMap,
    Where,
    show,
)

OWN_PREFIX: Final = "llmfleet-"
OWN_ENV: Final = frozenset({"LLMFLEET_POD_NAME", "LLMFLEET_POD_IP", "HOME", "HF_HOME", "HF_TOKEN"})
"""Reserved variables that a released operator has set itself."""
OWN_VOLUMES: Final = tuple(
    (re.compile(name), kind, re.compile(path))
    for name, kind, path in (
        ("llmfleet-config", "downwardAPI", "/etc/llmfleet"),
        ("llmfleet-token", "secret", "/var/run/llmfleet/token"),
        ("llmfleet-tmp", "emptyDir", "/tmp"),  # noqa: S108 - in the container
        ("llmfleet-shm", "emptyDir", "/dev/shm"),  # noqa: S108 - in the container
        ("llmfleet-cache", "emptyDir", "/var/cache/llmfleet"),
        ("llmfleet-claim-[0-9]{1,3}", "persistentVolumeClaim", "/models/[-a-z0-9.]{1,253}"),
        ("llmfleet-chat-template", "configMap", "/var/run/llmfleet/chat-template"),
    )
)
"""Volumes that a released operator has made itself: names, their kinds, and where they appear."""

YES: Final = OneOf((True,))
NO: Final = OneOf((False,))
EITHER: Final = OneOf((True, False))
SECONDS: Final = Number(most=1 << 20)
SOMEBODY: Final = Number(least=1)
"""A user or group that is not root."""

_CONFIG_VOLUME: Final = Fields({
    "name": Text(),
    "downwardAPI": Fields({
        "items": Items(Fields({
            "path": Text(),
            "fieldRef": Fields({"fieldPath": Text(), "apiVersion": OneOf(("v1",))}),
        })),
    }),
})  # fmt: skip


def _env_of(name: str) -> Shape | None:
    reserved = name in RESERVED_ENV_NAMES or name.startswith("LLMFLEET_")
    return None if reserved and name not in OWN_ENV else As(EnvVar)


def _volume_of(name: str) -> Shape | None:
    if not name.startswith(OWN_PREFIX):
        return As(Volume)
    kind = next((kind for names, kind, _ in OWN_VOLUMES if names.fullmatch(name)), None)
    if kind == "downwardAPI":
        return _CONFIG_VOLUME
    return None if kind is None else All((As(Volume), Where(lambda each: kind in each)))


def _mount_of(name: str) -> Shape | None:
    return All((As(Mount), Where(lambda each: _may_be_mounted(each["mountPath"], name))))


def _may_be_mounted(path: str, name: str) -> bool:
    if name.startswith(OWN_PREFIX):
        return any(
            names.fullmatch(name) and paths.fullmatch(path) for names, _, paths in OWN_VOLUMES
        )
    if not path.startswith("/") or ".." in path or ":" in path:
        return False
    # Resources of November may have "/data/"; what lies over the runtime replaces its code.
    short = "/" + "/".join(part for part in path.split("/") if part not in {"", "."})
    return short != "/" and not any(_lie_over(short, taken) for taken in RESERVED_MOUNT_PATHS)


def _lie_over(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _are_amounts(value: Any) -> bool:
    # podTemplate.resources and the accelerator, which is one more than the model allows.
    return isinstance(value, dict) and all(type(each) in {int, str} for each in value.values())


_AMOUNTS: Final = Where(_are_amounts)

_PROBE: Final = Fields(
    {
        "httpGet": Fields({"path": Text(), "port": Text(), "scheme": OneOf(("HTTP",))}),
        "timeoutSeconds": SECONDS,
        "periodSeconds": SECONDS,
        "failureThreshold": Number(),
    },
    required=("httpGet",),
)

CONTAINER: Final = Fields(
    {
        "name": OneOf(("engine",)),
        "image": Text(512),
        "imagePullPolicy": OneOf(("IfNotPresent",)),
        "env": Items(Choice(_env_of)),
        "ports": Items(
            Fields({
                "name": Text(),
                "containerPort": Number(least=1, most=65535),
                "protocol": OneOf(("TCP",)),
            })
        ),
        "startupProbe": _PROBE,
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
        "resources": Fields({"requests": _AMOUNTS, "limits": _AMOUNTS}),
        "securityContext": Fields(
            {
                "allowPrivilegeEscalation": NO,
                "capabilities": Fields({"drop": OneOf((["ALL"],))}, required=("drop",)),
                "readOnlyRootFilesystem": EITHER,
                "runAsNonRoot": YES,
            },
            required=("allowPrivilegeEscalation", "capabilities", "runAsNonRoot"),
        ),
        "terminationMessagePath": OneOf(("/dev/termination-log",)),
        "terminationMessagePolicy": OneOf(("File",)),
        "volumeMounts": Items(Choice(_mount_of)),
    },
    required=("name", "image", "securityContext"),
)  # fmt: skip

POD: Final = Fields(
    {
        "automountServiceAccountToken": NO,
        "enableServiceLinks": NO,
        "terminationGracePeriodSeconds": SECONDS,
        "securityContext": Fields(
            {
                "runAsNonRoot": YES,
                "runAsUser": SOMEBODY,
                "runAsGroup": SOMEBODY,
                "seccompProfile": OneOf(({"type": "RuntimeDefault"},)),
            },
            required=("runAsNonRoot", "seccompProfile"),
        ),
        "containers": Items(CONTAINER, least=1, most=1),
        "volumes": Items(Choice(_volume_of)),
        "nodeSelector": TextMap(),
        "tolerations": Items(As(Toleration)),
        "affinity": As(Affinity),
        "priorityClassName": Text(253),
        "runtimeClassName": Text(253),
    },
    required=("automountServiceAccountToken", "securityContext", "containers"),
)

TEMPLATE: Final = Fields(
    {
        "metadata": Fields(
            {
                "labels": TextMap(
                    reserved="llmfleet.dev/", known=frozenset(object_labels("", "", ""))
                ),
                "annotations": TextMap(
                    reserved="llmfleet.dev/", known=frozenset({RUNTIME_CONFIG_ANNOTATION})
                ),
            },
            required=("labels",),
        ),
        "spec": POD,
    },
    required=("metadata", "spec"),
)


def find_forbidden(template: Any, *, name: str, revision: str, image: str) -> str | None:
    """The first thing in a pod template that no revision may have, in words.

    Args:
        template: as stored, whatever it is.
        name: of the LLMDeployment, which the labels must name.
        revision: its hash, which they must name too.
        image: recorded beside the template, which its one container must have.

    Returns:
        A path with what stands there, such as ``template.spec.hostPID is set``; None when all of
        it is allowed.
    """
    found = TEMPLATE.forbidden(template, "template")
    if found is not None:
        return found
    labels = template["metadata"]["labels"]
    for key, value in object_labels(name, "engine", revision).items():
        if labels.get(key) != value:
            return f"template.metadata.labels[{key}] is {show(labels.get(key))}, not {value}"
    used = template["spec"]["containers"][0]["image"]
    return None if used == image else f"its container has the image {show(used)}, not {show(image)}"
