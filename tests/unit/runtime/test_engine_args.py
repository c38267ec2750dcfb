"""The map from typed values to the engine's arguments."""

from __future__ import annotations

import json

import pytest

from llmfleet_runtime.config import Engine
from llmfleet_runtime.engine_args import ALLOWED_EXTRA_ARGS, Device, Facts, build_engine_args
from llmfleet_runtime.errors import Failure, Reason


def facts(device: Device = Device.CPU, **changes: object) -> Facts:
    values: dict[str, object] = {"device": device, "accelerators": 1, "model_path": "/models/m"}
    return Facts(**{**values, **changes})  # type: ignore[arg-type]  # a test's shorthand


def arguments(
    engine: dict[str, object], device: Device = Device.CPU, **changes: object
) -> list[str]:
    return build_engine_args(Engine.model_validate(engine), facts(device, **changes))


CPU, CUDA = Device.CPU, Device.CUDA
SPEC = "speculativeDecoding"


@pytest.mark.parametrize(
    ("device", "engine", "expected"),
    [
        pytest.param(CUDA, {}, [], id="nothing-set-nothing-said"),
        pytest.param(CPU, {}, ["--enforce-eager"], id="cpu-never-compiles"),
        pytest.param(
            CPU,
            {"extraArgs": ["--optimization-level=1"]},
            ["--optimization-level=1"],
            id="cpu-asked-to-compile",
        ),
        pytest.param(
            CPU,
            {"extraArgs": ["--optimization-level=1", "--enforce-eager"]},
            ["--optimization-level=1", "--enforce-eager"],
            id="cpu-asked-for-both",
        ),
        pytest.param(CUDA, {"dtype": "bfloat16"}, ["--dtype=bfloat16"], id="dtype"),
        pytest.param(CUDA, {"dtype": "auto"}, [], id="dtype-auto"),
        pytest.param(CUDA, {"maxModelLen": 8192}, ["--max-model-len=8192"], id="max-model-len"),
        pytest.param(CUDA, {"maxNumSeqs": 256}, ["--max-num-seqs=256"], id="max-num-seqs"),
        pytest.param(CUDA, {"quantization": "none"}, [], id="quantization-none"),
        pytest.param(CUDA, {"quantization": "fp8"}, ["--quantization=fp8"], id="fp8"),
        pytest.param(
            CPU,
            {"quantization": "int8"},
            ["--quantization=int8_per_channel_weight_only", "--enforce-eager"],
            id="int8",
        ),
        pytest.param(CUDA, {"quantization": "awq"}, ["--quantization=awq"], id="awq"),
        pytest.param(CUDA, {"quantization": "gptq"}, ["--quantization=gptq"], id="gptq"),
        pytest.param(
            CUDA,
            {"kvCache": {"gpuMemoryUtilization": 0.9}},
            ["--gpu-memory-utilization=0.9"],
            id="gpu-memory",
        ),
        pytest.param(CUDA, {"kvCache": {"dtype": "fp8"}}, ["--kv-cache-dtype=fp8"], id="kv-fp8"),
        pytest.param(CUDA, {"kvCache": {"blockSize": 64}}, ["--block-size=64"], id="block-size"),
        pytest.param(
            CUDA,
            {"kvCache": {"prefixCaching": True}},
            ["--enable-prefix-caching"],
            id="prefix-caching-on",
        ),
        pytest.param(
            CUDA,
            {"kvCache": {"prefixCaching": False}},
            ["--no-enable-prefix-caching"],
            id="prefix-caching-off",
        ),
        pytest.param(
            CUDA, {"kvCache": {"offloadGiB": 8}}, ["--kv-offloading-size=8"], id="offload"
        ),
        pytest.param(CUDA, {"chunkedPrefill": True}, ["--enable-chunked-prefill"], id="chunked-on"),
        pytest.param(
            CUDA, {"chunkedPrefill": False}, ["--no-enable-chunked-prefill"], id="chunked-off"
        ),
        pytest.param(CUDA, {"schedulingPolicy": "fcfs"}, [], id="fcfs"),
        pytest.param(
            CUDA, {"schedulingPolicy": "priority"}, ["--scheduling-policy=priority"], id="priority"
        ),
        pytest.param(
            CUDA,
            {"toolCallParser": "hermes"},
            ["--enable-auto-tool-choice", "--tool-call-parser=hermes"],
            id="tool-call-parser",
        ),
        pytest.param(
            CUDA, {"reasoningParser": "qwen3"}, ["--reasoning-parser=qwen3"], id="reasoning-parser"
        ),
        pytest.param(CUDA, {"extraArgs": ["--seed=7"]}, ["--seed=7"], id="extra-args"),
    ],
)
def test_arguments_when_value_is_set_then_engine_option(
    device: Device, engine: dict[str, object], expected: list[str]
) -> None:
    assert arguments(engine, device, has_cxx_compiler=True) == expected


def test_arguments_when_parallel_on_gpus_then_sizes() -> None:
    engine = {"parallelism": {"tensor": 2, "pipeline": 2}}
    assert arguments(engine, CUDA, accelerators=4) == [
        "--tensor-parallel-size=2",
        "--pipeline-parallel-size=2",
    ]


