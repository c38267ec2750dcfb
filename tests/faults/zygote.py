"""Starts operator processes quickly: a process that has imported the operator forks them.

Importing the operator costs over a second of processor time; thousands of plans start one each,
and half of them twice. Every fork is an operator process of its own, run by the production ``main``
with its own environment, and is killed with a real SIGKILL.

Protocol on stdin and stdout, a JSON line each: ``{"log": PATH, "environment": {…}, "bug": NAME}``
is answered by ``{"pid": N}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from hack.controlplane.apiserver import REPOSITORY

JSON = dict[str, Any]


class Zygote:
    """The parent's side."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Zygote:
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "operator")])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def start(self, environment: dict[str, str], log: Path, bug: str | None) -> int:
        """Start an operator process and return its id; it dies with the zygote."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"log": str(log), "environment": environment, "bug": bug}
        async with self._one_at_a_time:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
            answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the zygote has ended; its traceback stands above")
        return int(json.loads(answer)["pid"])


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone: a dead operator sends nothing more."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def alive(pid: int) -> bool:
    """Whether the process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _serve() -> None:
    import kubernetes.aio.client  # noqa: PLC0415 - what costs time is imported before any fork
    import kubernetes.aio.config  # noqa: F401, PLC0415

    import llmfleet.__main__  # noqa: F401, PLC0415
    from tests.faults import seeded  # noqa: F401, PLC0415

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    children: list[int] = []
    for line in sys.stdin:
        request: JSON = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_operator(request)
        children.append(pid)
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
    for pid in children:
        kill(pid)


def _become_operator(request: JSON) -> None:
    from llmfleet.__main__ import main  # noqa: PLC0415
    from tests.faults.seeded import plant, plant_next_build  # noqa: PLC0415

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    plant_next_build()
    if request["bug"]:
        plant(request["bug"])
    os._exit(main([]))


if __name__ == "__main__":
    _serve()
