"""The memory as others may leave it: read as far as it can be, held where that is too little."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmfleet.api import parse
from llmfleet.planning.children.naming import canonical_json
from llmfleet.planning.decide import decide
from llmfleet.planning.report.unreadable import decide_unreadable
from llmfleet.planning.revisions.memory import Memory, parse_memory
from llmfleet.planning.revisions.once import WHOLE_BYTES
from llmfleet.planning.snapshot import JSON
from tests.unit.planning.canaries import annotate, at_share, rejected, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.forging import (
    MEMORY,
    edit_memory,
    forged_template,
    memory_object,
    put_memory,
    remembered,
)
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn
from tests.unit.planning.test_stored_revisions import deployments

LARGEST_OBJECT = 1 << 20
"""Bytes of all values of a ConfigMap together, above which the API server refuses it."""
KEYS = (
    "schema", "rejected", "lastGood", "inJudgement", "handledActs", "pastActs", "rolloutId",
)  # fmt: skip
DEEP = "[" * 5000

ODD_TEXTS = {
    "nothing": "",
    "no JSON": "{",
    "5,000 brackets": DEEP,
    "a number too large": "1e400",
    "a number of 5,000 digits": "9" * 5000,
    "no number": "NaN",
    "infinity": "-Infinity",
    "half a surrogate": r'"\ud800"',
    "half a surrogate as it is": '"\ud800"',
    "true": "true",
    "text": '"x"',
    "a number": "-1.5",
    "a list": '[null, 1e400, "\\u001b[31m", []]',
    "an object": '{"\\ud800": {"number": "abc"}}',
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["abc", "0123456789", "\ud800", "\x1b[31m", "promote", "x" * 400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)  # fmt: skip
texts = (
    anything.map(json.dumps) | st.text(max_size=30) | st.sampled_from(sorted(ODD_TEXTS.values()))
)


def good_memory() -> JSON:
    """What an operator wrote after a rejection."""
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    world.settle()
    return dict(world.objects[MEMORY].body["data"])


GOOD = good_memory()
MID_CANARY = started()[0]
LAST_GOOD = json.loads(GOOD["lastGood"])


def decided(world: Fleet) -> JSON:
    """The status decided on, which has to be one that can be written and read."""
    plan = decide(world.snapshot(), world.now)
    assert plan.status is not None
    for body in (plan.status, *(child.body for child in plan.children)):
        orjson.dumps(body)
    parse({**world.raw, "status": plan.status})
    return plan.status


def problem_of(**data: str) -> tuple[Memory, str]:
    found = parse_memory(memory_object({**GOOD, **data}))
    return found, found.problem or ""


def fresh(data: Any) -> Fleet:
    """A resource without a status that finds this memory."""
    world = Fleet(resource(replicas=4))
    put_memory(world, data)
    return world


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_memory_when_a_value_is_odd_then_a_decision_is_made_and_the_rest_is_kept(
    key: str, text: str
) -> None:
    data = {**GOOD, key: ODD_TEXTS[text]}
    found = parse_memory(memory_object(data))
    whole = parse_memory(memory_object(GOOD))
    attributes = {
        "rejected": "rejected", "lastGood": "last_good", "inJudgement": "in_judgement",
        "handledActs": "handled_acts", "pastActs": "past_acts", "rolloutId": "rollout_id",
    }  # fmt: skip
    for other, attribute in attributes.items():
        if other != key:
            assert getattr(found, attribute) == getattr(whole, attribute)
    decided(fresh(data))
    world = replace(MID_CANARY, objects=dict(MID_CANARY.objects))
    edit_memory(world, **{key: ODD_TEXTS[text]})
    decided(world)


@pytest.mark.long
@given(st.dictionaries(st.sampled_from(KEYS), texts), st.booleans())
@example({"lastGood": json.dumps({**LAST_GOOD, "number": "abc"})}, True)
@example({"lastGood": json.dumps({**LAST_GOOD, "payload": {"engine": []}})}, False)
@example({"handledActs": json.dumps({f"a{'b' * n}": "x" for n in range(30)})}, True)
@example({"rejected": json.dumps([["x" * 70, "y"], ["z", "R" * 5000]])}, True)
@settings(max_examples=300, deadline=None)
def test_memory_when_it_holds_anything_then_a_decision_can_be_made_and_written(
    data: dict[str, str], has_status: bool
) -> None:
    world = fresh({**GOOD, **data})
    if has_status:
        world.raw["status"] = {"schema": 1}
    decided(world)


@given(anything)
@settings(max_examples=100, deadline=None)
def test_memory_when_its_data_is_anything_then_it_is_read(data: Any) -> None:
    parse_memory(memory_object(data))
    parse_memory(memory_object(dict.fromkeys(KEYS, data)))


def test_last_good_when_its_number_is_no_number_then_the_rest_of_it_is_kept() -> None:
    found, problem = problem_of(lastGood=json.dumps({**LAST_GOOD, "number": "abc"}))
    assert found.last_good is not None
    assert (found.last_good.hash, found.last_good.number) == (LAST_GOOD["hash"], 0)
    assert problem == "lastGood, in part: its number is abc"
    assert not found.holds(without_status=True)


def test_rejections_when_some_cannot_be_read_then_the_others_are_kept_and_it_holds() -> None:
    pairs = '["0123456789","UserAbort"], 7, ["1111111111",NaN], "2222222222"'
    text = f'[{pairs}, {{"a":1}}, ["a","b","c"]]'
    found, problem = problem_of(rejected=text)
    assert found.rejected == {
        "0123456789": "UserAbort", "1111111111": "Rejected", "2222222222": "Rejected",
    }  # fmt: skip
    assert problem == "rejected: 3 of 6 entries name no revision"
    assert found.holds(without_status=False)


@pytest.mark.parametrize(
    "data",
    [{"rejected": "{}"}, {"rejected": DEEP}, {"schema": "2"}, {"schema": "x"}],
    ids=["no list", "too deep", "newer", "no number"],
)
def test_rollout_when_what_was_rejected_cannot_be_known_then_nothing_is_rolled_out(
    data: JSON,
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    edit_memory(world, **data)
    turn(world, 40)
    world.wait(4000)
    turn(world, 40)
    assert split(world) == {old: 75, new: 25}
    said = world.condition("MemoryUnreadable")
    assert (said["status"], said["reason"]) == ("True", "MemoryUnreadable")
    assert "kubectl delete configmap chat-llmfleet-memory" in said["message"]
    assert world.condition("Progressing")["reason"] == "Blocked"
    assert world.events.count("MemoryUnreadable") == 1
    # It is left as it is for whoever mends it.
    assert world.objects[MEMORY].body["data"][next(iter(data))] == data[next(iter(data))]

    edit_memory(world, schema="1", rejected="[]")
    at_share(world, new, 50)
    assert world.condition("MemoryUnreadable") == {}


def test_abort_when_the_memory_cannot_be_read_then_it_goes_back_all_the_same() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    edit_memory(world, rejected="{}")
    annotate(world, "abort", f"{new}@1")
    turn(world, 40)
    assert split(world) == {old: 100}
    assert rejected(world) == {new: "UserAbort"}


@pytest.mark.parametrize("key", ["schema", "rejected", "lastGood", "inJudgement"])
def test_resource_without_status_when_its_memory_cannot_be_read_then_it_waits_until_it_can(
    key: str,
) -> None:
    world, old, new = started()
    at_share(world, new, 25)
    data = dict(world.objects[MEMORY].body["data"])
    again = Fleet({name: value for name, value in world.raw.items() if name != "status"})
    put_memory(again, {**data, key: "{"})
    for _ in range(5):
        turn(again)
    assert again.condition("MemoryUnreadable")["status"] == "True"
    assert again.status()["phase"] == "Degraded"
    assert again.replicas() == {}
    assert again.events == ["MemoryUnreadable"]

    put_memory(again, data)
    at_share(again, new, 25)
    assert again.status()["servedRevision"] == old


def test_resource_when_its_first_status_said_only_unreadable_then_memory_is_still_asked() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    again = Fleet({name: value for name, value in world.raw.items() if name != "status"})
    again.objects[MEMORY] = world.objects[MEMORY]
    again.raw["status"] = decide_unreadable(again.raw, "spec.x: no", again.now).status
    annotate(again, "undo", f"{old}@1")
    at_share(again, new, 25)
    assert again.status()["servedRevision"] == old
    assert again.condition("Accepted")["status"] == "True"


@pytest.mark.parametrize("key", ["handledActs", "pastActs", "rolloutId"])
def test_memory_when_a_lesser_part_cannot_be_read_then_it_is_said_and_written_anew(
    key: str,
) -> None:
    world, old, _ = started()
    world.settle()
    before = remembered(world)
    edit_memory(world, **{key: "{"})
    plan = world.reconcile()
    assert plan.status is not None
    said = world.condition("MemoryUnreadable")["message"]
    assert f"{key}: {{ is no JSON that can be read" in said
    world.settle()
    assert remembered(world)["rejected"] == before["rejected"]
    assert world.condition("MemoryUnreadable") == {}
    assert old in split(world)


def test_memory_when_its_template_is_forged_then_no_pod_is_planned_from_it() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    world.settle()
    data = dict(world.objects[MEMORY].body["data"])
    good = json.loads(data["lastGood"])
    good["template"] = forged_template(good["template"])
    again = Fleet({name: value for name, value in world.raw.items() if name != "status"})
    put_memory(again, {**data, "lastGood": json.dumps(good)})

    turn(again, 10)

    assert deployments(again.decide()) == {}
    said = again.condition("MemoryUnreadable")["message"]
    assert "securityContext.privileged is set, which no revision may have" in said
    assert old in data["lastGood"]


def test_memory_when_forged_beside_a_served_revision_then_it_is_written_anew() -> None:
    world, *_ = started()
    world.settle()
    served = world.status()["servedRevision"]
    good = remembered(world)["lastGood"]
    forged = {**good, "template": forged_template(good["template"])}
    edit_memory(world, lastGood=json.dumps(forged))
    world.settle()
    assert remembered(world)["lastGood"] == good
    assert "MemoryUnreadable" in world.events
    assert world.status()["servedRevision"] == served


def test_rejected_revision_when_its_reason_is_no_word_then_status_shows_none_of_it() -> None:
    world = Fleet(resource())
    revision = hash_of(world.raw)
    reason = "\x1b]0;owned\x07Bad\u202e\ud800"
    put_memory(world, {"rejected": json.dumps([[revision, reason]])})
    status = decided(world)
    assert status["rejectedRevisions"][0]["reason"] == "Rejected"


def heavy(value: str, **template: Any) -> JSON:
    env = [{"name": f"V{number}", "value": value} for number in range(64)]
    return resource(podTemplate={"env": env, **template})


def sizes(world: Fleet) -> int:
    data = world.objects[MEMORY].body["data"]
    return sum(len(text.encode()) for text in data.values())


def test_memory_when_the_pod_template_is_large_then_it_holds_it_once() -> None:
    annotations = {f"note-{number}": "n" * 2000 for number in range(40)}
    raw = heavy("v" * 2500, metadata={"annotations": annotations})
    world = Fleet(raw)
    world.settle()
    given = len(canonical_json(raw["spec"]["podTemplate"]).encode())
    assert 230_000 < given < 256 * 1024
    assert sizes(world) < given + WHOLE_BYTES
    assert remembered(world)["lastGood"]["shared"] == ["annotations", "env"]
    assert sizes(world) < LARGEST_OBJECT // 2


def test_memory_when_everything_in_it_is_at_its_longest_then_it_stays_within_the_limit() -> None:
    adapters = [
        {"name": f"a{number:02}{'x' * 60}", "source": f"pvc://m/{'y' * 400}{number}"}
        for number in range(32)
    ]
    raw = heavy("v" * 4000)
    arguments = [f"--hf-overrides={'€' * 240}"] * 32
    raw["spec"]["engine"] = {"extraArgs": arguments, "lora": {"adapters": adapters}}
    world = Fleet(raw)
    world.settle()
    rejections = [[f"{number:064}", "R" * 64] for number in range(1200)]
    acts = [f"promote {number:04}@{'𝔵' * 251}" for number in range(250)]
    edit_memory(world, rejected=json.dumps(rejections), pastActs=json.dumps(acts))
    world.settle()
    assert len(remembered(world)["rejected"]) == 1000
    assert len(remembered(world)["pastActs"]) == 200
    assert sizes(world) < 0.8 * LARGEST_OBJECT


def test_large_revision_when_only_memory_is_left_then_its_template_comes_back_verbatim() -> None:
    raw = heavy("v" * 3000, nodeSelector={"pool": "gpu"}, volumes=[{"name": "d", "emptyDir": {}}],
                mounts=[{"name": "d", "mountPath": "/data"}])  # fmt: skip
    world = Fleet(raw)
    world.settle()
    template = deployments(world.decide())[hash_of(raw)]
    again = Fleet({key: value for key, value in world.raw.items() if key != "status"})
    again.objects[MEMORY] = world.objects[MEMORY]
    again.edit(model=model("two"))
    edit_memory(again, rejected=json.dumps([[hash_of(again.raw), "UserAbort"]]))
    again.settle()
    assert split(again) == {hash_of(raw): 100}
    assert deployments(again.decide())[hash_of(raw)] == template


@pytest.mark.parametrize(
    "shared", [None, "env", ["env", "env"], ["odd"], [{}], ["env", "tolerations"]]
)
def test_large_revision_when_what_it_shares_is_not_there_then_it_is_not_used(shared: Any) -> None:
    world = Fleet(heavy("v" * 3000))
    world.settle()
    data = world.objects[MEMORY].body["data"]
    body = {**json.loads(data["lastGood"]), "shared": shared}
    found = parse_memory(memory_object({**data, "lastGood": json.dumps(body)}))
    assert found.last_good is None
    assert "lastGood" in found.unreadable


LARGE_ANNOTATIONS = {f"a{number}": "x" * 4096 for number in range(64)}


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (heavy("€" * 2850), 548_863),
        (heavy("v" * 4096), 263_807),
        (resource(podTemplate={"metadata": {"annotations": LARGE_ANNOTATIONS}}), 262_740),
    ],
    ids=["few characters of many bytes", "many values", "annotations"],
)
def test_pod_template_when_it_is_too_large_then_it_is_not_rolled_out_and_the_sentence_says_so(
    raw: JSON, size: int
) -> None:
    world = Fleet(resource())
    world.settle()
    served = hash_of(world.raw)
    world.edit(podTemplate=raw["spec"]["podTemplate"])
    world.settle()
    accepted = world.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "TooLarge")
    assert f"spec.podTemplate has {size:,} bytes" in accepted["message"]
    assert world.replicas() == {served: 2}
    assert world.condition("Progressing")["reason"] == "Blocked"
    first = Fleet(raw)
    first.settle()
    assert first.replicas() == {}
