"""The runtime's configuration file (docs/contract.md, Runtime), as typed values.

Unknown keys are ignored, so that an older runtime serves what a newer operator wrote; their names
are reported once in the log. Units and ranges are the resource's own (``kubectl explain
llmdep.spec.engine``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from llmfleet_runtime.errors import Failure, Reason
from llmfleet_runtime.media import HOST_PATTERN


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


class Weights(_Model):
    """Where weights come from."""

    source: str
    revision: str | None = None


class ServedModel(Weights):
    """The served model and the names it answers to."""

    served_name: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name clients may send, the first one being the model's own."""
        return (self.served_name, *self.aliases)


class ConfigMapKey(_Model):
    """One key of a ConfigMap, mounted as a file of that name."""

    name: str
    key: str = "template"


class ChatTemplate(_Model):
    """A chat template that replaces the model's own."""

    config_map_ref: ConfigMapKey | None = None


class KvCache(_Model):
    """The paged cache of keys and values."""

    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    dtype: str = "auto"
    block_size: int | None = Field(default=None, gt=0)
    prefix_caching: bool | None = None
    offload_gib: int = Field(default=0, ge=0, alias="offloadGiB")


class DraftModel(_Model):
    """The model that speculates."""

    source: str | None = None
    revision: str | None = None


class SpeculativeDecoding(_Model):
    """Speculative decoding, by the resource's own names."""

    method: Literal["ngram", "draft", "eagle3", "mtp", "suffix"]
    num_speculative_tokens: int = Field(default=4, ge=1)
    draft_model: DraftModel = DraftModel()


class Parallelism(_Model):
    """How one replica is spread over accelerators."""

    tensor: int = Field(default=1, ge=1)
    pipeline: int = Field(default=1, ge=1)
    data: int = Field(default=1, ge=1)


class LoraAdapter(Weights):
    """One LoRA adapter, served under its own name."""

    name: str


class Lora(_Model):
    """LoRA adapters; none means LoRA is off."""

    max_rank: int = Field(default=16, ge=1)
    adapters: tuple[LoraAdapter, ...] = ()


class Media(_Model):
    """Hosts from which the engine may fetch media; none = only data: URLs."""

    allowed_domains: tuple[Annotated[str, Field(pattern=HOST_PATTERN)], ...] = ()


class Engine(_Model):
    """Typed engine settings; None is the engine's own default."""

    chat_template: ChatTemplate = ChatTemplate()
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = Field(default=None, ge=1)
    max_num_seqs: int | None = Field(default=None, ge=1)
    quantization: str = "none"
    kv_cache: KvCache = KvCache()
    chunked_prefill: bool | None = None
    scheduling_policy: str = "fcfs"
    speculative_decoding: SpeculativeDecoding | None = None
    parallelism: Parallelism = Parallelism()
    lora: Lora = Lora()
    media: Media = Media()
    extra_args: tuple[str, ...] = ()


class RuntimeConfig(_Model):
    """The whole file."""

    schema_version: int = Field(alias="schema")
    deployment: str = ""
    namespace: str = ""
    revision: str
    model: ServedModel
    engine: Engine = Engine()
    drain_timeout_seconds: float = Field(default=300, ge=1)


SUPPORTED_SCHEMA = 1
_IGNORED_ON_PURPOSE = {"accelerator", "engine.image", "secretRef"}


def load_config(path: Path) -> tuple[RuntimeConfig, tuple[str, ...]]:
    """Reads the file; also returns the dotted names of keys this runtime does not know.

    Raises:
        Failure: ``BadConfig``, the file is missing, is no JSON, or does not fit the contract.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(Reason.BAD_CONFIG, f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Failure(Reason.BAD_CONFIG, f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise Failure(Reason.BAD_CONFIG, f"{path} must hold a JSON object")
    if raw.get("schema") != SUPPORTED_SCHEMA:
        raise Failure(
            Reason.BAD_CONFIG,
            f"{path} has schema {raw.get('schema')!r}, this runtime knows {SUPPORTED_SCHEMA}:"
            " set engine.image to a runtime that belongs to the operator",
        )
    try:
        config = RuntimeConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Failure(Reason.BAD_CONFIG, f"{path}: {field}: {first['msg']}") from error
    return config, tuple(_unknown_keys(raw, RuntimeConfig, ""))


def _unknown_keys(raw: Any, model: type[BaseModel], prefix: str) -> list[str]:
    """Dotted names of keys in ``raw`` that ``model`` does not have, nested objects included."""
    if not isinstance(raw, dict):
        return []
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    unknown: list[str] = []
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if key not in fields:
            if name not in _IGNORED_ON_PURPOSE and key not in _IGNORED_ON_PURPOSE:
                unknown.append(name)
            continue
        annotation = fields[key].annotation
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                unknown += _unknown_keys(value, candidate, f"{name}.")
    return unknown
