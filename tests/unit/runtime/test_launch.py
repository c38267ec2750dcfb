"""vLLM's command line, environment and cache size."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfleet_runtime.config import RuntimeConfig
from llmfleet_runtime.engine_args import Device, Facts
from llmfleet_runtime.errors import Failure, Reason
from llmfleet_runtime.launch import GIB, Launch, Machine, build_launch, cpu_cache_bytes

MIB = 1024**2


def launch(
    tmp_path: Path,
    *,
    engine: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    device: Device = Device.CPU,
    limit: int | None = 5 * GIB,
) -> Launch:
    config = RuntimeConfig.model_validate(
        {
            "schema": 1,
            "revision": "r1",
            "model": {"source": "pvc://c/m", "servedName": "tiny", "aliases": ["t2"]},
            "engine": engine or {},
        }
    )
    return build_launch(
        config,
        Facts(device=device, accelerators=1, model_path=str(tmp_path), has_cxx_compiler=True),
        Machine(device=device, memory_limit_bytes=limit, cpus=2),
        http_port=8000,
        host="0.0.0.0",
        shutdown_timeout=4,
        plugin_environment={"SETTINGS": "s"},
        environment=environment or {},
    )


def test_command_when_built_then_middleware_names_and_shutdown_are_there(tmp_path: Path) -> None:
    command = launch(tmp_path).command
    assert command[1:4] == ("-m", "vllm.entrypoints.openai.api_server", f"--model={tmp_path}")
    assert command[-3:] == ("--served-model-name", "tiny", "t2")
    assert "--middleware=llmfleet_runtime.middleware.EngineMiddleware" in command
    assert "--shutdown-timeout=4" in command
    assert "--structured-outputs-config.backend=xgrammar" in command
    assert "--worker-cls=llmfleet_runtime.cpu_worker.Worker" in command
    assert not any("worker-cls" in word for word in launch(tmp_path, device=Device.CUDA).command)


def test_environment_when_built_then_exactly_our_plugins_and_no_tokens(tmp_path: Path) -> None:
    inherited = {
        "HF_TOKEN": "secret",
        "VLLM_API_KEY": "x",
        "VLLM_PLUGINS": "other",
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_MEDIA_CONNECTOR": "http",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "1",
        "KEPT": "yes",
    }
    environment = launch(tmp_path, environment=inherited).environment
    assert environment["VLLM_PLUGINS"] == "llmfleet_endpoints,llmfleet_stats"
    assert environment["VLLM_ENABLE_RESPONSES_API_STORE"] == "0"
    assert environment["VLLM_SERVER_DEV_MODE"] == "0"
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["VLLM_MEDIA_CONNECTOR"] == "llmfleet"
    assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert environment["KEPT"] == "yes"
    assert environment["SETTINGS"] == "s"
    assert not {"HF_TOKEN", "VLLM_API_KEY"} & set(environment)


def test_cpu_environment_when_built_then_threads_do_not_spin_or_bind(tmp_path: Path) -> None:
    environment = launch(tmp_path).environment
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_NUM_THREADS" not in launch(tmp_path, device=Device.CUDA).environment


def test_cpu_environment_when_nobody_asked_to_compile_then_torch_compiles_nothing(
    tmp_path: Path,
) -> None:
    hopeful = {"TORCH_COMPILE_DISABLE": "0"}
    assert launch(tmp_path, environment=hopeful).environment["TORCH_COMPILE_DISABLE"] == "1"
    asked = launch(tmp_path, engine={"extraArgs": ["--optimization-level=1"]})
    assert "TORCH_COMPILE_DISABLE" not in asked.environment
    assert "TORCH_COMPILE_DISABLE" not in launch(tmp_path, device=Device.CUDA).environment


@pytest.mark.parametrize(
    ("limit", "utilization", "weights", "widening", "expected"),
    [
        pytest.param(None, 0.9, 0, 1.0, GIB, id="no-limit"),
        pytest.param(5 * GIB, None, 0, 1.0, 1024 * MIB, id="default-share"),
        pytest.param(5 * GIB, 0.9, 0, 1.0, 2560 * MIB, id="larger-share"),
        pytest.param(40 * GIB, 0.9, 16 * GIB, 1.0, 18 * GIB, id="weights-count"),
        pytest.param(40 * GIB, 0.9, 16 * GIB, 2.0, 2 * GIB, id="widened-weights-count-twice"),
    ],
)
def test_cpu_cache_when_limit_then_share_less_engine_and_weights(
    limit: int | None, utilization: float | None, weights: int, widening: float, expected: int
) -> None:
    assert cpu_cache_bytes(limit, utilization, weights, widening) == expected


def test_cpu_cache_when_no_room_then_names_the_limit_needed() -> None:
    with pytest.raises(Failure, match=r"limit of 2\.0 GiB .* to at least 3\.6Gi") as caught:
        cpu_cache_bytes(2 * GIB, None, 0)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert cpu_cache_bytes(int(3.7 * GIB), None, 0) > 0


def test_cpu_cache_when_user_sets_it_then_not_derived(tmp_path: Path) -> None:
    derived = launch(tmp_path).command
    assert "--kv-cache-memory-bytes=1073741824" in derived
    by_argument = launch(tmp_path, engine={"extraArgs": ["--kv-cache-memory-bytes=1"]}).command
    by_environment = launch(tmp_path, environment={"VLLM_CPU_KVCACHE_SPACE": "2"}).command
    assert [w for w in by_argument if "kv-cache-memory" in w] == ["--kv-cache-memory-bytes=1"]
    assert not [w for w in by_environment if "kv-cache-memory" in w]
