"""Keeps the generated parts of docs/resource.md equal to the models.

``python -m llmfleet.api.reference [--check] PATH`` replaces what stands between
``<!-- generated: NAME -->`` and ``<!-- end -->``; the prose around it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmfleet.api.canonical import BUILT_METRICS, UNBUILT_FIELDS
from llmfleet.api.crd import build_crd
from llmfleet.api.extra_args import ALLOWED_EXTRA_ARGS, TYPED_ARGS
from llmfleet.api.pod_template import RESERVED_ENV_NAMES, RESERVED_MOUNT_PATHS

DEFAULT_PATH = Path("docs") / "resource.md"
JSON = dict[str, Any]
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OPAQUE = ("affinity",)
"""Fields whose inside is Kubernetes' own and is not listed."""
_EXCEPT = {
    "rollout.analysis.metrics": ": every metric but "
    + ", ".join(f"`{name}`" for name in sorted(BUILT_METRICS))
    + ", which has its effect"
}
"""What of an unbuilt field is built."""


def generated_parts() -> dict[str, str]:
    """Return the text of every generated part, by name."""
    version = build_crd()["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    return {
        "spec": _table(properties["spec"]),
        "status": _table(properties["status"]),
        "unbuilt": "".join(f"- `{path}`{_EXCEPT.get(path, '')}\n" for path in UNBUILT_FIELDS),
        "extra_args": "".join(f"- `{name}`\n" for name in ALLOWED_EXTRA_ARGS),
        "typed_args": "| argument | field under `spec` |\n|---|---|\n"
        + "".join(f"| `{flag}` | `{field}` |\n" for flag, field in TYPED_ARGS.items()),
        "reserved_env": ", ".join(f"`{name}`" for name in ("LLMFLEET_*", *RESERVED_ENV_NAMES))
        + "\n",
        "reserved_mounts": ", ".join(f"`{path}`" for path in RESERVED_MOUNT_PATHS) + "\n",
    }


def _table(schema: JSON) -> str:
    lines = ["| field | type | default | what |", "|---|---|---|---|"]
    for path, field, required in _fields(schema, ""):
        default = _default_of(field, required=required)
        what = str(field.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{path}` | {_type_of(field)} | {default} | {what} |")
    return "\n".join(lines) + "\n"


def _fields(schema: JSON, prefix: str) -> Iterator[tuple[str, JSON, bool]]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, field, name in required
        if name in _OPAQUE:
            continue
        items = field.get("items", {})
        yield from _fields(field, f"{path}.")
        yield from _fields(items, f"{path}[].")


def _default_of(field: JSON, *, required: bool) -> str:
    if required:
        return "required"
    default = field.get("default")
    if default in (None, {}, []):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _type_of(field: JSON) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind = str(field.get("type", ""))
    if kind == "array":
        return f"list of {_type_of(field['items'])}, ≤ {field['maxItems']}"
    if "minimum" in field and "maximum" in field:
        return f"{kind}, {field['minimum']} to {field['maximum']}"
    return "map" if "additionalProperties" in field else kind


def refresh(text: str) -> str:
    """Return the page with every generated part replaced.

    Raises:
        KeyError: the page asks for a part that does not exist.
    """
    parts = generated_parts()
    return _BLOCK.sub(lambda match: f"{match[1]}{parts[match[2]]}{match[3]}", text)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` fail when its generated parts are out of date."""
    parser = argparse.ArgumentParser(
        prog="python -m llmfleet.api.reference", description=main.__doc__
    )
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    options = parser.parse_args(arguments)
    present = options.path.read_text()
    wanted = refresh(present)
    if wanted == present:
        return 0
    if options.check:
        sys.stderr.write(f"{options.path} differs from the models: run `make generate`\n")
        return 1
    options.path.write_text(wanted)
    sys.stderr.write(f"wrote {options.path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
