"""One pass over an object: what follows from its outcome; effects are played by the test."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import TypeAdapter, ValidationError

from llmfleet.cluster.applying import Applied
from llmfleet.cluster.errors import NotFound
from llmfleet.cluster.observing import UnreadableError
from llmfleet.cluster.priority import Priority
from llmfleet.planning.plan import Plan
from llmfleet.reconcile import Reconciler
from llmfleet.tasks import Done, Gone, Outcome, Unfinished

OWNER = ("a", "chat")


def mistake() -> ValidationError:
    try:
        TypeAdapter(int).validate_python("x")
    except ValidationError as error:
        return error
    raise AssertionError


class Effects:
    """Observer and applier in one."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"phase": "Healthy", "servedRevision": "5d41c0ffee"}
        self.requeue_after: float | None = None
        self.applied = Applied(changed=False, version=7)
        self.foreign = False
        self.gone = False
        self.uid = "u"
        self.unreadable = False
        self.deleting = False
        self.forgotten: list[Any] = []

    async def observe(self, owner: tuple[str, str], from_event: Any) -> Any:
        if self.gone:
            raise NotFound(str(owner), status=404)
        del from_event
        raw: dict[str, Any] = {
            "metadata": {"uid": self.uid, "generation": 1, "resourceVersion": "7"}
        }
        if self.deleting:
            raw["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        if self.unreadable:
            raise UnreadableError(raw, mistake())
        return SimpleNamespace(raw=raw)

    def decide(self, snapshot: Any, now: Any) -> Plan:
        del snapshot, now
        return Plan(status=self.status, requeue_after=self.requeue_after)

    async def apply(self, snapshot: Any, plan: Plan) -> Applied:
        del snapshot, plan
        return self.applied

    async def record_only(self, raw: Any, plan: Plan) -> None:
        pass

    def has_foreign(self, owner: tuple[str, str]) -> bool:
        del owner
        return self.foreign

    def expect_routers(self, *_: Any) -> None:
        pass

    def forget(self, what: Any) -> None:
        self.forgotten.append(what)


@pytest.fixture
def effects() -> Effects:
    return Effects()


@pytest.fixture
def reconciler(effects: Effects) -> Reconciler:
    return Reconciler(effects, effects, effects.decide)  # type: ignore[arg-type]  # it plays both


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        (lambda effects: None, None),
        (lambda effects: setattr(effects, "requeue_after", 5.0), 5.0),
        (lambda effects: setattr(effects, "requeue_after", 0.0), 0.05),
        (lambda effects: setattr(effects, "foreign", True), 10.0),
        (lambda effects: setattr(effects, "applied", Applied(changed=True, version=7)), 1.0),
    ],
    ids=["nobody asks", "the plan asks", "the plan asks at once", "a name is taken", "it wrote"],
)
async def test_pass_when_it_is_done_then_the_next_is_when_the_soonest_part_asks_for_it(
    effects: Effects,
    reconciler: Reconciler,
    change: Callable[[Effects], None],
    seconds: float | None,
) -> None:
    change(effects)
    outcome = await reconciler.reconcile(OWNER, None)
    assert isinstance(outcome, Done)
    assert (outcome.version, outcome.serves) == (7, True)
    if seconds is None:
        assert outcome.requeue_after is None
    else:
        assert outcome.requeue_after is not None
        assert seconds <= outcome.requeue_after <= seconds * 1.05


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ({"unfinished": True}, Unfinished(priority=Priority.LOW)),
        ({"look_again": True}, Unfinished(priority=Priority.NORMAL)),
    ],
    ids=["a new engine was made", "a refusal changed"],
)
async def test_pass_when_it_is_not_done_then_another_follows_at_once(
    effects: Effects, reconciler: Reconciler, how: dict[str, bool], outcome: Outcome
) -> None:
    effects.applied = Applied(changed=True, version=7, **how)
    assert await reconciler.reconcile(OWNER, None) == outcome


async def test_object_when_it_is_gone_then_its_name_and_its_uid_are_forgotten(
    effects: Effects, reconciler: Reconciler
) -> None:
    await reconciler.reconcile(OWNER, None)
    effects.gone = True
    assert await reconciler.reconcile(OWNER, None) == Gone()
    assert effects.forgotten == [OWNER, "u"]


@pytest.mark.parametrize("unreadable", [False, True], ids=["readable", "unreadable"])
async def test_object_when_it_was_made_again_between_two_passes_then_the_old_uid_is_forgotten(
    effects: Effects, reconciler: Reconciler, unreadable: bool
) -> None:
    effects.unreadable = unreadable
    await reconciler.reconcile(OWNER, None)
    assert effects.forgotten == []
    effects.uid = "another"
    await reconciler.reconcile(OWNER, None)
    assert effects.forgotten == ["u"]


async def test_gauges_when_the_object_is_being_deleted_then_nothing_is_said_of_it_by_name(
    effects: Effects, reconciler: Reconciler
) -> None:
    labels = {"namespace": OWNER[0], "name": OWNER[1]}
    await reconciler.reconcile(OWNER, None)
    assert REGISTRY.get_sample_value("llmfleet_available", labels) is not None
    effects.deleting = True
    await reconciler.reconcile(OWNER, None)
    assert REGISTRY.get_sample_value("llmfleet_available", labels) is None
    reconciler.forget(OWNER)


async def test_gauges_when_nobody_looks_at_the_object_any_more_then_it_is_not_counted(
    effects: Effects, reconciler: Reconciler
) -> None:
    def healthy() -> float:
        return REGISTRY.get_sample_value("llmfleet_objects", {"phase": "Healthy"}) or 0.0

    before = healthy()
    await reconciler.reconcile(OWNER, None)
    assert healthy() == before + 1
    reconciler.forget(OWNER)
    assert healthy() == before
