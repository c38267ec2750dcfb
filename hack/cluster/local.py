"""The cluster as ordinary processes: up, down, status."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from hack.cluster import (
    archive,
    certificates,
    cgroups,
    components,
    configs,
    daemons,
    golang,
    node_network,
    preflight,
    processes,
    teardown,
)
from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.node import Node, added_nodes, first_node
from hack.cluster.settings import DNS_SERVICE_IP, FAKE_GPUS, NODE_NAME, Settings
from hack.cluster.shell import run

BUSYBOX_IMAGE = "localhost/llmfleet/busybox:1"
MANIFESTS = Path(__file__).parent / "manifests"


class LocalCluster:
    """A control plane, a node and its pods in one network namespace of this machine."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.node = first_node(settings)
        self.recorder = teardown.recorder_of(self.node)
        parts = components.components(settings)
        self._daemons = daemons.Daemons(self.node, parts, self.recorder)

    # ── up ──────────────────────────────────────────────────────────────────────────────────────

    def up(self) -> None:
        """Starts the cluster, or repairs it, or finds that nothing is to be done.

        Raises:
            ClusterError: Something is missing, or a part does not start; its log is named.
        """
        if self.healthy():
            Steps(total=1).note(f"the cluster is up: {NODE_NAME} is Ready")
            return
        preflight.check(self.settings)
        missing, outdated = preflight.missing_packages(), golang.outdated(self.settings)
        broken = self._state_is_unusable()
        steps = Steps(total=bool(missing) + len(outdated) + bool(broken) + 4)
        preflight.install_packages(missing, steps)
        golang.build(self.settings, outdated, steps)
        if broken:
            with steps.step(f"remove what an earlier cluster left ({broken})"):
                teardown.remove_cluster(self.settings, self.recorder)
        with steps.step("network, certificates, configuration"):
            self._prepare()
        fresh = not self.recorder.find("containerd")
        with steps.step("start the control plane"):
            self._daemons.start("etcd", "containerd")
            self._daemons.start("kube-apiserver")
            self._daemons.wait("kube-apiserver", self.api_ready)
            self._daemons.start("kube-controller-manager", "kube-scheduler")
        with steps.step("start the node"):
            self._daemons.wait("containerd", lambda: containerd_ready(self.node))
            if fresh and not teardown.forget_containers(self.node):
                folder = self.settings.containerd_root
                raise ClusterError(f"containerd cannot forget old containers: delete {folder}")
            self._import_small_images()
            self._daemons.start("kubelet", "kube-proxy", "coredns")
            self._apply_manifests()
            self._daemons.wait("kubelet", self.node_ready, starts=daemons.MOST_STARTS)
        with steps.step(
            f"offer {FAKE_GPUS} GPUs (to the scheduler only) and wait for default accounts"
        ):
            self.offer_gpus()
            self._daemons.wait("kube-controller-manager", self._default_account)
        steps.note(f"the cluster is up after {steps.elapsed_seconds:.0f} s; {NODE_NAME} is Ready")

    def healthy(self) -> bool:
        """Whether every part runs from its present command line and the node is Ready."""
        if not self.settings.kubeconfig.exists() or not node_network.exists(self.node):
            return False
        if not self._daemons.all_run():
            return False
        return self.api_ready() and self.node_ready() and self._has_gpus()

    def _state_is_unusable(self) -> str:
        """Why what is there must go first; empty when it can be repaired or nothing is there."""
        settings = self.settings
        running = self.recorder.all_alive()
        if not running:
            remains = teardown.leftovers(settings)
            return remains[0] if remains else ""
        if not node_network.exists(self.node):
            return "its network namespace is gone"
        if not (settings.state / "pki").exists() or not settings.kubeconfig.exists():
            return "its certificates are gone"
        for name in ("etcd", "containerd"):  # their successors would not find the old pods' state
            if not self.recorder.find(name):
                return f"its {name} has ended"
        return ""

    def _prepare(self) -> None:
        settings = self.settings
        settings.state.mkdir(parents=True, exist_ok=True)
        settings.run.mkdir(parents=True, exist_ok=True)
        settings.volumes.mkdir(parents=True, exist_ok=True)
        node_network.create(settings)
        cgroups.create(settings.name)
        if not (settings.state / "pki" / "service-accounts.key").exists():
            certificates.make_certificates(settings)
        for name in ("controller-manager", "scheduler", "kubelet", "kube-proxy", "coredns"):
            self._write(f"{name}.kubeconfig", certificates.kubeconfig(settings, name))
        for name, text in configs.all_files(settings).items():
            self._write(name, text)
        self._write("kubeconfig", certificates.kubeconfig(settings, "admin"))

    def _write(self, name: str, text: str) -> None:
        write_private(self.settings.state / name, text)

    def api_ready(self) -> bool:
        """Whether the API server answers and is ready."""
        return self._kubectl_quietly("get", "--raw", "/readyz") == "ok"

    def node_ready(self, name: str = NODE_NAME) -> bool:
        """Whether Kubernetes has a node for Ready."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self._kubectl_quietly("get", "node", name, "-o", f"jsonpath={path}") == "True"

    def _default_account(self) -> bool:
        return bool(self._kubectl_quietly("get", "serviceaccount", "default", "-o", "name"))

    def _has_gpus(self) -> bool:
        path = r"jsonpath={.status.allocatable.nvidia\.com/gpu}"
        return self._kubectl_quietly("get", "node", NODE_NAME, "-o", path) == str(FAKE_GPUS)

    def offer_gpus(self, name: str = NODE_NAME) -> None:
        """Tells the scheduler of a node's GPUs, which nobody else knows of."""
        patch = [
            {"op": "add", "path": f"/status/{place}/nvidia.com~1gpu", "value": str(FAKE_GPUS)}
            for place in ("capacity", "allocatable")
        ]
        words = ["patch", "node", name, "--subresource=status", "--type=json"]
        self.kubectl(*words, "-p", json.dumps(patch))

    def _apply_manifests(self) -> None:
        text = (MANIFESTS / "dns.yaml").read_text()
        text = text.replace("NODE_IP", self.settings.node_ip).replace("10.96.0.10", DNS_SERVICE_IP)
        self.kubectl("apply", "--server-side", "-f", "-", stdin=text)

    def _import_small_images(self) -> None:
        present = run([*self.ctr(), "images", "list", "-q"]).split()
        if configs.PAUSE_IMAGE not in present:
            binary = self.settings.binaries / "pause"
            self.import_image(archive.pause(configs.PAUSE_IMAGE, binary))
        if BUSYBOX_IMAGE not in present:
            found = shutil.which("busybox") or "/bin/busybox"
            self.import_image(archive.busybox(BUSYBOX_IMAGE, Path(found)))

    def ctr(self) -> list[str]:
        """The prefix that talks to this cluster's containerd."""
        return teardown.ctr_prefix(self.node)

    def import_image(self, content: bytes) -> None:
        """Loads an image archive held in memory."""
        done = subprocess.run(
            [*self.ctr(), "images", "import", "-"], input=content, capture_output=True, check=False
        )
        if done.returncode:
            raise ClusterError(
                f"loading an image failed: {done.stderr.decode(errors='replace').strip()}"
            )

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Runs kubectl as administrator; raises ClusterError when it fails."""
        program = self.settings.binaries / "kubectl"
        line: list[str | Path] = [
            program,
            f"--kubeconfig={self.settings.kubeconfig}",
            "--request-timeout=20s",
            *words,
        ]
        return run(line, stdin=stdin, timeout_seconds=60)

    def _kubectl_quietly(self, *words: str) -> str:
        try:
            return self.kubectl(*words).strip()
        except ClusterError:
            return ""

    def start_prometheus(self, image: str) -> None:
        """Applies Prometheus in namespace `monitoring` and waits until it is ready."""
        text = (MANIFESTS / "prometheus.yaml").read_text().replace("PROMETHEUS_IMAGE", image)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        words = ["-n", "monitoring", "rollout", "status", "deployment/prometheus", "--timeout=50s"]
        self.kubectl(*words)

    # ── down ────────────────────────────────────────────────────────────────────────────────────

    def down(self) -> None:
        """Stops everything and removes all traces; built programs and images stay in the cache.

        Raises:
            ClusterError: Not root, or something could not be removed; it is named.
        """
        if os.geteuid() != 0:
            raise ClusterError("the local cluster belongs to root: run as root (sudo -E make …)")
        steps = Steps(total=1)
        with steps.step("stop the cluster and remove what it made"):
            teardown.remove_cluster(self.settings, self.recorder)
        if left := teardown.leftovers(self.settings):
            raise ClusterError(f"could not remove {', '.join(left)}")

    # ── outages, for tests ──────────────────────────────────────────────────────────────────────

    def stop_component(self, name: str) -> None:
        """Ends one daemon; `start_component`, or `up`, starts it again."""
        processes.stop(filter(None, [self.recorder.find(name)]), grace_seconds=5)

    def start_component(self, name: str) -> None:
        """Starts one daemon again; returns when the API server answers.

        Raises:
            ClusterError: It ends at once, or the API server is not ready in time.
        """
        self._daemons.start(name)
        self._daemons.wait(name, self.api_ready)

    # ── status ──────────────────────────────────────────────────────────────────────────────────

    def status(self) -> bool:
        """Prints what runs and returns whether the cluster is healthy."""
        settings = self.settings
        if not self.recorder.all_alive():
            print("the local cluster is down; `make cluster-up` starts it")
            return False
        for name in components.components(settings):
            process = self.recorder.find(name)
            state = (
                f"pid {process.pid}, {_resident_mib(process.pid)} MiB" if process else "NOT RUNNING"
            )
            print(f"{name:26} {state}")
        healthy = self.healthy()
        print(f"{'node':26} {NODE_NAME}, {'Ready' if healthy else 'NOT READY'}, {settings.api_url}")
        for node in added_nodes(settings):
            state = "Ready" if self.node_ready(node.name) else "NOT READY"
            print(f"{'further node':26} {node.name}, {state}, pods {node.pod_cidr}")
        print(f"{'kubeconfig':26} {settings.kubeconfig}")
        print(f"{'audit log (writes)':26} {settings.audit_log}")
        print(f"{'logs':26} {settings.state / 'logs'}")
        return healthy


def containerd_ready(node: Node) -> bool:
    """Whether a node's containerd answers."""
    line = [*teardown.ctr_prefix(node), "version"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def write_private(path: Path, text: str) -> None:
    """Writes a file that only root reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _resident_mib(pid: int) -> int:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024**2
