"""What an installed CustomResourceDefinition lacks of the one that the models describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from llmfleet.api.deployment import CRD_SCHEMA, GROUP, PLURAL, SCHEMA_ANNOTATION, VERSION

JSON = dict[str, Any]

CRD_NAME: Final = f"{PLURAL}.{GROUP}"
CRD_PATH: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def outdated_reasons(installed: JSON, expected: JSON) -> tuple[str, ...]:
    """What the installed CRD lacks, as dotted field paths; empty when it is recent enough.

    A CRD with a newer ``llmfleet.dev/schema`` annotation is never outdated: fields are only added
    within v1alpha1.
    """
    annotations = installed["metadata"].get("annotations") or {}
    text = str(annotations.get(SCHEMA_ANNOTATION, "0"))
    number = int(text) if text.isdigit() else 0
    if number > CRD_SCHEMA:
        return ()
    missing = tuple(_missing(version_schema(installed), version_schema(expected), ""))
    if number < CRD_SCHEMA:
        return (f"annotation {SCHEMA_ANNOTATION}: {CRD_SCHEMA}", *missing)
    return missing


def version_schema(crd: JSON) -> JSON:
    """The OpenAPI schema of v1alpha1; ``{}`` when the CRD has no such version."""
    for version in crd["spec"]["versions"]:
        if version["name"] == VERSION:
            schema: JSON = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            return schema
    return {}


def _missing(installed: JSON, expected: JSON, path: str) -> Iterator[str]:
    if installed.get("x-kubernetes-preserve-unknown-fields"):
        return
    present: JSON = installed.get("properties") or {}
    for name, part in (expected.get("properties") or {}).items():
        if name not in present:
            yield f"{path}.{name}".lstrip(".")
        else:
            yield from _missing(present[name], part, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        one, other = installed.get(name), expected.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _missing(one, other, f"{path}[]")
