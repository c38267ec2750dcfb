"""Whether the kernel has the huge pages that the router's module asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")


def _are_available() -> bool:
    try:
        size = (_SETTINGS / "hpage_pmd_size").read_text()
        mode = (_SETTINGS / "enabled").read_text()
    except OSError:
        return False
    return int(size) == 2 << 20 and "[never]" not in mode


needs_huge_pages = pytest.mark.skipif(
    not _are_available(), reason="this kernel has no huge pages of 2 MiB, or has them switched off"
)
