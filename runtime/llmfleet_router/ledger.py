"""Reads the ledger: the table in which Envoy's module books what was sent and what became of it.

The layout is that of ``native/ledger.h``. The module writes, this only looks: nothing here can hold
up or cut a request, and the table outlives the agent. A cohort (``Key``) may have several rows, one
of each of Envoy's threads; they are added up here.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

MAGIC: Final = b"llmfleet"
VERSION: Final = 1
SLOT_SECONDS: Final = 5
OUTCOMES: Final = (
    "sent", "first", "answered", "connect", "reset", "error", "cut", "noFirstToken", "refused",
    "badRequest", "notFound", "tooLarge", "unprocessable", "otherClient", "unauthorized",
    "abandoned",
)  # fmt: skip
"""What a row counts, in this order (``enum outcome``)."""
CLASSES: Final = ("split", "young", "header", "preview")
"""Names of cohorts' classes by their number (``enum class``)."""
TIMES: Final = len(CLASSES)
"""The number after: rows that hold a histogram of the time to the first token, by minute."""
TIME_BOUNDS_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0,
    20.0, 40.0, 80.0,
)  # fmt: skip
"""Upper bounds of its buckets; the last bucket has none."""
STILL_CHANGING_SECONDS: Final = 2.0
"""Rows that changed so short a time ago are given again the next time: a thread that was held up
between a count and its time of change would else be missed."""

_HEADER: Final = struct.Struct("<8sIIQQ32x")
_ROW: Final = struct.Struct("<QQQIBB2x16s20I")
_CHANGED: Final = 1
"""Which of a row's 64-bit words is the time of its change."""
_KEY: Final = slice(16, 48)
"""Where its key lies."""


class LedgerError(RuntimeError):
    """There is no table, or not one of this version; the message says which."""


class Key(NamedTuple):
    """What the requests of a cohort have in common."""

    slot: int
    """Seconds since 1970 of the router's clock when they were sent, divided by ``SLOT_SECONDS``."""
    generation: int
    """The trafficGeneration that they were sent under."""
    revision: str
    kind: int
    """Index into ``CLASSES``, or ``TIMES``."""
    size: int
    """Of the body: bits of the number of its whole KiB."""


class Row(NamedTuple):
    """One row of the table."""

    birth: int
    """Which row it is, counted from 1 since the table was made."""
    changed_ms: int
    """When it changed last, by the monotonic clock, in milliseconds."""
    key: Key
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A cohort with all it has counted."""

    key: Key
    counts: tuple[int, ...]
    changed_ms: int


class Ledger:
    """The table at a path, whenever Envoy has made one.

    Args:
        path: of the file that the module makes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        """Inode of the one that is mapped: Envoy's next start makes another one."""
        self._memory: mmap.mmap | None = None

    def epoch(self) -> int:
        """When the table was made, in nanoseconds since 1970; another epoch has forgotten all.

        Raises:
            LedgerError: there is no table.
        """
        epoch: int = _HEADER.unpack_from(self._map())[3]
        return epoch

    def rows(self) -> Iterator[Row]:
        """All rows, in no order.

        Raises:
            LedgerError: there is no table.
        """
        memory, copy = self._copied()
        return _parsed(memory, copy, range(len(copy) // _ROW.size))

    def cohorts_since(self, since_ms: int) -> list[Cohort]:
        """Cohorts that changed after a moment of the monotonic clock, by the time they did so.

        Raises:
            LedgerError: there is no table.
        """
        memory, copy = self._copied()
        # A table has 32,000 rows, and few of them changed: only those become Python objects.
        keys = [copy[at + _KEY.start : at + _KEY.stop] for at in range(0, len(copy), _ROW.size)]
        times = memoryview(copy).cast("Q")[_CHANGED :: _ROW.size // 8]
        fresh = {key for key, changed in zip(keys, times, strict=True) if changed > since_ms}
        found: dict[Key, list[Row]] = defaultdict(list)
        for row in _parsed(memory, copy, (at for at, key in enumerate(keys) if key in fresh)):
            found[row.key].append(row)
        changed = [
            Cohort(
                key=key,
                counts=add(row.counts for row in rows),
                changed_ms=max(row.changed_ms for row in rows),
            )
            for key, rows in found.items()
        ]
        return sorted(changed, key=lambda cohort: (cohort.changed_ms, cohort.key))

    def _copied(self) -> tuple[mmap.mmap, bytes]:
        """The table, and a copy of the rows that were ever made."""
        memory = self._map()
        _, _, capacity, _, made = _HEADER.unpack_from(memory)
        return memory, memory[_HEADER.size : _HEADER.size + min(made, capacity) * _ROW.size]

    def _map(self) -> mmap.mmap:
        try:
            inode = self._path.stat().st_ino
        except OSError as error:
            if self._memory is not None:
                return self._memory  # somebody deleted the file; Envoy writes on
            raise LedgerError(f"Envoy has made no ledger: {error}") from error
        if self._memory is None or inode != self._file:
            self._memory = _mapped(self._path)
            self._file = inode
        return self._memory


def _parsed(memory: mmap.mmap, copy: bytes, places: Iterable[int]) -> Iterator[Row]:
    """Rows of a copy, but for those that are being made anew: what was copied may be of both."""
    for place in places:
        at = place * _ROW.size
        birth, changed, generation, slot, kind, size, revision, *counts = _ROW.unpack_from(copy, at)
        (now,) = struct.unpack_from("<Q", memory, _HEADER.size + at)
        if birth and now == birth:
            name = revision.rstrip(b"\0").decode("ascii", "replace")
            yield Row(birth, changed, Key(slot, generation, name, kind, size), tuple(counts))


def _mapped(path: Path) -> mmap.mmap:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        raise LedgerError(f"the ledger cannot be read: {error}") from error
    if len(memory) < _HEADER.size:
        raise LedgerError("the ledger is cut short")
    magic, version, capacity, _, _ = _HEADER.unpack_from(memory)
    if magic != MAGIC or version != VERSION or len(memory) < _HEADER.size + capacity * _ROW.size:
        raise LedgerError(f"the ledger is not of version {VERSION}: agent and module differ")
    return memory


def add(many: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Counts of several rows, added up.

    >>> add([(1, 2), (3, 4)])
    (4, 6)
    """
    return tuple(map(sum, zip(*many, strict=True)))


def monotonic_ms() -> int:
    """The clock of ``changed_ms``."""
    return time.monotonic_ns() // 1_000_000
