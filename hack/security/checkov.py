"""checkov in a virtual environment of its own, because it pins a hundred other packages."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from hack.security.rendered import ROOT

JSON = dict[str, Any]

LOCK: Final = ROOT / "requirements" / "checkov.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A policy that an object fails."""

    check: str
    title: str
    resource: str
    """``Kind.namespace.name``."""
    document: str
    """Which rendering it was found in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What checkov said."""

    passed: int
    findings: tuple[Finding, ...]
    objects: int
    skipped: int
    unparsed: int
    version: str


def install() -> Path:
    """The checkov program; installed from the hash-pinned lock if it is not there yet.

    Raises:
        subprocess.CalledProcessError: pip failed, and has said why.
    """
    cache = Path(os.environ.get("LLMFLEET_CACHE") or Path.home() / ".cache" / "llmfleet")
    home = cache / f"checkov-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    done = home / ".installed"
    if not done.exists():
        print(f"installing checkov into {home} (about a minute) …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
        done.touch()
    return home / "bin" / "checkov"


def scan(program: Path, documents: Mapping[str, Sequence[JSON]]) -> Scan:
    """Scan manifests with all of checkov's Kubernetes policies, without any network.

    Args:
        program: what ``install`` returned.
        documents: manifests by the name of their rendering.

    Raises:
        RuntimeError: checkov did not answer with a report; with its words.
    """
    with tempfile.TemporaryDirectory() as directory:
        for name, bodies in documents.items():
            (Path(directory) / f"{name}.yaml").write_text(yaml.safe_dump_all(bodies))
        # Its only contact with the outside is a download of severities; --skip-download omits it.
        command = [str(program), "--directory", directory, "--framework", "kubernetes"]
        command += ["--skip-download", "--quiet", "--compact", "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    try:
        report: JSON = json.loads(done.stdout)
        summary, failed = report["summary"], report["results"]["failed_checks"]
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"checkov: {done.stderr[-2000:] or done.stdout[-2000:]}") from error
    return Scan(
        passed=summary["passed"],
        findings=tuple(
            Finding(
                check=each["check_id"],
                title=each["check_name"],
                resource=each["resource"],
                document=Path(each["file_path"]).stem,
            )
            for each in failed
        ),
        objects=summary["resource_count"],
        skipped=summary["skipped"],
        unparsed=summary["parsing_errors"],
        version=summary["checkov_version"],
    )
