"""Taking the cluster down: every process, mount, address and file that it made, nothing else."""

import shutil
import socket
import time
from pathlib import Path

from hack.cluster import cgroups, node_network, processes
from hack.cluster.node import Node, added_nodes, first_node
from hack.cluster.settings import Settings
from hack.cluster.shell import run

# Stopped first, so that nothing starts pods again while they are being ended.
_FIRST = ("kubelet", "kube-proxy", "coredns", "kube-scheduler", "kube-controller-manager")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


def ctr_prefix(node: Node) -> list[str]:
    """The prefix that talks to a node's containerd."""
    return ["ctr", "--address", str(node.containerd_socket), "-n", "k8s.io"]


def recorder_of(node: Node) -> processes.Recorder:
    """The record of a node's daemons; the first one's has the control plane's, too."""
    return processes.Recorder(node.state / "processes", node.state / "logs")


def remove_cluster(settings: Settings, recorder: processes.Recorder) -> None:
    """Stops and removes everything but programs, images and caches; safe to repeat at any state."""
    settings.kubeconfig.unlink(missing_ok=True)  # first: nothing is sent to these addresses again
    for node in added_nodes(settings):
        remove_node(node)
    first = first_node(settings)
    processes.stop(filter(None, map(recorder.find, _FIRST)), grace_seconds=2)
    _stop_pods(first)
    sandboxes = _sandboxes(first)
    if recorder.find("containerd"):
        forget_containers(first)
    processes.stop(recorder.all_alive(), grace_seconds=2)
    processes.stop(cgroups.members(settings.name), grace_seconds=2)
    _remove_mounts(settings.state, settings.run, settings.containerd_root)
    node_network.remove(settings)
    cgroups.remove(settings.name)
    _remove_traces_elsewhere(first, sandboxes)
    for folder in (settings.state, settings.run):
        shutil.rmtree(folder, ignore_errors=True)


def remove_node(node: Node) -> None:
    """Stops and removes everything of a further node; safe to repeat at any state."""
    recorder = recorder_of(node)
    processes.stop(filter(None, map(recorder.find, _FIRST)), grace_seconds=2)
    sandboxes = _sandboxes(node)
    _stop_pods(node)
    processes.stop(cgroups.members(node.cgroup), grace_seconds=2)
    _remove_mounts(node.state, node.run)
    node_network.leave(node)
    cgroups.remove(node.cgroup)
    _remove_traces_elsewhere(node, sandboxes)
    for folder in (node.run, node.state):  # the record last: until then it can be removed again
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(settings: Settings) -> list[str]:
    """What of the cluster still exists; empty after a complete `remove_cluster`."""
    folders = [path for path in (settings.state, settings.run) if path.exists()]
    groups = cgroups.remains(settings.name)
    return [*node_network.leftovers(settings), *map(str, groups), *map(str, folders)]


def node_leftovers(node: Node) -> list[str]:
    """What of a further node still exists; empty after a complete `remove_node`."""
    places = (node.namespace, node.state, node.run, *cgroups.remains(node.cgroup))
    return [str(path) for path in places if path.exists()]


def forget_containers(node: Node) -> bool:
    """Removes every container from containerd's records, keeping images; False if some stay."""
    ctr = ctr_prefix(node)
    for _ in range(20):
        containers = run([*ctr, "containers", "list", "-q"], check=False).split()
        if not containers:
            for name in ("sandboxes", "containers"):
                shutil.rmtree(_cri_folder(node) / name, ignore_errors=True)
            return True
        if tasks := run([*ctr, "tasks", "list", "-q"], check=False).split():
            run([*ctr, "tasks", "delete", "--force", *tasks], check=False)
        run([*ctr, "containers", "delete", *containers], check=False)
        time.sleep(0.1)
    return False


def _cri_folder(node: Node) -> Path:
    return node.containerd_root / "io.containerd.grpc.v1.cri"


def _sandboxes(node: Node) -> list[str]:
    return [path.name for path in _cri_folder(node).glob("sandboxes/*")]


def _stop_pods(node: Node) -> None:
    """Ends the processes of the cgroup that are not our daemons: pods and their pauses."""
    system = f"/{node.cgroup}/system"
    pods = []
    for process in cgroups.members(node.cgroup):
        try:
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
        except OSError:
            continue
        if system not in groups:
            pods.append(process)
    processes.stop(pods, grace_seconds=2)


def _remove_mounts(*folders: Path) -> None:
    ours = tuple(f"{folder}/" for folder in folders)
    lines = Path("/proc/self/mounts").read_text().splitlines()
    targets = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    for target in sorted((t for t in targets if t.startswith(ours)), reverse=True):
        run(["umount", "--lazy", target], check=False)


def _remove_traces_elsewhere(node: Node, sandboxes: list[str]) -> None:
    """What containerd, the CNI library and the kubelet keep in fixed places."""
    for file in node.run.rglob("address") if node.run.exists() else ():
        shim = Path(file.read_text().strip().removeprefix("unix://"))
        if shim.is_relative_to("/run/containerd/s"):
            shim.unlink(missing_ok=True)
    results = Path("/var/lib/cni/results")
    patterns = [f"{node.unit}-*", *(f"cni-loopback-{box}-*" for box in sandboxes)]
    for path in (path for pattern in patterns for path in results.glob(pattern)):
        path.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(node.state):
            link.unlink(missing_ok=True)
    _remove_device_plugin_socket()


def _remove_device_plugin_socket() -> None:
    """The kubelet's registration socket lies at a fixed path; another kubelet may be using it."""
    path = _DEVICE_PLUGINS / "kubelet.sock"
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                return
    for folder in (_DEVICE_PLUGINS, _DEVICE_PLUGINS.parent, Path("/var/log/containers")):
        try:
            folder.rmdir()
        except OSError:  # absent, or holds something of someone else
            return
