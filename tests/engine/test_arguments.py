"""Each typed value, as the engine's own argument parser and configuration take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfleet_runtime import engine_args
from llmfleet_runtime.config import RuntimeConfig
from llmfleet_runtime.engine_args import Device, Facts
from llmfleet_runtime.launch import Machine, build_launch

GIB = 1024**3


@pytest.fixture(scope="module")
def parser() -> Any:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def parse(parser: Any, engine: dict[str, Any], models: Path, device: Device = Device.CPU) -> Any:
    config = RuntimeConfig.model_validate(
        {
            "schema": 1,
            "revision": "r",
            "model": {"source": "pvc://c/m", "servedName": "tiny"},
            "engine": engine,
        }
    )
    adapters = tuple("/a" for _ in config.engine.lora.adapters)
    launch = build_launch(
        config,
        Facts(
            device=device,
            accelerators=8,
            model_path=str(models / "tiny-llama"),
            draft_path=str(models / "tiny-llama-draft"),
            adapter_paths=adapters,
        ),
        Machine(device=device, memory_limit_bytes=5 * GIB, cpus=2),
        http_port=1,
        host="127.0.0.1",
        shutdown_timeout=4,
        plugin_environment={},
        environment={},
    )
    return parser.parse_args(list(launch.command[3:]))


def configure(parser: Any, engine: dict[str, Any], models: Path) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs

    return AsyncEngineArgs.from_cli_args(parse(parser, engine, models)).create_engine_config()


SPEC = "speculativeDecoding"
ON_CPU = [
    pytest.param({}, "cache_config.kv_cache_memory_bytes", 960 * 2**20, id="cache-size-derived"),
    pytest.param(
        {"kvCache": {"gpuMemoryUtilization": 0.8}},
        "cache_config.kv_cache_memory_bytes",
        2 * GIB - 64 * 2**20,
        id="cache-size-set",
    ),
    pytest.param({"dtype": "float32"}, "model_config.dtype", "torch.float32", id="float32"),
    pytest.param({"dtype": "float16"}, "model_config.dtype", "torch.float16", id="float16"),
    pytest.param({"dtype": "bfloat16"}, "model_config.dtype", "torch.bfloat16", id="bfloat16"),
    pytest.param({"maxModelLen": 512}, "model_config.max_model_len", 512, id="max-model-len"),
    pytest.param({"maxNumSeqs": 3}, "scheduler_config.max_num_seqs", 3, id="max-num-seqs"),
    pytest.param(
        {"quantization": "int8"},
        "model_config.quantization",
        "int8_per_channel_weight_only",
        id="int8",
    ),
    pytest.param({"kvCache": {"dtype": "fp8"}}, "cache_config.cache_dtype", "fp8", id="kv-fp8"),
    pytest.param(
        {"kvCache": {"dtype": "fp8_e5m2"}}, "cache_config.cache_dtype", "fp8_e5m2", id="kv-fp8-e5m2"
    ),
    pytest.param({"kvCache": {"blockSize": 64}}, "cache_config.block_size", 64, id="block-size"),
    pytest.param(
        {"kvCache": {"prefixCaching": True}},
        "cache_config.enable_prefix_caching",
        True,
        id="prefix-on",
    ),
    pytest.param(
        {"kvCache": {"prefixCaching": False}},
        "cache_config.enable_prefix_caching",
        False,
        id="prefix-off",
    ),
    pytest.param(
        {"chunkedPrefill": True}, "scheduler_config.enable_chunked_prefill", True, id="chunked-on"
    ),
    pytest.param(
        {"chunkedPrefill": False},
        "scheduler_config.enable_chunked_prefill",
        False,
        id="chunked-off",
    ),
    pytest.param(
        {"schedulingPolicy": "priority"}, "scheduler_config.policy", "priority", id="priority"
    ),
    pytest.param({SPEC: {"method": "ngram"}}, "speculative_config.method", "ngram", id="ngram"),
    pytest.param(
        {SPEC: {"method": "draft", "draftModel": {"source": "pvc://c/d"}}},
        "speculative_config.method",
        "draft_model",
        id="draft",
    ),
    pytest.param(
        {SPEC: {"method": "ngram", "numSpeculativeTokens": 7}},
        "speculative_config.num_speculative_tokens",
        7,
        id="depth",
    ),
    pytest.param(
        {"lora": {"maxRank": 32, "adapters": [{"name": "a", "source": "pvc://c/a"}]}},
        "lora_config.max_lora_rank",
        32,
        id="lora",
    ),
    pytest.param(
        {"reasoningParser": "qwen3"},
        "structured_outputs_config.reasoning_parser",
        "qwen3",
        id="reasoning-parser",
    ),
    pytest.param({"extraArgs": ["--seed=7"]}, "model_config.seed", 7, id="extra-args"),
    pytest.param(
        {"media": {"allowedDomains": ["a.example", "minio.svc!private"]}},
        "model_config.allowed_media_domains",
        ["a.example", "minio.svc"],
        id="media-domains",
    ),
    pytest.param({}, "model_config.allowed_local_media_path", "", id="no-media-from-files"),
]


@pytest.mark.parametrize(("engine", "attribute", "expected"), ON_CPU)
def test_value_when_cpu_has_it_then_engine_configuration_holds_it(
    parser: Any, models: Path, engine: dict[str, Any], attribute: str, expected: object
) -> None:
    found: Any = configure(parser, engine, models)
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == expected or str(found) == expected


def test_values_when_cuda_tables_then_engine_knows_every_word(parser: Any) -> None:
    choices = {action.dest: set(action.choices or ()) for action in parser._actions}
    assert (
        set(engine_args.KV_CACHE_DTYPE[Device.CUDA].values()) - {None} <= choices["kv_cache_dtype"]
    )
    assert set(engine_args.DTYPE[Device.CUDA].values()) - {None} <= choices["dtype"]
    assert (
        set(engine_args.SCHEDULING[Device.CUDA].values()) - {None} <= choices["scheduling_policy"]
    )
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    for table in engine_args.QUANTIZATION.values():
        assert set(table.values()) - {None} <= set(QUANTIZATION_METHODS)


def test_speculation_methods_when_compared_with_engine_then_known() -> None:
    from typing import get_args

    from vllm.config.speculative import SpeculativeMethod

    known = {
        word for group in get_args(SpeculativeMethod) for word in (get_args(group) or (group,))
    }
    nested = {word for group in known for word in (get_args(group) or (group,))}
    assert set(engine_args.SPECULATION.values()) <= nested


def test_cuda_arguments_when_everything_is_set_then_parsed(parser: Any, models: Path) -> None:
    engine = {
        "parallelism": {"tensor": 4, "pipeline": 2},
        "kvCache": {"gpuMemoryUtilization": 0.85, "offloadGiB": 8, "blockSize": 32, "dtype": "fp8"},
        "quantization": "fp8",
        "toolCallParser": "hermes",
        SPEC: {"method": "eagle3", "draftModel": {"source": "pvc://c/d"}},
    }
    args = parse(parser, engine, models, Device.CUDA)
    assert (args.tensor_parallel_size, args.pipeline_parallel_size) == (4, 2)
    assert (args.gpu_memory_utilization, args.kv_offloading_size) == (0.85, 8)
    assert args.speculative_config["method"] == "eagle3"
    assert args.enable_auto_tool_choice
    assert args.middleware == ["llmfleet_runtime.middleware.EngineMiddleware"]


def test_extra_args_when_allowed_then_exact_names_of_the_engine(parser: Any) -> None:
    known = set(parser._option_string_actions)
    assert engine_args.ALLOWED_EXTRA_ARGS - known == set()


def test_lora_modules_when_parsed_then_name_and_path(parser: Any, models: Path) -> None:
    engine = {"lora": {"adapters": [{"name": "a", "source": "pvc://c/a"}]}}
    args = parse(parser, engine, models)
    assert [(module.name, module.path) for module in args.lora_modules] == [("a", "/a")]
    assert args.served_model_name == ["tiny"]


def test_guard_fields_when_compared_with_engine_then_every_allowed_field_exists_or_is_ignored() -> (
    None
):
    from llmfleet_runtime.guard import ALLOWED_FIELDS
    from llmfleet_runtime.vllm_plugins import engine_endpoints

    accepted_and_ignored = {
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "verbosity",
        "stream_options",
    }
    models = {endpoint.operation: endpoint.request_type for endpoint in engine_endpoints()}
    for operation in ("chat", "responses"):
        missing = (
            ALLOWED_FIELDS[operation] - set(models[operation].model_fields) - accepted_and_ignored
        )
        assert missing == set(), json.dumps(sorted(missing))
