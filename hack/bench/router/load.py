"""Load and measurement: wrk on the load's core, CPU time of the router's process from /proc."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.bench.router import tools

JSON = dict[str, Any]

_CORES = sorted(os.sched_getaffinity(0))
ROUTER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]
SCRIPT = Path(__file__).with_name("requests.lua")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run of wrk against one subject."""

    requests_per_second: float
    seconds: float
    p50_ms: float
    p99_ms: float
    requests: int
    failed: int
    """Connection errors and answers other than 2xx and 3xx."""
    cpu_seconds: float
    """CPU time the router's process used meanwhile; 0 when there is none."""
    events: int
    """Events the engines streamed meanwhile."""


def on_core(core: int, command: list[str]) -> list[str]:
    """The command, held to one core."""
    return ["taskset", "-c", str(core), *command]


@contextmanager
def self_on_load_core() -> Iterator[None]:
    """Keeps this process, which holds our router's agent, off the routers' core.

    Threads that were started meanwhile are let go with it: they and their children had their
    starter's core, and some of them live on.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        pin(os.getpid(), *before)


def pin(pid: int, *cores: int) -> None:
    """Holds all threads of a running process to these cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(task.name), cores)


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu_seconds(pid: int | None) -> float:
    """CPU time of a process and its children so far (schedstat: nanoseconds on a CPU)."""
    if pid is None:
        return 0.0
    files = (f for each in family(pid) for f in Path(f"/proc/{each}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def wrk(
    port: int, *, connections: int, seconds: int, size_bytes: int, stream: bool = False
) -> subprocess.Popen[str]:
    """Starts a closed loop of POSTs on the load's core; ``answered`` has what comes of it.

    Args:
        port: of the router.
        connections: each sends its next request when the last is answered.
        seconds: how long.
        size_bytes: of a prompt.
        stream: ask for streams.
    """
    program, environment = tools.wrk()
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s",
               "-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(size_bytes)]  # fmt: skip
    return subprocess.Popen(
        on_core(LOAD_CORE, [*command, "stream"] if stream else command),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answered(running: subprocess.Popen[str], timeout_seconds: float) -> JSON:
    """Waits for the end of ``wrk`` and returns its figures, those that ``requests.lua`` prints.

    Raises:
        RuntimeError: wrk failed, with its words.
    """
    try:
        out, err = running.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        running.kill()
        out, err = running.communicate()
    lines = [line[5:] for line in out.splitlines() if line.startswith("JSON ")]
    if not lines:
        raise RuntimeError(f"wrk: {err or out}")
    said: JSON = json.loads(lines[0])
    return said


def run_wrk(
    port: int, pid: int | None, *, engine: int, connections: int, seconds: int, size_bytes: int,
    stream: bool = False,
) -> Round:  # fmt: skip
    """One round of ``wrk``, and what the router used meanwhile.

    Args:
        port: of the router.
        pid: of the router, for its CPU time.
        engine: port of an engine, which knows how many events were streamed.
        connections: as in ``wrk``.
        seconds: as in ``wrk``.
        size_bytes: as in ``wrk``.
        stream: as in ``wrk``.

    Raises:
        RuntimeError: wrk failed, with its words.
    """
    before, streamed = cpu_seconds(pid), events(engine)
    running = wrk(
        port, connections=connections, seconds=seconds, size_bytes=size_bytes, stream=stream
    )
    said = answered(running, seconds + 60)
    used, streamed = cpu_seconds(pid) - before, events(engine) - streamed
    return Round(
        requests_per_second=(said["requests"] - said["failed"]) / said["seconds"],
        seconds=said["seconds"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
        requests=said["requests"],
        failed=said["failed"],
        cpu_seconds=used,
        events=streamed,
    )


def events(engine: int) -> int:
    """Events all stub engines have streamed so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{engine}/stub/events", timeout=10) as answer:
        return int(answer.read())


@contextmanager
def stub_engines(ports: list[int], *, chunks: int, gap_ms: float) -> Iterator[None]:
    """Stub engines on the load's core; a stream is ``chunks`` events, ``gap_ms`` apart."""
    command = [tools.stub(), "-ports", ",".join(map(str, ports)), "-chunks", str(chunks)]
    command += ["-gap", f"{gap_ms}ms"]
    with process(on_core(LOAD_CORE, command), stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        if started.stdout.readline().strip() != b"ready":
            raise RuntimeError("the stub engines did not start")
        yield


@contextmanager
def process(
    command: list[str],
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    options: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with the block; ``options`` are added to its environment."""
    started = subprocess.Popen(
        command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL,
        env={**os.environ, **(options or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def settled(pid: int | None) -> None:
    """Waits until the process has been nearly idle for 0.2 s (at most 10 s)."""
    for _ in range(50):
        before = cpu_seconds(pid)
        time.sleep(0.2)
        if cpu_seconds(pid) - before < 0.02:
            return
