"""The whole command line and environment of vLLM's process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmfleet_runtime.config import RuntimeConfig
from llmfleet_runtime.engine_args import (
    Device,
    Facts,
    build_engine_args,
    compiles,
    extra_names,
)
from llmfleet_runtime.errors import Failure, Reason
from llmfleet_runtime.media import CONNECTOR

GIB = 1024**3
PLUGINS = ("llmfleet_endpoints", "llmfleet_stats")
"""Exactly these plugins are loaded: naming one gates all others."""
MIDDLEWARE = "llmfleet_runtime.middleware.EngineMiddleware"
CPU_WORKER = "llmfleet_runtime.cpu_worker.Worker"

CPU_FIXED_BYTES = 2 * GIB
"""What vLLM's processes take on CPU beside weights and cache: 1.9 GiB measured with a
4-million-parameter model (2.9 GiB by its cgroup, 1 GiB of it cache)."""
CPU_DEFAULT_UTILIZATION = 0.6
"""Share of the memory limit used when engine.kvCache.gpuMemoryUtilization is left out."""
CPU_UNLIMITED_CACHE_BYTES = 1 * GIB
"""Cache of a container without a memory limit: a node's whole memory is not ours to take."""
CPU_SMALLEST_CACHE_BYTES = GIB // 8

_SCRUBBED = (
    "HF_TOKEN",  # the supervisor has already fetched; the engine never needs it
    "HUGGING_FACE_HUB_TOKEN",
    "VLLM_API_KEY",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
    "PROMETHEUS_MULTIPROC_DIR",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the container has."""

    device: Device
    memory_limit_bytes: int | None
    cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process to start."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def weights_bytes(path: Path) -> int:
    """Size of the checkpoint's weight files."""
    return sum(
        file.stat().st_size
        for pattern in ("*.safetensors", "*.bin", "*.pt")
        for file in path.glob(pattern)
    )


def cpu_cache_bytes(
    limit_bytes: int | None, utilization: float | None, weights: int, widening: float = 1.0
) -> int:
    """Bytes of KV cache on CPU: utilization x limit − 2 GiB − weights, rounded down to 64 MiB.

    ``widening`` is how much larger the weights are in memory than on disk (2 for a bfloat16
    checkpoint computed in float32).

    Raises:
        Failure: ``OutOfMemory``, less than 128 MiB would be left; names the limit needed.

    >>> cpu_cache_bytes(5 * GIB, None, 8_000_000) // 2**20
    960
    """
    if limit_bytes is None:
        return CPU_UNLIMITED_CACHE_BYTES
    share = utilization or CPU_DEFAULT_UTILIZATION
    taken = CPU_FIXED_BYTES + int(weights * widening)
    step = 64 * 1024**2
    cache = (int(limit_bytes * share) - taken) // step * step
    if cache < CPU_SMALLEST_CACHE_BYTES:
        needed = (taken + CPU_SMALLEST_CACHE_BYTES + step) / share / GIB
        raise Failure(
            Reason.OUT_OF_MEMORY,
            f"the memory limit of {limit_bytes / GIB:.1f} GiB leaves no room for the KV cache"
            f" (engine {CPU_FIXED_BYTES / GIB:.1f} GiB + weights {weights * widening / GIB:.1f}"
            f" GiB, of {share:.0%} of the limit): set"
            f" podTemplate.resources.limits.memory to at least {needed:.1f}Gi",
        )
    return cache


def build_launch(
    config: RuntimeConfig,
    facts: Facts,
    machine: Machine,
    *,
    http_port: int,
    host: str,
    shutdown_timeout: int,
    plugin_environment: Mapping[str, str],
    environment: Mapping[str, str],
) -> Launch:
    """VLLM's command and environment for this configuration.

    Raises:
        Failure: ``UnsupportedOption`` (``engine_args``) or ``OutOfMemory`` (``cpu_cache_bytes``).
    """
    engine = config.engine
    engine_args = build_engine_args(engine, facts)
    added: dict[str, str] = {}
    if machine.device is Device.CPU:
        engine_args.append(f"--worker-cls={CPU_WORKER}")
        # Pinning needs rights a restricted pod lacks, and pods sharing a node would pin to the
        # same cores.
        added["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        added["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS", str(machine.cpus))
        # Threads that spin at barriers stall each other where cores are shared: 4 instead of 79
        # tokens/s, measured on 2 cores under load; on idle cores sleeping costs nothing.
        added["OMP_WAIT_POLICY"] = environment.get("OMP_WAIT_POLICY", "passive")
        added["GOMP_SPINCOUNT"] = environment.get("GOMP_SPINCOUNT", "0")
        if not compiles(engine):
            # --enforce-eager speaks of the model alone: functions of the sampler and of libraries
            # are compiled when the first request reaches them, and without a C++ compiler that
            # request (logprobs, beam search) would end the engine.
            added["TORCH_COMPILE_DISABLE"] = "1"
        explicit = environment.get("VLLM_CPU_KVCACHE_SPACE")
        if not explicit and "--kv-cache-memory-bytes" not in extra_names(engine):
            cache = cpu_cache_bytes(
                machine.memory_limit_bytes,
                engine.kv_cache.gpu_memory_utilization,
                weights_bytes(Path(facts.model_path)),
                2.0 if engine.dtype == "float32" else 1.0,
            )
            engine_args.append(f"--kv-cache-memory-bytes={cache}")
    command = (
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        f"--model={facts.model_path}",
        f"--host={host}",
        f"--port={http_port}",
        f"--middleware={MIDDLEWARE}",
        f"--shutdown-timeout={shutdown_timeout}",
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
        # Left to itself vLLM accepts what any of its grammar libraries reads, but compiles for good
        # with the library that the first request happened to need: others then failed with 500.
        "--structured-outputs-config.backend=xgrammar",
        *engine_args,
        "--served-model-name",
        *config.model.names,
    )
    return Launch(command=command, environment=_environment(environment, added, plugin_environment))


def _environment(
    inherited: Mapping[str, str], added: Mapping[str, str], plugins: Mapping[str, str]
) -> dict[str, str]:
    ours = {
        "VLLM_PLUGINS": ",".join(PLUGINS),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_RESPONSES_API_STORE": "0",
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "0",
        "VLLM_MEDIA_CONNECTOR": CONNECTOR,
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        # Everything has been fetched by now: a start never waits for a registry.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
        "PYTHONUNBUFFERED": "1",
        "VLLM_LOGGING_COLOR": "0",
    }
    kept = {name: value for name, value in inherited.items() if name not in _SCRUBBED}
    return {**kept, **ours, **added, **plugins}
