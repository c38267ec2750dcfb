"""Processes by record: a pid counts only with its start time, so a recycled pid is safe."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid.

    Attributes:
        pid: As the kernel gave it.
        started_ticks: Field 22 of /proc/PID/stat: clock ticks between boot and start.
    """

    pid: int
    started_ticks: int


def identify(pid: int) -> Process | None:
    """The process now running under a pid; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold spaces and parentheses
    return None if fields[0] in "ZX" else Process(pid=pid, started_ticks=int(fields[19]))


def alive(process: Process) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def stop(processes: Iterable[Process], *, grace_seconds: float) -> None:
    """Sends SIGTERM, waits, and sends SIGKILL to those that remain."""
    waiting = [process for process in processes if alive(process)]
    for number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for process in waiting:
            if alive(process):
                os.kill(process.pid, number)
        deadline = time.monotonic() + patience
        while waiting and time.monotonic() < deadline:
            _reap()
            waiting = [process for process in waiting if alive(process)]
            time.sleep(0.05)
    if waiting:
        raise ClusterError(f"processes {[p.pid for p in waiting]} do not end, even when killed")


def _reap() -> None:
    """Collects ended children of this very process, which would otherwise look alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Recorder:
    """Starts daemons and remembers them in a folder, one file each."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def find(self, name: str) -> Process | None:
        """The recorded daemon, if it still runs."""
        process = self._read(self._records / f"{name}.json")
        return process if process and alive(process) else None

    def all_alive(self) -> list[Process]:
        """Every recorded daemon that still runs."""
        found = (self._read(path) for path in sorted(self._records.glob("*.json")))
        return [process for process in found if process and alive(process)]

    def start(self, name: str, command: Sequence[str], *, cgroups: Sequence[Path]) -> Process:
        """Starts a daemon in its own session and in the given cgroups, its output in a log file."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        # The shell joins the cgroups before anything can fork, then becomes the daemon.
        script = (
            'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@"'
        )
        line = ["sh", "-c", script, "sh", *map(str, cgroups), "--", *command]
        with (self._logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        process = identify(child.pid)
        if process is None:
            raise ClusterError(f"{name} ended at once: {self.last_line(name)}")
        record = {"pid": process.pid, "started_ticks": process.started_ticks}
        (self._records / f"{name}.json").write_text(json.dumps(record))
        return process

    def last_line(self, name: str) -> str:
        """The last line of a daemon's log."""
        path = self._logs / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return f"{lines[-1][:400]} (log: {path})" if lines else f"it wrote nothing to {path}"

    @staticmethod
    def _read(path: Path) -> Process | None:
        try:
            record = json.loads(path.read_text())
            return Process(pid=record["pid"], started_ticks=record["started_ticks"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
