"""What an informer cache holds, and whom it wakes."""

from __future__ import annotations

from typing import Any

import pytest

from llmfleet.cluster.store import ObjectStore

JSON = dict[str, Any]
OWNER = ("a", "chat")


def body(version: int, name: str = "x", uid: str = "u1", owner: str = "chat") -> JSON:
    return {
        "metadata": {
            "namespace": "a",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"llmfleet.dev/deployment": owner},
        }
    }


class Held:
    """A store of resourceVersions, and the owners it woke."""

    def __init__(self) -> None:
        self.woken: list[tuple[str, str]] = []
        self.store: ObjectStore[str] = ObjectStore(
            lambda one: str(one["metadata"]["resourceVersion"]), self.woken.append
        )


def take_list(
    store: ObjectStore[str], objects: list[JSON], version: str, namespace: str | None = None
) -> None:
    listing = store.begin_list(version, namespace)
    for one in objects:
        listing.take(one)
    listing.end()


@pytest.fixture
def held() -> Held:
    return Held()


def test_store_when_older_news_follows_our_own_write_then_the_write_stays(held: Held) -> None:
    held.store.put(body(5))
    held.store.put(body(4))
    assert [each.value for each in held.store.of(OWNER)] == ["5"]
    assert held.woken == [OWNER]


def test_store_when_a_list_is_older_than_our_own_write_then_the_write_stays(held: Held) -> None:
    held.store.put(body(9))
    take_list(held.store, [], "7")
    assert [each.value for each in held.store.of(OWNER)] == ["9"]


def test_store_when_an_object_is_missing_from_a_newer_list_then_gone_and_woken(held: Held) -> None:
    held.store.put(body(5))
    held.woken.clear()
    take_list(held.store, [], "7")
    assert held.store.of(OWNER) == []
    assert held.woken == [OWNER]


def test_store_when_a_list_breaks_off_then_nothing_counts_as_gone(held: Held) -> None:
    held.store.put(body(5))
    listing = held.store.begin_list("7")
    listing.take(body(6, name="y"))
    assert [each.value for each in held.store.of(OWNER)] == ["5", "6"]


def test_store_when_listing_one_namespace_then_others_stay(held: Held) -> None:
    held.store.put(body(5))
    take_list(held.store, [], "7", "b")
    assert [each.value for each in held.store.of(OWNER)] == ["5"]


def test_store_when_history_goes_back_then_the_list_counts(held: Held) -> None:
    take_list(held.store, [body(90)], "100")
    take_list(held.store, [body(3)], "10")
    assert [each.value for each in held.store.of(OWNER)] == ["3"]


def test_store_when_we_deleted_it_then_late_news_does_not_bring_it_back(held: Held) -> None:
    held.store.put(body(5))
    held.store.removed_by_us("a", "x", "u1")
    held.store.put(body(6))
    assert held.store.of(OWNER) == []
    held.store.put(body(8, uid="u2"))
    assert [each.value for each in held.store.of(OWNER)] == ["8"]


def test_store_when_an_old_incarnation_is_reported_deleted_then_the_new_one_stays(
    held: Held,
) -> None:
    held.store.put(body(8, uid="u2"))
    held.store.remove(body(7, uid="u1"))
    assert [each.value for each in held.store.of(OWNER)] == ["8"]


def test_store_when_the_label_changes_then_both_owners_are_woken(held: Held) -> None:
    held.store.put(body(5))
    held.woken.clear()
    held.store.put(body(6, owner="other"))
    assert held.woken == [OWNER, ("a", "other")]
    assert held.store.of(OWNER) == []


def test_store_when_we_wrote_it_ourselves_then_nobody_is_woken(held: Held) -> None:
    held.store.put_own(body(5))
    held.store.put(body(5))
    held.store.removed_by_us("a", "x", "u1")
    assert held.woken == []


def test_store_when_what_is_kept_stays_the_same_then_its_version_follows_and_nobody_is_woken() -> (
    None
):
    woken: list[tuple[str, str]] = []
    store: ObjectStore[str] = ObjectStore(lambda one: "same", woken.append)
    store.put(body(5))
    store.put(body(6))
    assert woken == [OWNER]
    assert store.version("a", "x") == 6
    store.put(body(7, uid="u2"))
    assert woken == [OWNER, OWNER]


def test_store_when_nothing_is_kept_of_a_new_object_then_nobody_is_woken() -> None:
    woken: list[tuple[str, str]] = []
    store: ObjectStore[None] = ObjectStore(lambda one: None, woken.append)
    store.put(body(5))
    assert woken == []
