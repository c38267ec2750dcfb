"""Generates the CustomResourceDefinition: ``python -m llmfleet.api.crd [--check] PATH``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from llmfleet.api.deployment import (
    CRD_SCHEMA,
    GROUP,
    KIND,
    PLURAL,
    SCHEMA_ANNOTATION,
    SHORT_NAME,
    SINGULAR,
    VERSION,
    LLMDeployment,
)
from llmfleet.api.schema import structural_schema

DEFAULT_PATH = Path("crds") / f"{GROUP}_{PLURAL}.yaml"
HEADER = "# Generated from operator/llmfleet/api by `make generate`; do not edit.\n"

PRINTER_COLUMNS = (
    ("Model", "string", ".spec.model.servedName", "Model name that clients send."),
    ("Ready", "string", ".status.ready", "Ready engine pods of those wanted."),
    ("Phase", "string", ".status.phase", "Healthy, Progressing, Paused or Degraded."),
    ("Weight", "integer", ".status.canaryWeight", "Percent of requests on the new revision."),
    ("URL", "string", ".status.url", "The stable address inside the cluster."),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
)


class _PlainDumper(yaml.SafeDumper):
    """Writes a repeated value out again: anchors would make diffs hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        """Quotes the words that Kubernetes' YAML reads as booleans and PyYAML does not."""
        style = '"' if data in {"y", "Y", "n", "N"} else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_PlainDumper.add_representer(str, _PlainDumper.represent_text)


def build_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition as a manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "annotations": {SCHEMA_ANNOTATION: str(CRD_SCHEMA)},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [_build_version()],
        },
    }


def _build_version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "description": description}
            for name, kind, path, description in PRINTER_COLUMNS
        ],
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "schema": {"openAPIV3Schema": _root_schema()},
    }


def _root_schema() -> dict[str, Any]:
    schema = structural_schema(LLMDeployment)
    schema["required"] = ["spec"]
    # The length is the API server's own limit; it is named for the cost estimate of the rules.
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 253}},
    }
    for name in ("apiVersion", "kind"):
        schema["properties"][name] = {"type": "string"}
    return schema


def render_crd() -> str:
    """Return the manifest as YAML, byte for byte the same on every machine."""
    body = yaml.dump(
        build_crd(), Dumper=_PlainDumper, sort_keys=False, width=100, allow_unicode=True
    )
    return HEADER + body


def main(arguments: list[str] | None = None) -> int:
    """Write the CRD, or with ``--check`` fail when the file differs from the models."""
    parser = argparse.ArgumentParser(prog="python -m llmfleet.api.crd", description=main.__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    options = parser.parse_args(arguments)
    wanted = render_crd()
    present = options.path.read_text() if options.path.exists() else None
    if wanted == present:
        return 0
    if options.check:
        sys.stderr.write(f"{options.path} differs from the models: run `make generate`\n")
        return 1
    options.path.parent.mkdir(parents=True, exist_ok=True)
    options.path.write_text(wanted)
    sys.stderr.write(f"wrote {options.path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
