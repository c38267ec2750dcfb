"""The cluster of `make cluster-up`, as the demo and the tests need to know it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from hack.cluster.settings import read_settings
from hack.kube.chart import Images
from hack.kube.kubectl import KubectlError

ROOT = Path(__file__).parent.parent.parent


def cluster(command: str, *, quiet: bool = False) -> None:
    """Runs `python -m hack.cluster COMMAND`, its progress on our terminal.

    Raises:
        SystemExit: with its exit code when it failed; it has said why.
    """
    sink = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        [sys.executable, "-m", "hack.cluster", command], cwd=ROOT, check=False, stdout=sink
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def enter() -> None:
    """Puts what `make -s cluster-env` exports into this process's environment.

    Raises:
        KubectlError: no cluster is up.
    """
    done = subprocess.run(
        [sys.executable, "-m", "hack.cluster", "env"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not read_settings().kubeconfig.exists():
        raise KubectlError(f"no cluster is up ({done.stderr.strip()}): run `make cluster-up`")
    for name, value in re.findall(r"^export (\w+)=(.*)$", done.stdout, re.MULTILINE):
        text = " ".join(shlex.split(value))
        os.environ[name] = text.replace("$PATH", os.environ["PATH"])


def images() -> Images:
    """References of our images in the cluster.

    Raises:
        KubectlError: they have not been loaded yet.
    """
    path = read_settings().images_json
    if not path.exists():
        raise KubectlError("the images are not in the cluster yet: run `make images`")
    loaded = json.loads(path.read_text())
    return Images(operator=loaded["operator"], router=loaded["router"], runtime=loaded["runtime"])
