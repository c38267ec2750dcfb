"""Pod Security Standard "restricted" as a list of what a pod violates.

The rules are those of Kubernetes' page "Pod Security Standards" (baseline and restricted, Linux);
tests/integration/security asks a real API server the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

JSON = dict[str, Any]

VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
     "projected", "secret"}
)  # fmt: skip
SECCOMP = ("RuntimeDefault", "Localhost")


def violations(pod: JSON) -> Iterator[str]:
    """What a PodSpec does that "restricted" forbids."""
    shared = pod.get("securityContext") or {}
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes") or ():
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    if shared.get("sysctls"):
        yield "sysctls"
    for container in [*(pod.get("initContainers") or ()), *pod["containers"]]:
        for fault in _container_violations(container, shared):
            yield f"{container['name']}: {fault}"


def _container_violations(container: JSON, shared: JSON) -> Iterator[str]:
    own = container.get("securityContext") or {}
    effective = {**shared, **own}
    capabilities = own.get("capabilities") or {}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if "ALL" not in capabilities.get("drop", ()):
        yield "capabilities are not dropped"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if effective.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if effective.get("runAsUser") == 0:
        yield "runAsUser 0"
    if (effective.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield "seccompProfile"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield "hostPort"
