"""The last known state of one kind: what an informer cache holds.

Read your own writes: the answer of a write is put in here at once, and what is older about the same
object is ignored, so the next reconcile never decides from a state before its own write.
resourceVersions of one kind are compared as numbers, which the API has promised since 1.35 and
every etcd-backed server has always kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmfleet.cluster.kinds import OWNER_LABEL
from llmfleet.planning.snapshot import JSON

Owner = tuple[str, str]
"""Namespace and name of an LLMDeployment."""

T = TypeVar("T")


def version_number(resource_version: str | None) -> int:
    """A resourceVersion as a number; -1 when there is none or it is not a number."""
    return int(resource_version) if resource_version and resource_version.isdigit() else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list on its way in: parsed whole, it would be many times as large as what is kept of it."""

    take: Callable[[JSON], None]
    """Takes one object; owners of what has changed are woken."""
    end: Callable[[], None]
    """The list is complete: what was not in it is gone. A list that breaks off is not ended."""


class ObjectStore(Generic[T]):
    """Objects of one kind by namespace and name, indexed by the LLMDeployment they belong to.

    Args:
        convert: what to keep of an object, without what no decision looks at: a change of that
            alone wakes nobody. None: nothing.
        wake: called with the owner of every object that others changed.
    """

    def __init__(self, convert: Callable[[JSON], T], wake: Callable[[Owner], None]) -> None:
        self._convert = convert
        self._wake = wake
        self._kept: dict[tuple[str, str], Kept[T]] = {}
        self._by_owner: dict[Owner, set[tuple[str, str]]] = defaultdict(set)
        self._deleted_uids: dict[str, int] = {}
        self._listed_at: dict[str | None, int] = {}

    def of(self, owner: Owner) -> list[Kept[T]]:
        """All objects of an LLMDeployment, by name."""
        names = sorted(self._by_owner.get(owner, ()))
        return [self._kept[name] for name in names]

    def owners(self) -> list[Owner]:
        """Every LLMDeployment that has any."""
        return sorted(self._by_owner)

    def version(self, namespace: str, name: str) -> int:
        """The resourceVersion held, -1 when the object is not here."""
        entry = self._kept.get((namespace, name))
        return -1 if entry is None else entry.version

    def begin_list(self, list_version: str | None, namespace: str | None = None) -> Listing:
        """Begin to take a complete list, page by page, in place of everything held.

        With ``namespace`` the list is complete for that namespace only.

        What is newer than the list (our own writes meanwhile) stays; so do our own deletions.
        A list older than the one before means that etcd was restored: nothing held counts then.
        """
        at = version_number(list_version)
        if at < self._listed_at.get(namespace, -1):
            for name in self._names_in(namespace):
                self._kept[name].version = -1
            self._deleted_uids.clear()
        listed: set[tuple[str, str]] = set()

        def take(body: JSON) -> None:
            listed.add(_name(body))
            self.put(body)

        def end() -> None:
            self._listed_at[namespace] = at
            for name in self._names_in(namespace):
                if name not in listed and self._kept[name].version <= at:
                    self._wake(self._remove(name))
            self._deleted_uids = {uid: v for uid, v in self._deleted_uids.items() if v > at}

        return Listing(take=take, end=end)

    def _names_in(self, namespace: str | None) -> list[tuple[str, str]]:
        return [name for name in self._kept if namespace is None or name[0] == namespace]

    def put(self, body: JSON) -> None:
        """Take one object unless something newer is held; its owner is woken."""
        if self._take(body):
            self._wake(self._kept[_name(body)].owner)

    def put_own(self, body: JSON) -> None:
        """Take the answer of our own read or write; who asked knows, so nobody is woken."""
        self._take(body)

    def _take(self, body: JSON) -> bool:
        """Keep it unless something newer is held; whether a decision may come out otherwise."""
        name, meta = _name(body), body["metadata"]
        version = version_number(meta.get("resourceVersion"))
        held = self._kept.get(name)
        if meta["uid"] in self._deleted_uids or (held is not None and held.version >= version >= 0):
            return False
        owner = (name[0], (meta.get("labels") or {}).get(OWNER_LABEL, ""))
        if held is not None and held.owner != owner:
            self._wake(self._remove(name))
        kept = Kept(self._convert(body), version, meta["uid"], owner)
        self._kept[name] = kept
        self._by_owner[owner].add(name)
        if held is None:
            return kept.value is not None
        return (held.value, held.uid, held.owner) != (kept.value, kept.uid, owner)

    def remove(self, body: JSON) -> None:
        """Forget an object that a watch reported as deleted, unless a newer one has its name."""
        name, uid = _name(body), body["metadata"]["uid"]
        self._deleted_uids.pop(uid, None)
        held = self._kept.get(name)
        if held is not None and held.uid == uid:
            self._wake(self._remove(name))

    def removed_by_us(self, namespace: str, name: str, uid: str) -> None:
        """Forget an object whose deletion the API server confirmed, before the watch says so."""
        held = self._kept.get((namespace, name))
        if held is not None and held.uid == uid:
            self._deleted_uids[uid] = held.version
            self._remove((namespace, name))

    def _remove(self, name: tuple[str, str]) -> Owner:
        entry = self._kept.pop(name)
        names = self._by_owner[entry.owner]
        names.discard(name)
        if not names:
            del self._by_owner[entry.owner]
        return entry.owner


@dataclass(slots=True)
class Kept(Generic[T]):
    """One object as it was last seen."""

    value: T
    version: int
    """Its resourceVersion."""
    uid: str
    owner: Owner


def _name(body: JSON) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]
