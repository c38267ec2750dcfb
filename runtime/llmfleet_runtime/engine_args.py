"""Typed values → vLLM's arguments, per device. The only place that knows vLLM's options.

Every table and check here is about vLLM 0.32; tests/engine holds each value against the engine
itself. What the device or the engine lacks is refused with a sentence, before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from llmfleet_runtime.config import Engine, SpeculativeDecoding
from llmfleet_runtime.errors import Failure, Reason
from llmfleet_runtime.media import PRIVATE


class Device(StrEnum):
    """What the engine computes on."""

    CPU = "cpu"
    CUDA = "cuda"


QUANTIZATION = MappingProxyType(
    {
        Device.CPU: {
            "none": None,
            "int8": "int8_per_channel_weight_only",
            "awq": "awq",
            "gptq": "gptq",
        },
        Device.CUDA: {
            "none": None,
            "fp8": "fp8",
            "int8": "int8_per_channel_weight_only",
            "awq": "awq",
            "gptq": "gptq",
        },
    }
)
"""engine.quantization → --quantization; None = no option, the checkpoint as it is."""

KV_CACHE_DTYPE = MappingProxyType(
    {
        Device.CPU: {"auto": None, "fp8": "fp8", "fp8_e4m3": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"},
        Device.CUDA: {
            "auto": None,
            "float16": "float16",
            "bfloat16": "bfloat16",
            "fp8": "fp8",
            "fp8_e4m3": "fp8_e4m3",
            "fp8_e5m2": "fp8_e5m2",
        },
    }
)
"""engine.kvCache.dtype → --kv-cache-dtype."""

DTYPE = MappingProxyType(
    {
        device: {"auto": None, "bfloat16": "bfloat16", "float16": "float16", "float32": "float32"}
        for device in Device
    }
)
"""engine.dtype → --dtype."""

SCHEDULING = MappingProxyType({device: {"fcfs": None, "priority": "priority"} for device in Device})
"""engine.schedulingPolicy → --scheduling-policy."""

SPECULATION = MappingProxyType(
    {
        "ngram": "ngram",
        "draft": "draft_model",
        "eagle3": "eagle3",
        "mtp": "mtp",
        "suffix": "suffix",
    }
)
"""engine.speculativeDecoding.method → the method in --speculative-config."""

CUDA_BLOCK_SIZES = (16, 32, 64, 128)
CPU_BLOCK_MULTIPLE = 32

ALLOWED_EXTRA_ARGS = frozenset(
    {
        "--all2all-backend",
        "--async-scheduling",
        "--attention-backend",
        "--compilation-config",
        "--cpu-offload-gb",
        "--cudagraph-capture-sizes",
        "--disable-cascade-attn",
        "--disable-chunked-mm-input",
        "--disable-custom-all-reduce",
        "--disable-hybrid-kv-cache-manager",
        "--disable-sliding-window",
        "--enable-eplb",
        "--enable-expert-parallel",
        "--enable-mfu-metrics",
        "--enforce-eager",
        "--expert-placement-strategy",
        "--fully-sharded-loras",
        "--generation-config",
        "--hf-overrides",
        "--kv-cache-memory-bytes",
        "--language-model-only",
        "--limit-mm-per-prompt",
        "--long-prefill-token-threshold",
        "--mamba-cache-dtype",
        "--max-cpu-loras",
        "--max-cudagraph-capture-size",
        "--max-logprobs",
        "--max-loras",
        "--max-num-batched-tokens",
        "--mm-processor-cache-gb",
        "--mm-processor-kwargs",
        "--model-impl",
        "--moe-backend",
        "--no-async-scheduling",
        "--num-gpu-blocks-override",
        "--optimization-level",
        "--override-generation-config",
        "--performance-mode",
        "--pooler-config",
        "--prefix-caching-hash-algo",
        "--runner",
        "--safetensors-load-strategy",
        "--scheduler-reserve-full-isl",
        "--seed",
        "--skip-mm-profiling",
        "--stream-interval",
        "--tokenizer-mode",
    }
)
"""Exact names that engine.extraArgs may hold; the operator's api refuses others at apply."""
COMPILING_ARGS = frozenset({"--compilation-config", "--optimization-level"})
"""Those of them that ask the engine to compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the arguments depend on beside the typed values."""

    device: Device
    accelerators: int | None
    """GPUs visible to the pod; None = unknown, then the engine itself finds out."""
    model_path: str
    draft_path: str | None = None
    adapter_paths: tuple[str, ...] = ()
    chat_template_path: str | None = None
    has_suffix_decoding: bool = False
    """Whether arctic-inference, which vLLM's suffix method needs, is installed."""
    has_cxx_compiler: bool = False
    """Whether there is a C++ compiler, which torch needs to compile anything for a CPU."""


