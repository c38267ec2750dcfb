"""What is installed is pinned by hash, and no file names a registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
URL = re.compile(r"(?:https?|git\+\w+|ftp)://", re.IGNORECASE)


def requirements(text: str) -> list[str]:
    """The logical lines of a lock, comments aside."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_when_read_then_every_line_is_one_version_with_a_hash(lock: Path) -> None:
    lines = requirements(lock.read_text())
    assert lines
    for line in lines:
        assert re.match(r"^[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^ ;]+", line), line[:100]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line[:100]


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda p: p.name)
def test_requirements_when_read_then_they_name_no_url(path: Path) -> None:
    assert not URL.search(path.read_text())
    assert "index-url" not in path.read_text()


def test_image_when_built_then_only_hash_checked_locks_are_installed() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install [^;&|\n]*", text)
    assert len(installs) >= 5
    for each in installs:
        checked = "--require-hashes" in each or "--no-index" in each or "--index-url" in each
        assert checked, each
    assert "FROM ${BASE_IMAGE}" in text, "the base is a build argument, so that it can be a digest"