def test_arguments_when_lora_then_modules_by_name_and_path() -> None:
    engine = {"lora": {"maxRank": 32, "adapters": [{"name": "a", "source": "pvc://c/a"}]}}
    assert arguments(engine, CUDA, adapter_paths=("/models/c/a",)) == [
        "--enable-lora",
        "--max-lora-rank=32",
        "--lora-modules",
        '{"name": "a", "path": "/models/c/a"}',
    ]


def test_arguments_when_media_hosts_then_the_engines_own_list_without_marks() -> None:
    engine = {"media": {"allowedDomains": ["a.example", "minio.svc!private"]}}
    assert arguments(engine, CUDA) == ["--allowed-media-domains", "a.example", "minio.svc"]
    assert arguments({"media": {"allowedDomains": []}}, CUDA) == []


def test_arguments_when_chat_template_then_its_file() -> None:
    assert arguments({}, CUDA, chat_template_path="/t") == ["--chat-template=/t"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ngram", {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}),
        ("draft", {"method": "draft_model", "model": "/models/d"}),
        ("eagle3", {"method": "eagle3", "model": "/models/d"}),
        ("mtp", {"method": "mtp"}),
        ("suffix", {"method": "suffix"}),
    ],
)
def test_speculation_when_method_then_engine_method(
    method: str, expected: dict[str, object]
) -> None:
    engine = {SPEC: {"method": method, "numSpeculativeTokens": 3}}
    (argument,) = arguments(engine, CUDA, draft_path="/models/d", has_suffix_decoding=True)
    flag, _, value = argument.partition("=")
    assert flag == "--speculative-config"
    assert json.loads(value) == {**expected, "num_speculative_tokens": 3}


@pytest.mark.parametrize(
    ("device", "engine", "sentence"),
    [
        pytest.param(
            CPU, {"quantization": "fp8"}, "fp8 does not work on cpu: use one of none", id="fp8-cpu"
        ),
        pytest.param(
            CUDA, {"quantization": "int3"}, "int3 does not work on cuda", id="unknown-quantization"
        ),
        pytest.param(CPU, {"dtype": "float64"}, "engine.dtype: float64", id="unknown-dtype"),
        pytest.param(
            CPU,
            {"kvCache": {"dtype": "float16"}},
            "engine.kvCache.dtype: float16",
            id="kv-dtype-cpu",
        ),
        pytest.param(CPU, {"kvCache": {"blockSize": 16}}, "use a multiple of 32", id="block-cpu"),
        pytest.param(
            CUDA, {"kvCache": {"blockSize": 96}}, "use one of 16, 32, 64, 128", id="block-cuda"
        ),
        pytest.param(
            CPU, {"kvCache": {"offloadGiB": 1}}, "already is in host memory", id="offload-cpu"
        ),
        pytest.param(CPU, {"parallelism": {"tensor": 2}}, "raise replicas", id="tensor-cpu"),
        pytest.param(
            CUDA, {"parallelism": {"tensor": 2}}, "the pod has 1 accelerators", id="tensor-too-many"
        ),
        pytest.param(
            CUDA,
            {SPEC: {"method": "draft"}},
            "draftModel.source is required",
            id="draft-without-model",
        ),
        pytest.param(
            CUDA, {SPEC: {"method": "suffix"}}, "arctic-inference", id="suffix-without-package"
        ),
        pytest.param(
            CUDA, {"schedulingPolicy": "edf"}, "engine.schedulingPolicy: edf", id="scheduling"
        ),
        pytest.param(
            CUDA,
            {"extraArgs": ["--api-key=x"]},
            "--api-key is not on the list",
            id="extra-forbidden",
        ),
        pytest.param(CUDA, {"extraArgs": ["--see=1"]}, "exact names only", id="extra-abbreviated"),
        pytest.param(
            CUDA, {"extraArgs": ["--dtype=half"]}, "set the typed field", id="extra-typed"
        ),
        pytest.param(CUDA, {"extraArgs": ["--seed=1", "--seed=2"]}, "twice", id="extra-twice"),
        pytest.param(
            CPU,
            {"extraArgs": ["--compilation-config=3"]},
            "--compilation-config makes the engine compile",
            id="compiling-without-a-compiler",
        ),
    ],
)
def test_arguments_when_device_lacks_value_then_refused_with_sentence(
    device: Device, engine: dict[str, object], sentence: str
) -> None:
    with pytest.raises(Failure, match="engine") as caught:
        arguments(engine, device)
    assert caught.value.reason is Reason.UNSUPPORTED_OPTION
    assert sentence in caught.value.message


def test_data_parallelism_when_several_engines_then_refused() -> None:
    with pytest.raises(Failure, match="raise replicas"):
        arguments({"parallelism": {"data": 2}}, CUDA, accelerators=2)


def test_extra_args_when_compared_with_operator_then_same_list() -> None:
    from llmfleet.api.extra_args import ALLOWED_EXTRA_ARGS as OPERATORS  # noqa: PLC0415

    assert set(OPERATORS) == ALLOWED_EXTRA_ARGS
