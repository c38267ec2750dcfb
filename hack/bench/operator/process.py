"""The operator under measurement: started, asked for its metrics, and looked at in /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from hack.controlplane.apiserver import ApiServer
from hack.processes.operator import OperatorProcess

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_OBJECTS = re.compile(r'^llmfleet_objects\{phase="\w+"\} (\S+)$', re.MULTILINE)
POLL_SECONDS = 0.2
PATIENT_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What the operator used while nothing changed."""

    seconds: float
    cores: float
    """Processor seconds, user and system, per second."""
    resident_bytes: int
    """At the end."""
    peak_bytes: int
    """The largest resident size since its start."""
    writes: float
    """To the API server, the Lease's aside."""


class Operator:
    """One operator process with the chart's rights."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self.process = OperatorProcess(server, directory)

    async def wait_known(self, count: int, seconds: float) -> float:
        """Wait until this many objects have been decided about; returns the monotonic time.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """
        async with asyncio.timeout(seconds):
            while await asyncio.to_thread(self._known) < count:  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(POLL_SECONDS)
        return time.monotonic()

    async def wait_quiet(self, quiet_seconds: float, seconds: float) -> None:
        """Wait until it has written nothing for ``quiet_seconds``.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """
        async with asyncio.timeout(seconds):
            last, since = -1.0, time.monotonic()
            while time.monotonic() - since < quiet_seconds:
                if (writes := await asyncio.to_thread(self.writes)) != last:
                    last, since = writes, time.monotonic()
                await asyncio.sleep(1)

    async def watch_idle(self, seconds: float) -> Idle:
        """Measure for a while."""
        writes, used, began = self.writes(), self._processor_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        return Idle(
            seconds=took,
            cores=(self._processor_seconds() - used) / took,
            resident_bytes=self._memory("VmRSS"),
            peak_bytes=self._memory("VmHWM"),
            writes=self.writes() - writes,
        )

    def writes(self) -> float:
        """To the API server since its start, the Lease's aside.

        Raises:
            httpx.TimeoutException: it did not answer for half a minute.
        """
        for _ in range(PATIENT_TRIES):
            with contextlib.suppress(httpx.TimeoutException):  # busy with thousands of objects
                return sum(self.process.writes().values())
        return sum(self.process.writes().values())

    def processor_seconds(self) -> float:
        """Used since its start, user and system."""
        return self._processor_seconds()

    async def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        await asyncio.to_thread(self.process.stop, signal.SIGTERM)

    def kill(self) -> None:
        """Whatever state it is in."""
        self.process.stop(signal.SIGKILL)

    def _known(self) -> float:
        try:
            # All metrics of 1,000 objects would cost the operator a tenth of what is measured.
            text = self.process.answer("/metrics?name[]=llmfleet_objects").text
        except httpx.HTTPError:
            return 0.0
        return sum(map(float, _OBJECTS.findall(text)))

    def _processor_seconds(self) -> float:
        """proc_pid_stat(5): utime and stime, fields 14 and 15, in clock ticks."""
        text = Path(f"/proc/{self.process.process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def _memory(self, name: str) -> int:
        """A figure of /proc/PID/status, in bytes (it says kB and means 1,024)."""
        text = Path(f"/proc/{self.process.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"/proc has no {name} of the operator: it has ended")
        return int(found[1]) * 1024
