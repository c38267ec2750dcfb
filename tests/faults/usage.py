"""What operators ask of the API server, counted where it passes through their proxies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.faults.faults import JSON, READING_VERBS, Call


@dataclass
class Traffic:
    """Requests of one sort and their bodies; headers are not counted."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Usage:
    """Traffic by caller, kind and RBAC verb."""

    def __init__(self) -> None:
        self._traffic: defaultdict[tuple[str, str, str], Traffic] = defaultdict(Traffic)

    def of(self, caller: str, call: Call) -> Traffic:
        """The counts that a call belongs to, to be raised."""
        return self._traffic[(caller, call.kind, call.verb)]

    def add(self, other: Usage) -> None:
        """Take another's counts in."""
        for key, traffic in other._traffic.items():
            mine = self._traffic[key]
            mine.requests += traffic.requests
            mine.sent_bytes += traffic.sent_bytes
            mine.received_bytes += traffic.received_bytes

    def rows(self) -> list[JSON]:
        """The counts one by one, for a report."""
        return [
            {
                "caller": caller, "kind": kind, "verb": verb, "requests": traffic.requests,
                "bytesSent": traffic.sent_bytes, "bytesReceived": traffic.received_bytes,
            }
            for (caller, kind, verb), traffic in sorted(self._traffic.items())
        ]  # fmt: skip

    def writes(self) -> int:
        """Requests that change something."""
        return sum(
            traffic.requests
            for (_, _, verb), traffic in self._traffic.items()
            if verb not in READING_VERBS
        )
