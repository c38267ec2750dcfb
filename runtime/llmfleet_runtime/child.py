"""vLLM as a child process: its output, its tail, its end, and the orphans it may leave."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque

from llmfleet_runtime.launch import Launch

TAIL_LINES = 600
_LONGEST_LINE_BYTES = 16_384
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Makes orphans of the engine ours, also when this process is not PID 1 (tests)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """One run of the engine, in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
        self._process = process
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = asyncio.create_task(self._read(output))

    @classmethod
    async def start(cls, launch: Launch) -> Child:
        """Starts the process; stdout and stderr come through one pipe, in order.

        Raises:
            OSError: it could not be started.
        """
        # A pipe of our own: asyncio's wait() returns only when its pipes are closed, and an
        # orphan of a dead engine would hold them open for ever.
        read_end, write_end = os.pipe()
        output = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read_end, "rb", 0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                env=dict(launch.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        return cls(process, output)

    @property
    def pid(self) -> int:
        """Process id, also of its group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """Passes output on and keeps the last lines; a line may be arbitrarily long."""
        rest = b""
        while chunk := await stream.read(65_536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.tail.append(line[:_LONGEST_LINE_BYTES].decode(errors="replace"))
            rest = rest[-_LONGEST_LINE_BYTES:]
        if rest:
            self.tail.append(rest.decode(errors="replace"))

    async def wait(self) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        return await self._process.wait()

    async def last_lines(self, timeout_seconds: float = 2.0) -> list[str]:
        """The tail after its end; waits shortly for what is still in the pipe."""
        await asyncio.wait({self._reader}, timeout=timeout_seconds)
        return list(self.tail)

    def terminate(self) -> None:
        """SIGTERM to the API server alone: it shuts its engine processes down in order."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill_group(self) -> None:
        """SIGKILL to whatever is left of its processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Ends everything that is left."""
        self.kill_group()
        if self.running:
            await self._process.wait()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader


def reap_orphans(keep: int | None) -> None:
    """Collects ended processes that were re-parented to us, except the child ``keep``.

    asyncio waits for the child itself, so its status must not be taken away: peek first.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == keep:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)
