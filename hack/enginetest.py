"""Runs tests/engine inside the runtime image, as a pod: the one place where vLLM is installed.

The checkout and pytest itself are copied into the pod; pytest comes last on the path, so that the
image's own packages are the ones that are tested. Ends with pytest's exit code, or with that of
another command of the tests (``--module tests.engine.parameters``); what it leaves in its results/
is copied into ours.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from hack.kube import local, models
from hack.kube.kubectl import KubectlError, NotInTimeError, apply, kubectl

NAMESPACE = "engine-tests"
POD = "engine-tests"
COPIED = ("tests/__init__.py", "tests/engine", "tests/unit/runtime", "hack", "runtime", "docs",
          "operator", "pyproject.toml")  # fmt: skip
PYTEST_PACKAGES = (
    "pytest", "pluggy", "iniconfig", "packaging", "pygments", "pytest-asyncio", "pytest-timeout",
    "pytest-xdist", "execnet",
)  # fmt: skip
RUN = (
    "import os, runpy, sys; os.makedirs('/work/checkout/results', exist_ok=True); "
    "os.chdir('/work/checkout'); sys.path[:0] = ['/work/checkout', '/work/checkout/runtime']; "
    "sys.path.append('/work/pytest'); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)

UNPACK = (  # our own archive; Debian 12's Python 3.11.2 has no extraction filters yet
    "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|gz').extractall('/work')"
)


def pod(image: str) -> dict[str, object]:
    """A pod that waits for its orders, as restricted as an engine pod."""
    mounts = {"work": "/work", "tmp": "/tmp", "cache": "/var/cache/llmfleet", "shm": "/dev/shm"}
    container = {
        "name": "engine",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "7200"],
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            {"name": "LLMFLEET_TEST_MODELS", "value": "/models"},
        ],
        "resources": {"requests": {"memory": "6Gi"}, "limits": {"memory": "14Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *({"name": name, "mountPath": path} for name, path in mounts.items()),
            {"name": "models", "mountPath": "/models", "readOnly": True},
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                *(
                    {"name": name, "emptyDir": {"medium": "Memory"} if name == "shm" else {}}
                    for name in mounts
                ),
                {"name": "models", "persistentVolumeClaim": {"claimName": models.CLAIM}},
            ],
        },
    }


def archive() -> bytes:
    """The checkout's parts and pytest, as a compressed tar."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        subprocess.run([*command, "--target", folder, *PYTEST_PACKAGES], check=True)
        tar.add(folder, "pytest")
        for name in COPIED:
            path = local.ROOT / name
            if path.exists():
                tar.add(path, f"checkout/{name}", filter=_without_caches)
    return buffer.getvalue()


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(entry.name).name == "__pycache__" else entry


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog="Whatever else is said goes to the module.",
        allow_abbrev=False,
    )
    parser.add_argument("--module", default="pytest", help="what is run in the pod")
    chosen, arguments = parser.parse_known_args()
    if chosen.module == "pytest":
        # An engine's start is one core's work: two files at a time, each with engines of its own.
        arguments = [*(arguments or ["tests/engine", "-n", "2", "--dist", "loadfile"]),
                     "-m", "engine", "-p", "no:cacheprovider",
                     "--junitxml", "results/engine.xml"]  # fmt: skip
    try:
        local.enter()
        image = local.images().runtime
        models.ensure(NAMESPACE, image)
        where = ("-n", NAMESPACE)
        kubectl("delete", "pod", POD, *where, "--ignore-not-found", "--now", timeout_seconds=90)
        apply(pod(image))
        kubectl("wait", "pod", POD, *where, "--for=condition=Ready", "--timeout=120s",
                timeout_seconds=130)  # fmt: skip
        inside = ["kubectl", "exec", "-i", POD, *where, "--"]
        subprocess.run([*inside, "python", "-c", UNPACK], input=archive(), check=True)
    except (KubectlError, NotInTimeError, subprocess.CalledProcessError) as error:
        print(f"the engine tests could not be started: {error}", file=sys.stderr)
        return 1
    line = [*inside, "python", "-u", "-c", RUN, chosen.module, *arguments]
    status = subprocess.run(line, stdin=subprocess.DEVNULL, check=False).returncode
    try:
        fetch_results(inside)
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    except (KubectlError, subprocess.CalledProcessError, tarfile.TarError) as error:
        print(f"the engine tests left no report: {error}", file=sys.stderr)
        return status or 1
    return status


def fetch_results(inside: list[str]) -> None:
    """Copies the pod's results/ into ours."""
    packed = subprocess.run(
        [*inside, "tar", "-cf", "-", "-C", "/work/checkout/results", "."],
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    ).stdout  # fmt: skip
    results = local.ROOT / "results"
    results.mkdir(exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for entry in tar:
            if entry.isfile() and (source := tar.extractfile(entry)) is not None:
                (results / Path(entry.name).name).write_bytes(source.read())


if __name__ == "__main__":
    sys.exit(main())
