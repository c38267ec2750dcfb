"""The supervisor's life around a stub engine: real processes, ports and signals on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
RUNTIME = HERE.parents[2] / "runtime"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Pod:
    """One supervisor process and its two ports."""

    def __init__(
        self, folder: Path, mode: str, *, drain_seconds: float = 8, source: str | None = None
    ) -> None:
        self.folder, self.mode = folder, mode
        self.http, self.health = free_port(), free_port()
        self.termination_file = folder / "termination-log"
        model = folder / "models" / "claim" / "m"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        config = {
            "schema": 1,
            "revision": "r1",
            "model": {"source": source or "pvc://claim/m", "servedName": "tiny"},
            "drainTimeoutSeconds": drain_seconds,
        }
        (folder / "runtime.json").write_text(json.dumps(config))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> Pod:
        environment = {**os.environ, "PYTHONPATH": str(RUNTIME), "LLMFLEET_DEVICE": "cpu"}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "stub_pod.py"),
            self.mode,
            f"--config={self.folder / 'runtime.json'}",
            f"--models-root={self.folder / 'models'}",
            f"--token-file={self.folder / 'no-token'}",
            f"--termination-log={self.termination_file}",
            "--host=127.0.0.1",
            f"--http-port={self.http}",
            f"--health-port={self.health}",
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return self

    async def ask(self, path: str) -> int:
        """Status on the health port; 0 while nothing listens."""
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(f"http://127.0.0.1:{self.health}{path}")).status_code
            except httpx.TransportError:
                return 0

    async def until(self, path: str, status: int) -> None:
        while await self.ask(path) != status:
            assert self.process is not None
            assert self.process.returncode is None, await self.output()
            await asyncio.sleep(0.05)

    async def tell(self, path: str, **body: float) -> None:
        async with httpx.AsyncClient() as client:
            # an engine told to stop may close before it has answered
            with contextlib.suppress(httpx.TransportError):
                await client.post(f"http://127.0.0.1:{self.http}{path}", json=body)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def output(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode()

    async def end(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), 40)

    @property
    def termination(self) -> dict[str, object]:
        return dict(json.loads(self.termination_file.read_text()))


def children(pid: int) -> list[int]:
    """Process ids."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


StartPod = Callable[..., Awaitable[Pod]]


@pytest.fixture
async def start_pod(tmp_path: Path) -> AsyncIterator[StartPod]:
    pods: list[Pod] = []

    async def start(mode: str = "ok", **settings: object) -> Pod:
        pods.append(Pod(tmp_path, mode, **settings))  # type: ignore[arg-type]  # passed through
        return await pods[-1].start()

    yield start
    for pod in pods:
        if pod.process is not None and pod.process.returncode is None:
            # Its engine is a session of its own, which a supervisor that is killed cannot end.
            engines = children(pod.process.pid)
            pod.process.kill()
            await pod.process.wait()
            for engine in engines:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(engine, signal.SIGKILL)


async def test_pod_when_engine_is_up_then_ready_and_metrics_of_both(start_pod: StartPod) -> None:
    pod = await start_pod()
    await pod.until("/ready", 200)
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{pod.health}/metrics")).text
        deep = await client.get(f"http://127.0.0.1:{pod.health}/health/deep")
    assert 'llmfleet_runtime_info{device="cpu",revision="r1"' in page
    assert "vllm:num_requests_running" in page
    assert "llm_gpu_utilization_percent{" not in page
    assert (deep.status_code, deep.json()["generation"]["ok"]) == (200, True)
    assert deep.json()["queue"] == {"running": 0}


async def test_pod_when_told_to_end_while_quiet_then_exit_0_after_the_minimum(
    start_pod: StartPod,
) -> None:
    pod = await start_pod(drain_seconds=30)
    await pod.until("/ready", 200)
    begun = time.monotonic()
    pod.signal(signal.SIGTERM)
    await pod.until("/ready", 503)
    assert await pod.ask("/health") == 200
    assert await pod.end() == 0
    assert 4.5 < time.monotonic() - begun < 12
    assert not pod.termination_file.exists()


async def test_pod_when_told_to_end_with_a_stream_then_it_finishes_first(
    start_pod: StartPod,
) -> None:
    pod = await start_pod(drain_seconds=30)
    await pod.until("/ready", 200)
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream(
            "POST", f"http://127.0.0.1:{pod.http}/slow", json={"pieces": 70, "seconds": 0.1}
        ) as answer,
    ):
        pod.signal(signal.SIGTERM)
        received = "".join([piece async for piece in answer.aiter_text()])
    assert received == "x" * 70
    assert await pod.end() == 0


async def test_pod_when_stream_outlives_the_drain_then_ends_within_the_timeout(
    start_pod: StartPod,
) -> None:
    pod = await start_pod(drain_seconds=6)
    await pod.until("/ready", 200)
    slow = asyncio.create_task(pod.tell("/slow", pieces=900, seconds=0.1))
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    pod.signal(signal.SIGTERM)
    assert await pod.end() == 0
    assert 4 < time.monotonic() - begun < 6.5
    slow.cancel()


@pytest.mark.parametrize("code", [0, 7])
async def test_pod_when_engine_ends_by_itself_then_exit_1_with_its_reason(
    start_pod: StartPod, code: int
) -> None:
    pod = await start_pod()
    await pod.until("/ready", 200)
    await pod.tell("/stop", code=code)
    assert await pod.end() == 1
    assert pod.termination == {
        "reason": "EngineError",
        "message": f"the engine ended with code {code}: RuntimeError: told to stop",
        "retriable": True,
    }


async def test_pod_when_engine_ends_while_it_warms_up_then_its_end_is_the_reason(
    start_pod: StartPod,
) -> None:
    pod = await start_pod("breaks")
    assert await pod.end() == 1
    assert pod.termination["message"] == "the engine ended with code 9: RuntimeError: told to stop"


async def test_pod_when_engine_fails_to_load_then_exit_1_with_the_cause(
    start_pod: StartPod,
) -> None:
    pod = await start_pod("fails")
    assert await pod.end() == 1
    assert pod.termination["reason"] == "UnsupportedOption"
    assert (
        pod.termination["message"]
        == "the engine ended with code 1: ValueError: fp9 is not supported"
    )


async def test_pod_when_guard_is_missing_then_never_ready_and_exit_1(start_pod: StartPod) -> None:
    pod = await start_pod("unguarded")
    assert await pod.end() == 1
    assert "the body guard is not active" in str(pod.termination["message"])


async def test_pod_when_engine_says_it_is_dead_then_real_503(start_pod: StartPod) -> None:
    pod = await start_pod("dead")
    await pod.until("/ready", 200)
    await pod.tell("/die")
    await pod.until("/ready", 503)
    assert await pod.ask("/health/deep") == 503
    assert await pod.ask("/health") == 503


async def test_pod_when_source_is_missing_then_exit_3_with_its_reason(start_pod: StartPod) -> None:
    pod = await start_pod(source="pvc://claim/other")
    assert await pod.end() == 3
    assert pod.termination["reason"] == "ModelNotFound"


async def test_pod_when_engine_leaves_a_process_then_it_is_gone(start_pod: StartPod) -> None:
    pod = await start_pod("orphan")
    await pod.until("/ready", 200)
    group = children_of(pod.process.pid if pod.process else 0)
    assert len(group) == 1
    orphans = children_of(group[0])
    assert len(orphans) == 1
    await pod.tell("/stop", code=0)
    assert await pod.end() == 1
    assert has_ended(orphans[0])


def children_of(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(word) for word in text.split()]


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that only its new parent can remove."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
