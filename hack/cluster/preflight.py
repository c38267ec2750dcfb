"""What must be true before any work starts; each failure is one sentence that names the fix."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from hack.cluster import cgroups, golang, node_network
from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.settings import Settings
from hack.cluster.shell import tail

# Program → the Debian package that has it. Programs of /usr/lib and /usr/sbin are given by path.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "git": "git",  # hack/argocd: what Argo CD reads its manifests with
    "redis-server": "redis-server",  # … and keeps them in
}
_GIB = 1024**3
_BUILD_GIB = 14  # Go's module and build caches
_RUN_GIB = 3
_MEMORY_GIB = 3


def missing_packages() -> list[str]:
    """The Debian packages whose program is not there."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted(
        {
            package
            for program, package in PACKAGES.items()
            if not (
                Path(program).exists() if "/" in program else shutil.which(program, path=search)
            )
        }
    )


def require_disk(folder: Path, needed_gib: float, purpose: str) -> None:
    """Raises ClusterError when a folder's file system has less free space than needed (GiB)."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / _GIB
    if free < needed_gib:
        raise ClusterError(
            f"{purpose} needs {needed_gib:.0f} GiB free on the disk of {there}, which has "
            f"{free:.1f}: free some, or set LLMFLEET_CACHE to a folder on a larger disk"
        )


def require_memory(needed_gib: float, purpose: str) -> None:
    """Raises ClusterError when less memory than needed is available (GiB)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    if available / 1024**2 < needed_gib:
        raise ClusterError(
            f"{purpose} {needed_gib} GiB of memory and "
            f"{available / 1024**2:.1f} are available: end other programs"
        )


def check(settings: Settings) -> None:
    """Checks privilege, system, disk, memory, Go and addresses, before any work.

    Raises:
        ClusterError: The first thing that is missing.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "the local cluster makes namespaces and cgroups: run as root (sudo -E make …)"
        )
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ClusterError(
            "the local cluster runs on x86-64 Linux; elsewhere start a Docker engine and set "
            "LLMFLEET_CLUSTER=kind"
        )
    if not cgroups.hierarchies():
        raise ClusterError("/sys/fs/cgroup is empty: mount the cgroup file systems")
    if (missing := missing_packages()) and not shutil.which("apt-get"):
        raise ClusterError(f"these programs' Debian packages are missing: {', '.join(missing)}")
    outdated = golang.outdated(settings)
    if outdated:
        golang.find_go()
    heavy = any(product.name == "kubernetes" for product in outdated)
    require_disk(settings.cache, _BUILD_GIB if heavy else _RUN_GIB, "the local cluster")
    require_memory(_MEMORY_GIB, "the control plane and a pod or two need")
    if route := node_network.foreign_route(settings):
        raise ClusterError(
            f"another network already uses {settings.node_subnet} ({route}): "
            "set LLMFLEET_CACHE to another folder, which uses another subnet"
        )


def install_packages(missing: list[str], steps: Steps) -> None:
    """Installs Debian packages without letting their services start."""
    if not missing:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    with steps.step(f"install Debian packages {', '.join(missing)}"):
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
                _apt("update", "-q")
            _apt("install", "-q", "-y", "--no-install-recommends", *missing)
        finally:
            if ours:
                policy.unlink(missing_ok=True)


def _apt(*words: str) -> None:
    done = subprocess.run(
        ["apt-get", *words],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"`apt-get {' '.join(words)}` failed: {tail(done.stderr)}")