def refuse(message: str) -> Failure:
    """The failure of a value that this engine on this device does not have."""
    return Failure(Reason.UNSUPPORTED_OPTION, message)


def build_engine_args(engine: Engine, facts: Facts) -> list[str]:
    """VLLM's arguments for these typed settings, in a stable order.

    Raises:
        Failure: ``UnsupportedOption``, naming field, device and fix.
    """
    arguments: list[str] = []
    for build in _PARTS:
        arguments += build(engine, facts)
    return arguments


def _lookup(
    table: MappingProxyType[Device, dict[str, str | None]]
    | MappingProxyType[Device, dict[str, str]],
    value: str,
    field: str,
    device: Device,
) -> str | None:
    known = table[device]
    if value not in known:
        raise refuse(
            f"{field}: {value} does not work on {device.value}: use one of {', '.join(known)}"
        )
    return known[value]


def _plain(engine: Engine, facts: Facts) -> Iterator[str]:
    for flag, table, value, field in (
        ("--dtype", DTYPE, engine.dtype, "engine.dtype"),
        ("--quantization", QUANTIZATION, engine.quantization, "engine.quantization"),
        ("--scheduling-policy", SCHEDULING, engine.scheduling_policy, "engine.schedulingPolicy"),
    ):
        if (word := _lookup(table, value, field, facts.device)) is not None:
            yield f"{flag}={word}"
    if engine.max_model_len is not None:
        yield f"--max-model-len={engine.max_model_len}"
    if engine.max_num_seqs is not None:
        yield f"--max-num-seqs={engine.max_num_seqs}"


def _kv_cache(engine: Engine, facts: Facts) -> Iterator[str]:
    cache = engine.kv_cache
    word = _lookup(KV_CACHE_DTYPE, cache.dtype, "engine.kvCache.dtype", facts.device)
    if word is not None:
        yield f"--kv-cache-dtype={word}"
    if cache.block_size is not None:
        if facts.device is Device.CPU and cache.block_size % CPU_BLOCK_MULTIPLE:
            raise refuse(
                f"engine.kvCache.blockSize: {cache.block_size} does not work on cpu: use a"
                f" multiple of {CPU_BLOCK_MULTIPLE}, or leave it out"
            )
        if facts.device is Device.CUDA and cache.block_size not in CUDA_BLOCK_SIZES:
            raise refuse(
                f"engine.kvCache.blockSize: {cache.block_size} does not work on cuda: use one of"
                f" {', '.join(map(str, CUDA_BLOCK_SIZES))}, or leave it out"
            )
        yield f"--block-size={cache.block_size}"
    if cache.prefix_caching is not None:
        yield "--enable-prefix-caching" if cache.prefix_caching else "--no-enable-prefix-caching"
    if cache.offload_gib:
        if facts.device is Device.CPU:
            raise refuse(
                "engine.kvCache.offloadGiB: on cpu the cache already is in host memory: remove it"
            )
        yield f"--kv-offloading-size={cache.offload_gib}"
    if facts.device is Device.CUDA and cache.gpu_memory_utilization is not None:
        yield f"--gpu-memory-utilization={cache.gpu_memory_utilization:g}"


def _prefill(engine: Engine, _facts: Facts) -> Iterator[str]:
    if engine.chunked_prefill is None:
        return
    if engine.chunked_prefill:
        yield "--enable-chunked-prefill"
        return
    yield "--no-enable-chunked-prefill"


def _speculation(engine: Engine, facts: Facts) -> Iterator[str]:
    wanted = engine.speculative_decoding
    if wanted is None:
        return
    options = speculation_options(wanted, facts)
    yield "--speculative-config=" + json.dumps(options, sort_keys=True)


def speculation_options(wanted: SpeculativeDecoding, facts: Facts) -> dict[str, str | int]:
    """VLLM's speculative-config object.

    Raises:
        Failure: ``UnsupportedOption``, the method lacks its model or its package.
    """
    field = "engine.speculativeDecoding"
    options: dict[str, str | int] = {
        "method": SPECULATION[wanted.method],
        "num_speculative_tokens": wanted.num_speculative_tokens,
    }
    match wanted.method:
        case "draft" | "eagle3":
            if facts.draft_path is None:
                raise refuse(f"{field}.draftModel.source is required for method {wanted.method}")
            options["model"] = facts.draft_path
        case "ngram":
            # Match the last 2 to 4 tokens against the text so far: shorter matches guess wrong
            # too often, longer ones hardly ever occur.
            options |= {"prompt_lookup_min": 2, "prompt_lookup_max": 4}
        case "suffix" if not facts.has_suffix_decoding:
            raise refuse(
                f"{field}.method: suffix needs the package arctic-inference, which this image"
                " lacks: use ngram, or an engine.image that has it"
            )
        case _:
            pass
    return options


