"""The module's huge pages: code that is moved while it runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hack import native

from tests.huge_pages import needs_huge_pages

SOURCE = native.SOURCES / "pages.c"
ALL_BUT_THE_ENDS = 4 << 20
"""Bytes of the program's 6 MiB that lie in whole huge pages, at least."""


def _run(source: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # The header lies beside the first of them, whatever was done to the other.
    sources = [Path(__file__).with_name("pages.c"), source]
    flags = ("-O2", "-std=gnu11", "-pthread", f"-I{native.SOURCES}")
    program = native.compiled("pages", sources, flags)
    return subprocess.run(
        [str(program), *words], capture_output=True, text=True, check=False, timeout=60
    )


def _copied(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done
    return [int(line) for line in done.stdout.split()]


@needs_huge_pages
def test_code_when_moved_while_it_runs_then_it_runs_on_from_the_copy() -> None:
    (size,) = _copied(_run(SOURCE))
    assert size >= ALL_BUT_THE_ENDS


def test_code_when_there_is_no_memory_for_a_copy_then_it_stays_where_it_was() -> None:
    assert _copied(_run(SOURCE, "scarce")) == []


@needs_huge_pages
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("  memcpy((void *)copy, (const void *)start, length);\n", ""),
        ("PROT_READ | PROT_EXEC", "PROT_READ"),
        ("(void *)start) ==", "(void *)(start + kHugePage)) =="),
    ],
    ids=["copy", "right to execute", "place"],
)
def test_code_when_a_mistake_is_made_then_its_threads_tell(
    tmp_path: Path, right: str, wrong: str
) -> None:
    text = SOURCE.read_text()
    assert right in text
    mistaken = tmp_path / "pages.c"
    mistaken.write_text(text.replace(right, wrong))
    assert _run(mistaken).returncode != 0
