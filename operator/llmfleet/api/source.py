"""Where weights come from: the served model, a draft model, LoRA adapters."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from llmfleet.api.values import SET, Cel, ResourceModel, SecretReference, rules

_HF = "^hf://[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
_PVC = "^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._-]+)*$"
_FILE = "^file:///[A-Za-z0-9._/-]+$"


class SourceScheme(StrEnum):
    """The kinds of places weights are read from."""

    HF = "hf"
    PVC = "pvc"
    FILE = "file"


ModelSource = Annotated[
    str,
    Field(min_length=6, max_length=512),
    Cel(
        "!self.startsWith('oci://') && !self.startsWith('s3://')",
        "oci:// and s3:// sources are not supported yet: use hf://ORG/NAME, pvc://CLAIM/PATH"
        " or file:///PATH",
    ),
    Cel(
        "self.startsWith('oci://') || self.startsWith('s3://')"
        f" || self.matches('{_HF}') || self.matches('{_PVC}') || self.matches('{_FILE}')",
        "must be hf://ORG/NAME, pvc://CLAIM/PATH or file:///PATH",
    ),
    Cel("!self.contains('/..')", "must not contain '..': name the path itself"),
]

Revision = Annotated[
    str,
    Field(max_length=40),
    Cel(
        "self.matches('^[0-9a-f]{7,40}$')",
        "must be a commit: 7 to 40 lower-case hex digits (a branch or tag could load other"
        " weights at the next restart)",
    ),
]

HF_NEEDS_REVISION = Cel(
    "!has(self.source) || !self.source.startsWith('hf://') || has(self.revision)",
    "revision is required for hf:// sources: set it to a commit (7 to 40 hex digits), or a"
    " restart could load other weights",
)


class WeightsReference(ResourceModel):
    """Something that has a source, and a commit where the source is a repository."""

    model_config = ConfigDict(json_schema_extra=rules(HF_NEEDS_REVISION))

    source: ModelSource
    """Where the weights are: `hf://ORG/NAME` (with `revision`), `pvc://CLAIM/PATH` (a
    PersistentVolumeClaim of the namespace, mounted read-only), or `file:///PATH` (a path in the
    image or in a podTemplate volume, only if the operator allows it)."""
    revision: Revision | None = None
    """Commit of the repository, 7 to 40 hex digits. Required for `hf://`, so that a restart
    cannot load other weights."""
    secret_ref: SecretReference | None = None
    """Secret whose key `token` opens a private repository."""

    @property
    def scheme(self) -> SourceScheme:
        """The kind of source; raises ValueError for one this version does not know."""
        return source_scheme(self.source)

    @property
    def claim(self) -> str | None:
        """Name of the PersistentVolumeClaim, None for other sources."""
        return source_claim(self.source)


class ModelSpec(WeightsReference):
    """Which weights are served, and under which names."""

    served_name: Annotated[
        str,
        Field(min_length=1, max_length=128),
        Cel(
            "self.matches('^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$')",
            "must consist of letters, digits and . _ : / -, starting and ending with a letter or"
            " digit",
        ),
        Cel(
            "self == oldSelf",
            "servedName is immutable, since a new revision under another name would answer 404"
            " to every client: add an alias, or create another LLMDeployment",
        ),
    ]
    """Model name that clients send. Immutable: a new revision under another name would answer
    404 to everyone."""
    aliases: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...],
        Field(max_length=16),
        SET,
    ] = ()
    """Further names the model answers to."""


class DraftModel(ResourceModel):
    """The small model that speculates, for methods that need one."""

    model_config = ConfigDict(json_schema_extra=rules(HF_NEEDS_REVISION))

    source: ModelSource | None = None
    """Where the draft weights are; the same kinds as `model.source`."""
    revision: Revision | None = None
    """Commit of the draft repository; required for `hf://`."""
    secret_ref: SecretReference | None = None
    """Secret whose key `token` opens a private repository."""

    @property
    def claim(self) -> str | None:
        """Name of the PersistentVolumeClaim, None for other sources or none."""
        return source_claim(self.source) if self.source else None


class LoraAdapter(WeightsReference):
    """One LoRA adapter, served under its own model name."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=128),
        Cel(
            "self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')",
            "must consist of letters, digits and . _ -",
        ),
    ]
    """Model name that clients send to use this adapter."""


def source_scheme(source: str) -> SourceScheme:
    """Return the scheme of a source.

    Raises:
        ValueError: the scheme is unknown to this version.
    """
    return SourceScheme(source.partition("://")[0])


def source_claim(source: str) -> str | None:
    """Return the claim of a ``pvc://`` source, else None.

    >>> source_claim("pvc://models/tiny-llama")
    'models'
    """
    scheme, _, rest = source.partition("://")
    return rest.partition("/")[0] if scheme == SourceScheme.PVC else None
