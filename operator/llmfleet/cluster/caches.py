"""The informer caches of every kind of child, and the reflectors that fill them.

Children are kept as compressed JSON: as Python objects, twelve of them for each of a thousand
resources take 200 MB, and only those of one resource are looked at at a time. They are kept without
their status, which changes often and decides nothing: what runs is seen in the pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import zstandard

from llmfleet.cluster.background import keep_running
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.equality import own_annotations
from llmfleet.cluster.fields import owners_that_count
from llmfleet.cluster.kinds import CHILD_KINDS, OWNER_LABEL, POD, REPLICA_SET, Kind, kind_of
from llmfleet.cluster.pods import observe_pod, observe_replica_set
from llmfleet.cluster.store import Kept, Listing, ObjectStore, Owner
from llmfleet.cluster.watching import Reflector
from llmfleet.planning.snapshot import (
    JSON,
    ObjectKey,
    ObservedObject,
    ObservedPod,
    ObservedReplicaSet,
)

LISTS_AT_ONCE: Final = 2
"""The API server writes one while the other is taken here. No more: as Python objects, a page is
many times as large as what is kept of it."""
_COMPRESSOR: Final = zstandard.ZstdCompressor(level=1)
_DECOMPRESSOR: Final = zstandard.ZstdDecompressor()


def observed_object(body: JSON) -> ObservedObject:
    """Wrap a stored object."""
    meta = body["metadata"]
    owners = [ref["uid"] for ref in meta.get("ownerReferences") or [] if ref.get("controller")]
    return ObservedObject(
        key=ObjectKey(api_version=body["apiVersion"], kind=body["kind"], name=meta["name"]),
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner_uid=owners[0] if owners else None,
        deleting=bool(meta.get("deletionTimestamp")),
        body=body,
    )


class Caches:
    """Children, pods and ReplicaSets of all LLMDeployments, by owner.

    Args:
        api: where to list and watch.
        namespaces: to watch; empty = all.
        wake: called with the owner of whatever changed.
    """

    def __init__(
        self, api: ApiClient, namespaces: Sequence[str], wake: Callable[[Owner], None]
    ) -> None:
        self._children: dict[Kind, ObjectStore[bytes]] = {
            kind: ObjectStore(_pack, wake) for kind in CHILD_KINDS
        }
        self._pods: ObjectStore[ObservedPod] = ObjectStore(observe_pod, wake)
        self._replica_sets: ObjectStore[ObservedReplicaSet] = ObjectStore(observe_replica_set, wake)
        stores: dict[Kind, ObjectStore[Any]] = {
            **self._children,
            POD: self._pods,
            REPLICA_SET: self._replica_sets,
        }
        scopes: Sequence[str | None] = namespaces or (None,)
        listing = asyncio.Semaphore(LISTS_AT_ONCE)
        self._reflectors = [
            Reflector(
                api,
                kind.kind,
                kind.path(namespace),
                _Namespaced(store, namespace),
                selectors={"labelSelector": OWNER_LABEL},
                listing=listing,
            )
            for kind, store in stores.items()
            for namespace in scopes
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start listing and watching."""
        self._tasks = [keep_running("watch", reflector.run) for reflector in self._reflectors]

    async def wait_synced(self) -> None:
        """Wait until every collection has been listed once; before that, nothing is known."""
        await asyncio.gather(*(reflector.synced.wait() for reflector in self._reflectors))

    def problem(self) -> str | None:
        """A sentence while a right to list or watch is missing, else None: the readiness check."""
        refused = [one.refusal for one in self._reflectors if one.refusal is not None]
        if not refused:
            return None
        return f"the operator may not see its children, restore its rights: {refused[0]}"

    async def stop(self) -> None:
        """Cancel the reflectors and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def children(self, owner: Owner) -> dict[ObjectKey, ObservedObject]:
        """Labelled children of an LLMDeployment."""
        kept = (each for store in self._children.values() for each in store.of(owner))
        return {child.key: child for child in map(_unpack, kept)}

    def pods(self, owner: Owner) -> tuple[ObservedPod, ...]:
        """Engine and router pods, sorted by name."""
        return tuple(kept.value for kept in self._pods.of(owner))

    def replica_sets(self, owner: Owner) -> dict[str, ObservedReplicaSet]:
        """ReplicaSets by uid."""
        return {kept.uid: kept.value for kept in self._replica_sets.of(owner)}

    def written(self, body: JSON) -> None:
        """Take the answer of our own write at once."""
        kind = kind_of(observed_object(body).key)
        if kind in self._children:
            self._children[kind].put_own(body)

    def deleted(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Take our own confirmed deletion at once."""
        if kind in self._children:
            self._children[kind].removed_by_us(namespace, name, uid)


def _pack(body: JSON) -> bytes:
    meta = {name: value for name, value in body["metadata"].items() if name != "resourceVersion"}
    meta["annotations"] = own_annotations(meta)
    meta["managedFields"] = owners_that_count(body)
    kept = {name: value for name, value in body.items() if name != "status"}
    packed = _COMPRESSOR.compress(orjson.dumps({**kept, "metadata": meta}))
    # A copy: what zstandard returns was cut short in a buffer for the worst case, and thousands of
    # such cuts cost four times as much memory as what they keep.
    return bytes(memoryview(packed))


def _unpack(kept: Kept[bytes]) -> ObservedObject:
    body = orjson.loads(_DECOMPRESSOR.decompress(kept.value))
    body["metadata"]["resourceVersion"] = str(kept.version)
    return observed_object(body)


class _Namespaced:
    """A sink for one namespace's share of a store: a list replaces that share only."""

    def __init__(self, store: ObjectStore[Any], namespace: str | None) -> None:
        self._store = store
        self._namespace = namespace

    def begin_list(self, list_version: str | None, /) -> Listing:
        return self._store.begin_list(list_version, self._namespace)

    def put(self, body: JSON, /) -> None:
        self._store.put(body)

    def remove(self, body: JSON, /) -> None:
        self._store.remove(body)
