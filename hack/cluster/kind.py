"""The same commands where a Docker engine answers: kind runs the cluster, Docker the builds."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from hack.cluster import golang, imagespec
from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.local import MANIFESTS
from hack.cluster.settings import FAKE_GPUS, Settings
from hack.cluster.shell import run

NAME = "llmfleet"
_NODE = f"{NAME}-control-plane"


def docker_answers() -> bool:
    """Whether a Docker engine is there and lets us in."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


class KindCluster:
    """A kind cluster named llmfleet, with its kubeconfig of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def up(self) -> None:
        """Creates the cluster, or finds it running.

        Raises:
            ClusterError: kind or Docker is missing, or the cluster does not start.
        """
        if not shutil.which("kind"):
            raise ClusterError("`kind` is not installed: install it, or set LLMFLEET_CLUSTER=local")
        if not docker_answers():
            raise ClusterError("`docker info` fails: start Docker, or set LLMFLEET_CLUSTER=local")
        outdated = golang.outdated(self.settings, golang.KIND_PRODUCTS)
        steps = Steps(total=len(outdated) + 2)
        golang.build(self.settings, outdated, steps)
        with steps.step("kind create cluster"):
            self._create()
        with steps.step(f"offer {FAKE_GPUS} GPUs (to the scheduler only)"):
            patch = [
                {"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": f"{FAKE_GPUS}"}
            ]
            words = ["patch", "node", _NODE, "--subresource=status", "--type=json"]
            self.kubectl(*words, "-p", json.dumps(patch))

    def _create(self) -> None:
        settings = self.settings
        for folder in (settings.state, settings.volumes):
            folder.mkdir(parents=True, exist_ok=True)
        if NAME in run(["kind", "get", "clusters"]).split():
            line = ["kind", "export", "kubeconfig", "--name", NAME]
            run([*line, "--kubeconfig", settings.kubeconfig])
            return
        # The volumes' folder has the same path inside, so hostPath volumes work as on a local node.
        mount = {"hostPath": str(settings.volumes), "containerPath": str(settings.volumes)}
        node = {"role": "control-plane", "extraMounts": [mount]}
        config = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [node]}
        line = ["kind", "create", "cluster", "--name", NAME, "--wait", "180s", "--config", "-"]
        run([*line, "--kubeconfig", settings.kubeconfig], stdin=json.dumps(config))

    def down(self) -> None:
        """Deletes the cluster; images stay in Docker."""
        if shutil.which("kind"):
            run(["kind", "delete", "cluster", "--name", NAME])
        shutil.rmtree(self.settings.state, ignore_errors=True)

    def status(self) -> bool:
        """Prints the nodes and returns whether the cluster answers."""
        if not self.settings.kubeconfig.exists():
            print("the kind cluster is down; `make cluster-up` starts it")
            return False
        print(self.kubectl("get", "nodes", "-o", "wide"))
        return True

    def load_images(self) -> dict[str, str]:
        """Builds every image with Docker, loads it, and writes images.json."""
        specs = imagespec.image_specs(os.environ.get("TORCH_INDEX_URL", ""))
        steps = Steps(total=2 * len(specs) + 1)
        references = {}
        for spec in specs:
            with steps.step(f"build image {spec.name}"):
                identifier = self._build(spec)
            reference = f"localhost/llmfleet/{spec.name}:{identifier[:12]}"
            run(["docker", "tag", identifier, reference])
            with steps.step(f"load image {spec.name}"):
                run(["kind", "load", "docker-image", "--name", NAME, reference])
            references[spec.name] = reference
        self.settings.images_json.write_text(json.dumps(references, indent=1) + "\n")
        with steps.step("start Prometheus"):
            text = (MANIFESTS / "prometheus.yaml").read_text()
            text = text.replace("PROMETHEUS_IMAGE", references["prometheus"])
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        return references

    def _build(self, spec: imagespec.ImageSpec) -> str:
        repository = self.settings.repository
        line: list[str | Path] = ["docker", "build", "--quiet", "-f", repository / spec.dockerfile]
        line += ["--target", spec.target] if spec.target else []
        for key, value in spec.arguments:
            line += ["--build-arg", f"{key}={value}"]
        return run([*line, repository]).strip().removeprefix("sha256:")

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Runs kubectl as administrator; raises ClusterError when it fails."""
        program = self.settings.binaries / "kubectl"
        return run([program, f"--kubeconfig={self.settings.kubeconfig}", *words], stdin=stdin)
