"""Puts the tiny test models on a claim: PersistentVolume, PersistentVolumeClaim, and a Job.

The Job runs hack/models/make_tiny_models.py, mounted from a ConfigMap, in the runtime image, which
has torch. Nothing is downloaded; the models are kept on the node until the cluster goes, in one
folder per version of the script, which the claims of all namespaces share.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hack.kube.kubectl import JSON, NotInTimeError, apply, get, kubectl, wait_for

SCRIPT = Path(__file__).parent.parent / "models" / "make_tiny_models.py"
CLAIM = "models"
JOB = "make-models"


def node_folder() -> str:
    """Where the node keeps volumes: `make cluster-env` says so, and takes them down with it."""
    return os.environ.get("LLMFLEET_VOLUMES", "/var/lib/llmfleet")


def manifests(namespace: str, runtime_image: str) -> list[JSON]:
    """All objects, in the order they are applied."""
    volume = f"llmfleet-{namespace}-models"
    version = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:12]
    folder = f"{node_folder()}/tiny-models-{version}"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "2Gi"},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {"name": CLAIM, "namespace": namespace},
                "hostPath": {"path": folder, "type": "DirectoryOrCreate"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": {"storage": "2Gi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": JOB, "namespace": namespace},
            "data": {SCRIPT.name: SCRIPT.read_text()},
        },
        _job(namespace, runtime_image),
    ]


def _job(namespace: str, runtime_image: str) -> JSON:
    container: JSON = {
        "name": "make",
        "image": runtime_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", f"/script/{SCRIPT.name}", "/models", "--keep"],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "4Gi"}},
        # Root, since the node made the folder; everything else of root is dropped.
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "script", "mountPath": "/script"},
            {"name": "models", "mountPath": "/models"},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": JOB, "namespace": namespace},
        "spec": {
            "backoffLimit": 1,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "containers": [container],
                    "volumes": [
                        {"name": "script", "configMap": {"name": JOB}},
                        {"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}},
                    ],
                }
            },
        },
    }


def start(namespace: str, runtime_image: str) -> bool:
    """Starts making the models.

    Returns:
        Whether there was anything to do: False when an earlier Job has finished them.
    """
    job = get("job", JOB, namespace)
    if job and state(namespace) == "Complete":
        return False
    if job and job["spec"]["template"]["spec"]["containers"][0]["image"] != runtime_image:
        kubectl("delete", "job", JOB, "-n", namespace, "--wait=true", timeout_seconds=120)
    volume = get("pv", f"llmfleet-{namespace}-models")
    if volume and volume["status"].get("phase") == "Released":  # its claim was deleted
        kubectl("delete", "pv", volume["metadata"]["name"], timeout_seconds=60)
    apply(*manifests(namespace, runtime_image))
    return True


def ensure(namespace: str, runtime_image: str, *, timeout_seconds: float = 420) -> None:
    """Starts making the models if need be and waits until they are there.

    Raises:
        NotInTimeError: they failed, or took longer; with what the Job printed last.
    """
    start(namespace, runtime_image)
    wait_for(
        "the tiny models",
        lambda: state(namespace) != "Running",
        timeout_seconds=timeout_seconds,
        describe=lambda: log_tail(namespace, 3),
        every_seconds=1,
    )
    if state(namespace) == "Failed":
        raise NotInTimeError(f"the models could not be made: {log_tail(namespace)}")


def state(namespace: str) -> str:
    """``Complete``, ``Failed``, or ``Running``."""
    job = get("job", JOB, namespace) or {}
    for entry in (job.get("status") or {}).get("conditions") or []:
        if entry["status"] == "True" and entry["type"] in {"Complete", "Failed"}:
            return str(entry["type"])
    return "Running"


def log_tail(namespace: str, lines: int = 20) -> str:
    """What the Job printed last."""
    return kubectl("logs", f"job/{JOB}", "-n", namespace, f"--tail={lines}")
