"""Whether spec may be rolled out by this operator: the Accepted condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmfleet.api import SourceScheme, clean_line, source_scheme, unbuilt_fields, unknown_fields
from llmfleet.planning.children.naming import canonical_json
from llmfleet.planning.snapshot import Snapshot

LARGEST_BYTES: Final = 256 * 1024
"""Of spec.podTemplate, as canonical JSON in UTF-8. Payload, template and memory of a revision hold
it, and the API server stores no object above 1 to 1.5 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Whether spec is rolled out, and why not."""

    accepted: bool
    reason: str
    message: str


def decide_acceptance(snapshot: Snapshot) -> Acceptance:
    """Check what the API server could not: fields, sources and settings of this operator."""
    unknown = unknown_fields(snapshot.raw)
    if unknown:
        fields = clean_line(", ".join(unknown[:10]))
        return _refuse(
            "UnknownField",
            f"this operator does not know spec.{fields}; what is served stays: upgrade the"
            " operator, or remove the fields",
        )
    size = len(canonical_json((snapshot.raw.get("spec") or {}).get("podTemplate")).encode())
    if size > LARGEST_BYTES:
        return _refuse(
            "TooLarge",
            f"spec.podTemplate has {size:,} bytes of JSON, more than the {LARGEST_BYTES:,} that can"
            " be remembered; what is served stays: put large values into a ConfigMap or Secret, and"
            " name it in spec.podTemplate.volumes or in an env entry's valueFrom",
        )
    for source in _sources(snapshot):
        named = clean_line(source)
        try:
            scheme = source_scheme(source)
        except ValueError:
            return _refuse(
                "InvalidSpec",
                f"{named} is no source this operator knows: use hf://ORG/NAME or pvc://CLAIM/PATH",
            )
        if scheme is SourceScheme.FILE and not snapshot.settings.allow_file_sources:
            return _refuse(
                "SourceNotAllowed",
                f"{named} is a path in the container, which this operator does not allow: use"
                " hf:// or pvc://, or set the chart's allowFileSources: true",
            )
    unbuilt = unbuilt_fields(snapshot.raw)
    if unbuilt:
        return Acceptance(
            accepted=True,
            reason="NotYetBuilt",
            message=f"these are stored but have no effect yet: {', '.join(unbuilt)}",
        )
    return Acceptance(accepted=True, reason="Valid", message="spec can be rolled out")


def _refuse(reason: str, message: str) -> Acceptance:
    return Acceptance(accepted=False, reason=reason, message=message)


def _sources(snapshot: Snapshot) -> list[str]:
    spec = snapshot.deployment.spec
    speculation = spec.engine.speculative_decoding
    draft = speculation.draft_model.source if speculation else None
    adapters = [adapter.source for adapter in spec.engine.lora.adapters]
    return [spec.model.source, *([draft] if draft else []), *adapters]