def _parallelism(engine: Engine, facts: Facts) -> Iterator[str]:
    wanted = engine.parallelism
    product = wanted.tensor * wanted.pipeline * wanted.data
    if product == 1:
        return
    if facts.device is Device.CPU:
        raise refuse(
            "engine.parallelism: one pod serves one engine on cpu: set tensor, pipeline and data"
            " to 1 and raise replicas"
        )
    if facts.accelerators is not None and product > facts.accelerators:
        raise refuse(
            f"engine.parallelism: tensor x pipeline x data = {product}, but the pod has"
            f" {facts.accelerators} accelerators: raise accelerator.count or lower parallelism"
        )
    if wanted.data > 1:
        raise refuse(
            "engine.parallelism.data: several engines in one pod are not supported yet: set it to"
            " 1 and raise replicas"
        )
    if wanted.tensor > 1:
        yield f"--tensor-parallel-size={wanted.tensor}"
    if wanted.pipeline > 1:
        yield f"--pipeline-parallel-size={wanted.pipeline}"


def _lora(engine: Engine, facts: Facts) -> Iterator[str]:
    if not engine.lora.adapters:
        return
    yield "--enable-lora"
    yield f"--max-lora-rank={engine.lora.max_rank}"
    yield "--lora-modules"
    for adapter, path in zip(engine.lora.adapters, facts.adapter_paths, strict=True):
        yield json.dumps({"name": adapter.name, "path": path})


def _chat(engine: Engine, facts: Facts) -> Iterator[str]:
    if facts.chat_template_path is not None:
        yield f"--chat-template={facts.chat_template_path}"
    if engine.tool_call_parser is not None:
        yield "--enable-auto-tool-choice"
        yield f"--tool-call-parser={engine.tool_call_parser}"
    if engine.reasoning_parser is not None:
        yield f"--reasoning-parser={engine.reasoning_parser}"


def _media(engine: Engine, _facts: Facts) -> Iterator[str]:
    # The engine takes an empty list for everything; then our media connector alone refuses.
    if engine.media.allowed_domains:
        yield "--allowed-media-domains"
        yield from (entry.removesuffix(PRIVATE) for entry in engine.media.allowed_domains)


def extra_names(engine: Engine) -> set[str]:
    """Names of the options in engine.extraArgs."""
    return {argument.partition("=")[0] for argument in engine.extra_args}


def _extra(engine: Engine, facts: Facts) -> Iterator[str]:
    seen: set[str] = set()
    for argument in engine.extra_args:
        name = argument.partition("=")[0]
        if name not in ALLOWED_EXTRA_ARGS:
            raise refuse(
                f"engine.extraArgs: {name} is not on the list of allowed arguments (exact names"
                " only): remove it, or set the typed field"
            )
        if name in seen:
            raise refuse(f"engine.extraArgs holds {name} twice: remove one")
        seen.add(name)
        yield argument
    if facts.device is Device.CPU:
        yield from _compilation(engine, facts)


def compiles(engine: Engine) -> bool:
    """Whether engine.extraArgs ask the engine to compile; on a GPU it does so anyway."""
    names = extra_names(engine)
    return bool(names & COMPILING_ARGS) and "--enforce-eager" not in names


def _compilation(engine: Engine, facts: Facts) -> Iterator[str]:
    """On CPU compiling takes minutes at every start, and a compiler that our image lacks."""
    if not compiles(engine):
        if "--enforce-eager" not in extra_names(engine):
            yield "--enforce-eager"
        return
    if not facts.has_cxx_compiler:
        name = min(extra_names(engine) & COMPILING_ARGS)
        raise refuse(
            f"engine.extraArgs: {name} makes the engine compile, which on cpu needs a C++ compiler"
            " that this image lacks: remove it, or use an engine.image that has g++"
        )


_PARTS: tuple[Callable[[Engine, Facts], Iterator[str]], ...] = (
    _plain,
    _kv_cache,
    _prefill,
    _speculation,
    _parallelism,
    _lora,
    _chat,
    _media,
    _extra,
)
