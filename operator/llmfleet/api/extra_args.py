"""The engine arguments that ``spec.engine.extraArgs`` may hold, and those that it may not.

The engine accepts unambiguous abbreviations of its options, so names are compared exactly, and
only names listed here pass: options that open files, ports, code or administrative routes are
not listed, and options that a typed field stands for are refused with that field's name.
"""

from __future__ import annotations

from llmfleet.api.values import Cel

ALLOWED_EXTRA_ARGS: tuple[str, ...] = (
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
)
"""Exact names; checked against the pinned engine by tests/engine."""

TYPED_ARGS: dict[str, str] = {
    "--model": "model.source",
    "--revision": "model.revision",
    "--served-model-name": "model.servedName",
    "--chat-template": "engine.chatTemplate",
    "--tool-call-parser": "engine.toolCallParser",
    "--enable-auto-tool-choice": "engine.toolCallParser",
    "--reasoning-parser": "engine.reasoningParser",
    "--dtype": "engine.dtype",
    "--max-model-len": "engine.maxModelLen",
    "--max-num-seqs": "engine.maxNumSeqs",
    "--quantization": "engine.quantization",
    "--gpu-memory-utilization": "engine.kvCache.gpuMemoryUtilization",
    "--kv-cache-dtype": "engine.kvCache.dtype",
    "--block-size": "engine.kvCache.blockSize",
    "--enable-prefix-caching": "engine.kvCache.prefixCaching",
    "--no-enable-prefix-caching": "engine.kvCache.prefixCaching",
    "--kv-offloading-size": "engine.kvCache.offloadGiB",
    "--enable-chunked-prefill": "engine.chunkedPrefill",
    "--no-enable-chunked-prefill": "engine.chunkedPrefill",
    "--scheduling-policy": "engine.schedulingPolicy",
    "--speculative-config": "engine.speculativeDecoding",
    "--spec-method": "engine.speculativeDecoding.method",
    "--spec-model": "engine.speculativeDecoding.draftModel",
    "--spec-tokens": "engine.speculativeDecoding.numSpeculativeTokens",
    "--tensor-parallel-size": "engine.parallelism.tensor",
    "--pipeline-parallel-size": "engine.parallelism.pipeline",
    "--data-parallel-size": "engine.parallelism.data",
    "--enable-lora": "engine.lora.adapters",
    "--lora-modules": "engine.lora.adapters",
    "--max-lora-rank": "engine.lora.maxRank",
    "--allowed-media-domains": "engine.media.allowedDomains",
}
"""Engine options that typed fields stand for, with the field to use instead (under ``spec``)."""

_SYNTAX = "^--[a-z0-9]+(-[a-z0-9]+)*(=.*)?$"
_NAME = "a.split('=')[0]"
_TYPED = "{" + ", ".join(f"'{flag}': '{field}'" for flag, field in TYPED_ARGS.items()) + "}"

EXTRA_ARGS_RULES: tuple[Cel, ...] = (
    Cel(
        f"self.all(a, a.matches('{_SYNTAX}'))",
        "engine.extraArgs entries must be --flag or --flag=value, one argument per entry",
    ),
    Cel(
        f"!self.exists(a, {_NAME} in {_TYPED})",
        "engine.extraArgs must not repeat a typed field: set the field instead",
        f"'engine.extraArgs must not repeat a typed field: set spec.' + {_TYPED}"
        f"[self.filter(a, {_NAME} in {_TYPED})[0].split('=')[0]] + ' instead of '"
        f" + self.filter(a, {_NAME} in {_TYPED})[0].split('=')[0]",
    ),
    Cel(
        f"self.all(a, {_NAME} in {list(ALLOWED_EXTRA_ARGS)} || {_NAME} in {_TYPED})",
        "engine.extraArgs holds an argument that is not on the list in docs/resource.md: remove it",
        f"'engine.extraArgs: ' + self.filter(a, !({_NAME} in {list(ALLOWED_EXTRA_ARGS)}))[0]"
        ".split('=')[0] + ' is not on the list of allowed arguments in docs/resource.md"
        " (exact names only): remove it'",
    ),
    Cel(
        f"self.map(a, {_NAME}).all(n, self.filter(a, {_NAME} == n).size() == 1)",
        "engine.extraArgs must not hold the same argument twice: remove one",
    ),
)
