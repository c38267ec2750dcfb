"""Faults as values, and the calls and watch events that they strike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

JSON = dict[str, Any]


class Kind(StrEnum):
    """What happens. The first group strikes a call, the second a watch."""

    KILL_BEFORE = "kill-before"
    """The operator is killed before the call reaches the API server, and started again."""
    KILL_AFTER = "kill-after"
    """The call is carried out; the operator is killed before it reads the answer."""
    LOSE_REPLY = "lose-reply"
    """The call is carried out and its connection closed without an answer."""
    CONFLICT = "conflict"
    """409 without being carried out (writes only)."""
    THROTTLE = "throttle"
    """429 with ``Retry-After: 1``."""
    OUTAGE = "outage"
    """500 for this call, 503 for everything in the next seconds; watches are cut."""
    LONG_OUTAGE = "long-outage"
    """The same for a minute: long enough for every backoff to have grown."""
    SLOW = "slow"
    """The answer comes seconds late."""
    HOLD = "hold"
    """From a write on nothing passes (Leases and Events do not count); it passes when released."""
    CUT = "cut"
    """The watch ends before an event."""
    GONE = "gone"
    """The watch ends before an event and cannot be resumed: 410."""
    DUPLICATE = "duplicate"
    """An event comes twice."""
    REORDER = "reorder"
    """Two events come in the wrong order."""
    HIDE = "hide"
    """An event is lost; a while later the watch expires (410), as a compacted history does."""
    STALL = "stall"
    """The watch stays open and silent until the client gives it up."""
    STALE_LIST = "stale-list"
    """The operator is killed; the list at its next start is that of its first one."""


ON_WATCH = frozenset(
    {Kind.CUT, Kind.GONE, Kind.DUPLICATE, Kind.REORDER, Kind.HIDE, Kind.STALL, Kind.STALE_LIST}
)
OUTAGE_SECONDS = {Kind.OUTAGE: 4.0, Kind.LONG_OUTAGE: 60.0}
SLOW_SECONDS = 2.0
READING_VERBS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault at one place."""

    kind: Kind
    at: int
    """Which call since the workload's action began, or which event of the watch; from 0."""
    plural: str = ""
    """Whose watch, for faults of watches; HOLD waits for the first write of this kind, if set."""

    def __str__(self) -> str:
        place = f"{self.plural} event {self.at}" if self.plural else f"call {self.at}"
        return f"{self.kind} at {place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request of the operator."""

    verb: str
    """RBAC's word: get, list, watch, create, update, patch, delete."""
    group: str
    plural: str
    name: str
    subresource: str

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.verb not in READING_VERBS

    @property
    def kind(self) -> str:
        """What it is about, as RBAC writes it: ``deployments.apps/status``."""
        group = f".{self.group}" if self.group else ""
        return f"{self.plural}{group}" + (f"/{self.subresource}" if self.subresource else "")

    @property
    def decides(self) -> bool:
        """Whether it changes what is asked of the cluster; Leases and Events only tell."""
        return self.writes and self.plural not in {"leases", "events"}

    def __str__(self) -> str:
        sub = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.plural}{sub} {self.name}".rstrip()


def parse_call(method: str, path: str, watch: bool) -> Call:
    """What a request asks for, in RBAC's words.

    >>> str(parse_call("PATCH", "/apis/apps/v1/namespaces/a/deployments/chat/status", False))
    'patch deployments/status chat'
    >>> str(parse_call("GET", "/api/v1/pods", True))
    'watch pods'
    """
    parts = path.strip("/").split("/")
    group, rest = (
        ("", parts[2:]) if parts[0] == "api" else (parts[1] if parts[1:] else "", parts[3:])
    )
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    plural, name, subresource = (*rest, "", "", "")[:3]
    one = "watch" if watch else "get" if name else "list"
    verb = {"GET": one, "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    return Call(verb=verb[method], group=group, plural=plural, name=name, subresource=subresource)
