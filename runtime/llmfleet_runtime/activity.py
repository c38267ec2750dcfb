"""Counters shared between vLLM's process (which writes) and the supervisor (which reads).

A memory-mapped file instead of HTTP: draining must see arrivals even when vLLM's event loop is
too busy to answer. Three 64-bit numbers, each written by one process only: requests ever arrived,
requests in flight, and the supervisor's flag that the engine is being stopped.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_NUMBER = struct.Struct("=q")
_ARRIVED, _IN_FLIGHT, _STOPPING = 0, 8, 16
_SIZE = 24


class Activity:
    """One side of the shared counters."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(descriptor, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def _read(self, at: int) -> int:
        return int(_NUMBER.unpack_from(self._map, at)[0])

    @property
    def arrived(self) -> int:
        """Client requests ever begun."""
        return self._read(_ARRIVED)

    @property
    def in_flight(self) -> int:
        """Client requests begun and not ended."""
        return self._read(_IN_FLIGHT)

    @property
    def stopping(self) -> bool:
        """Whether the engine is being stopped: new requests belong to another pod."""
        return bool(self._read(_STOPPING))

    def begin(self) -> None:
        """Counts a client request."""
        _NUMBER.pack_into(self._map, _ARRIVED, self.arrived + 1)
        _NUMBER.pack_into(self._map, _IN_FLIGHT, self.in_flight + 1)

    def end(self) -> None:
        """Counts its end."""
        _NUMBER.pack_into(self._map, _IN_FLIGHT, self.in_flight - 1)

    def stop(self) -> None:
        """Makes the middleware answer new requests with a retriable 503."""
        _NUMBER.pack_into(self._map, _STOPPING, 1)
