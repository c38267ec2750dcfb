"""How far the pod's downloads are, measured on disk, whatever the hub's client does.

The operator asks for it (docs/contract.md, ``/health``): as long as bytes come, a pod that is not
ready is not taken for one that hangs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Any

BLOCK_BYTES = 512
"""Of ``st_blocks`` (POSIX); files made at their full size, to be filled, take fewer at first."""


class DownloadMeter:
    """Bytes in the cache of downloads, and since when there are no more of them.

    Written by the thread that fetches and by the sampling task, read by the health port; each
    assignment is atomic, and a sample more or less matters to nobody.

    Args:
        folder: where the hub's client puts files, finished or not.
        clock: seconds; only tests give another.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._total: int | None = 0
        self._bytes = 0
        self._most = 0
        self._moved_at: float | None = None

    def begin(self, total: int | None) -> None:
        """A download begins, on top of those before; ``total`` is its size if the hub says so."""
        self._total = None if total is None or self._total is None else self._total + total
        self.sample()
        self._moved_at = self._clock()

    def sample(self) -> int:
        """Measure; the most bytes that were ever there: a file begun anew is no progress."""
        self._bytes = bytes_below(self._folder)
        if self._bytes > self._most:
            self._most = self._bytes
            if self._moved_at is not None:
                self._moved_at = self._clock()
        return self._most

    def report(self) -> dict[str, Any] | None:
        """What ``/health`` says; None as long as nothing was to be downloaded."""
        if self._moved_at is None:
            return None
        return {
            "bytes": self._bytes,
            "totalBytes": self._total,
            "idleSeconds": round(max(0.0, self._clock() - self._moved_at), 1),
        }


def bytes_below(folder: Path) -> int:
    """Bytes that the files below a folder take on disk; links count for nothing."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                about = (Path(parent) / name).lstat()
            except OSError:
                continue  # moved to its place meanwhile
            if S_ISREG(about.st_mode):
                found += min(about.st_size, about.st_blocks * BLOCK_BYTES)
    return found
