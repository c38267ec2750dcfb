"""The cluster's own cgroup, in whatever hierarchies the machine has (v1, v2 or both)."""

import os
import time
from pathlib import Path

from hack.cluster.processes import Process, identify

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The top folders: one for pure v2, one per controller for v1."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return sorted(path for path in ROOT.iterdir() if (path / "cgroup.procs").exists())


def create(name: str) -> list[Path]:
    """Makes the cluster's cgroup and its `system` child; returns where its daemons belong."""
    systems = []
    for top in hierarchies():
        own = top / name
        system = own / "system"
        for parent, folder in ((top, own), (own, system)):
            folder.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # v1: empty means no process may join
                if (parent / "cgroup.clone_children").exists() and (folder / file).exists():
                    (folder / file).write_text((parent / file).read_text())
        if top == ROOT:
            for folder in (top, own):
                _enable_controllers(folder)
        systems.append(system)
    return systems


def _enable_controllers(folder: Path) -> None:
    wanted = {"cpu", "cpuset", "memory", "pids", "io"}
    available = set((folder / "cgroup.controllers").read_text().split())
    for controller in sorted(wanted & available):
        (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def members(name: str) -> list[Process]:
    """Every process in the cluster's cgroup, pods included."""
    pids: set[int] = set()
    for top in hierarchies():
        for file in (top / name).rglob("cgroup.procs"):
            try:
                pids.update(int(line) for line in file.read_text().split())
            except OSError:  # the group went away, or (v2) is threaded
                continue
    return [process for pid in sorted(pids) if (process := identify(pid))]


def remove(name: str) -> None:
    """Removes the cluster's cgroup; its processes must have ended."""
    for top in hierarchies():
        for folder, _, _ in os.walk(top / name, topdown=False):
            for _ in range(40):  # the kernel frees a group a moment after its last process
                try:
                    Path(folder).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.05)
                else:
                    break


def remains(name: str) -> list[Path]:
    """The cluster's cgroups that still exist."""
    return [top / name for top in hierarchies() if (top / name).exists()]
