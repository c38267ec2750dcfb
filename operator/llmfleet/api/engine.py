"""Typed engine settings; all of them are part of the revision hash.

A field left out means the engine's own default, unless its description says otherwise. The
runtime maps each value to the engine's own word per device, or refuses it with a sentence.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from llmfleet.api.extra_args import EXTRA_ARGS_RULES
from llmfleet.api.source import DraftModel, LoraAdapter
from llmfleet.api.values import (
    ATOMIC,
    SET,
    Cel,
    ObjectName,
    ResourceModel,
    list_map,
    rules,
)

ToolCallParser = Annotated[
    str,
    Field(max_length=63),
    Cel("self.matches('^[a-z0-9_.-]+$')", "must be the name of one of the engine's parsers"),
]

MediaHost = Annotated[
    str,
    Field(min_length=1, max_length=261),
    Cel(
        "self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*"
        "[a-z]([-a-z0-9]{0,61}[a-z0-9])?(!private)?$')",
        "must be the name of a host in lower case, such as images.example.com (no address, port"
        " or wildcard), with !private behind it if it may have a private address",
    ),
]


class ConfigMapKey(ResourceModel):
    """Names one key of a ConfigMap of the same namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: Annotated[str, Field(max_length=253)] = "template"
    """Key whose value is used."""


class ChatTemplate(ResourceModel):
    """How messages become a prompt; left empty, the model's own template."""

    config_map_ref: ConfigMapKey | None = None
    """ConfigMap that holds a Jinja chat template."""


class KvCache(ResourceModel):
    """The paged cache of keys and values."""

    gpu_memory_utilization: Annotated[float, Field(ge=0.05, le=0.99)] | None = None
    """Share of the accelerator's memory that the engine may use, 0.05 to 0.99. On CPU the size
    of the cache follows the container's memory instead."""
    dtype: Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    """Type of the cached keys and values; `auto` is the model's type."""
    block_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Tokens per block. GPUs take 16, 32, 64 or 128, CPUs a multiple of 32."""
    prefix_caching: bool | None = None
    """Reuse the cache of shared prompt prefixes."""
    offload_gib: Annotated[int, Field(ge=0, le=4096)] = Field(default=0, alias="offloadGiB")
    """GiB of host memory to which cold blocks move; 0 = none."""


class SpeculativeDecoding(ResourceModel):
    """Guess several tokens at once and verify them in one step; answers stay the same."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!(self.method in ['draft', 'eagle3'])"
                " || (has(self.draftModel) && has(self.draftModel.source))",
                "speculativeDecoding.draftModel.source is required for the methods draft and"
                " eagle3: set it, or use method ngram",
            ),
            Cel(
                "self.method in ['draft', 'eagle3']"
                " || !has(self.draftModel) || !has(self.draftModel.source)",
                "speculativeDecoding.draftModel is only used by the methods draft and eagle3:"
                " remove it, or change the method",
            ),
        )
    )

    method: Literal["ngram", "draft", "eagle3", "mtp", "suffix"]
    """Who guesses: `ngram` (repetitions of the prompt), `draft` (a smaller model), `eagle3` (an
    EAGLE-3 head), `mtp` (the model's own multi-token head), `suffix` (a suffix tree)."""
    num_speculative_tokens: Annotated[int, Field(ge=1, le=32)] = 4
    """Tokens guessed per step."""
    draft_model: DraftModel = Field(default_factory=DraftModel)
    """The guessing model; for `draft` and `eagle3` only."""


class Parallelism(ResourceModel):
    """How one replica is spread over the accelerators of its pod."""

    tensor: Annotated[int, Field(ge=1, le=64)] = 1
    """Accelerators that share every layer."""
    pipeline: Annotated[int, Field(ge=1, le=64)] = 1
    """Stages that the layers are cut into."""
    data: Annotated[int, Field(ge=1, le=64)] = 1
    """Copies of the engine inside one pod."""

    @property
    def product(self) -> int:
        """Accelerators one pod needs."""
        return self.tensor * self.pipeline * self.data


class Lora(ResourceModel):
    """LoRA adapters loaded beside the model; none means LoRA is off."""

    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    """Highest rank of any adapter."""
    adapters: Annotated[tuple[LoraAdapter, ...], Field(max_length=32), list_map("name")] = ()
    """Adapters served under their own names."""


class Media(ResourceModel):
    """Pictures, sound and video in requests."""

    allowed_domains: Annotated[tuple[MediaHost, ...], Field(max_length=64), SET] = ()
    """Hosts from which the engine may fetch what a request names by address, by exact name. None =
    media only inside the request, as data: URLs. Redirects are not followed, and no host may
    resolve to a loopback, link-local, private or cluster address, unless its entry ends in
    `!private`."""


class EngineSpec(ResourceModel):
    """Typed settings of the inference engine. Left out = the engine's own default."""

    image: (
        Annotated[
            str,
            Field(max_length=512),
            Cel(
                r"self.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",
                "must name a digest (IMAGE@sha256:…), since a tag could run other code at the"
                " next restart",
            ),
        ]
        | None
    ) = None
    """Runtime image by digest. Left out, the operator's bundled one, resolved once per revision."""
    chat_template: ChatTemplate = Field(default_factory=ChatTemplate)
    """Chat template that replaces the model's own."""
    tool_call_parser: ToolCallParser | None = None
    """The engine's parser for tool calls, such as `hermes` or `llama3_json`; turns automatic tool
    choice on."""
    reasoning_parser: ToolCallParser | None = None
    """The engine's parser for reasoning text, such as `deepseek_r1` or `qwen3`."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the weights while computing; `auto` follows the checkpoint."""
    max_model_len: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Longest prompt plus answer, in tokens. Left out, what the model was trained for."""
    max_num_seqs: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Requests computed at once; more wait."""
    quantization: Literal["none", "fp8", "int8", "awq", "gptq"] = "none"
    """Quantization of the weights; `none` takes the checkpoint as it is."""
    kv_cache: KvCache = Field(default_factory=KvCache)
    """The paged cache of keys and values."""
    chunked_prefill: bool | None = None
    """Cut long prompts into chunks, so that they do not stall other requests' tokens."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    """Order of waiting requests: first come first served, or by priority."""
    speculative_decoding: SpeculativeDecoding | None = None
    """Guess several tokens at once and verify them in one step. Left out, no speculation."""
    parallelism: Parallelism = Field(default_factory=Parallelism)
    """How one replica is spread over the accelerators of its pod."""
    lora: Lora = Field(default_factory=Lora)
    """LoRA adapters loaded beside the model."""
    media: Media = Field(default_factory=Media)
    """Pictures, sound and video in requests."""
    extra_args: Annotated[
        tuple[Annotated[str, Field(min_length=3, max_length=256)], ...],
        Field(max_length=32),
        ATOMIC,
        *EXTRA_ARGS_RULES,
    ] = ()
    """Further engine arguments, `--flag` or `--flag=value`, by exact name from the list in
    docs/resource.md. Arguments that typed fields stand for are refused."""
