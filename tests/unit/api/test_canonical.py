"""What is hashed, what is unknown, what is not built yet: all from the JSON as stored."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet.api import UNBUILT_FIELDS, hash_payload, parse, unbuilt_fields, unknown_fields
from llmfleet.api.crd import build_crd

JSON = dict[str, Any]
MODEL: JSON = {"source": "pvc://models/tiny", "servedName": "tiny"}


def resource(**spec: Any) -> JSON:
    return {"metadata": {"name": "chat"}, "spec": {"model": MODEL, **spec}}


def filled_in(schema: JSON, value: JSON) -> JSON:
    """Fill defaults in as the API server does with a structural schema."""
    value = copy.deepcopy(value)
    for name, field in schema.get("properties", {}).items():
        if name not in value and "default" in field:
            value[name] = copy.deepcopy(field["default"])
        if isinstance(value.get(name), dict):
            value[name] = filled_in(field, value[name])
        elif isinstance(value.get(name), list) and "properties" in field["items"]:
            value[name] = [filled_in(field["items"], each) for each in value[name]]
    return value


SPEC_SCHEMA = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

ENGINES: list[JSON] = [
    {},
    {"dtype": "bfloat16", "maxModelLen": 8192},
    {"kvCache": {"gpuMemoryUtilization": 0.9, "blockSize": 16}},
    {"speculativeDecoding": {"method": "ngram"}},
    {"lora": {"adapters": [{"name": "sql", "source": "pvc://l/sql"}]}},
    {"extraArgs": ["--seed=7", "--enforce-eager"]},
    {"chatTemplate": {"configMapRef": {"name": "x"}}},
    {"media": {"allowedDomains": ["a.example"]}},
]


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_hash_payload_when_defaults_are_filled_in_then_unchanged(engine: JSON) -> None:
    spec = {"model": MODEL, "engine": engine}
    assert hash_payload(filled_in(SPEC_SCHEMA, spec)) == hash_payload(spec)


def test_hash_payload_when_all_default_then_only_what_is_required() -> None:
    spec = {
        "model": {**MODEL, "aliases": []},
        "engine": {
            "parallelism": {"tensor": 1},
            "speculativeDecoding": None,
            "media": {"allowedDomains": []},
            "extraArgs": [],
        },
        "accelerator": {"count": 1},
        "drain": {"timeout": "300s"},
        "podTemplate": {},
    }
    assert hash_payload(spec) == {"model": MODEL}


def test_hash_payload_when_other_sections_change_then_equal() -> None:
    one = {"model": MODEL}
    other = {"model": MODEL, "replicas": 5, "rollout": {"maxSurge": 0}, "router": {"replicas": 3}}
    assert hash_payload(one) == hash_payload(other)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**MODEL, "aliases": ["x"]}},
        {"engine": {"dtype": "float32"}},
        {"accelerator": {"type": "cpu"}},
        {"accelerator": {"count": 2}},
        {"accelerator": {"resource": "amd.com/gpu"}},
        {"drain": {"timeout": "301s"}},
        {"podTemplate": {"env": [{"name": "A", "value": "1"}]}},
        {"engine": {"future": False}},
        {"engine": {"kvCache": {"future": {}}}},
        {"engine": {"chunkedPrefill": False}},
        {"engine": {"media": {"allowedDomains": ["a.example"]}}},
    ],
    ids=str,
)
def test_hash_payload_when_a_hashed_key_changes_then_differs(change: JSON) -> None:
    assert hash_payload({"model": MODEL, **change}) != hash_payload({"model": MODEL})


def test_hash_payload_when_empty_object_has_meaning_then_kept() -> None:
    volumes = [{"name": "x", "emptyDir": {}}]
    payload = hash_payload({"model": MODEL, "podTemplate": {"volumes": volumes}})
    assert payload["podTemplate"]["volumes"] == volumes


def test_hash_payload_when_number_is_whole_then_written_as_integer() -> None:
    payload = hash_payload({"model": MODEL, "engine": {"kvCache": {"future": 1.0}}})
    assert repr(payload["engine"]["kvCache"]["future"]) == "1"


@pytest.mark.long
@given(st.recursive(st.none() | st.booleans() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_hash_payload_when_applied_twice_then_equal(extra: Any) -> None:
    once = hash_payload({"model": MODEL, "engine": {"future": extra}})
    assert hash_payload(once) == once


def test_unknown_fields_when_none_then_empty() -> None:
    assert unknown_fields(resource(engine={"dtype": "auto"}, podTemplate={"env": []})) == ()


def test_unknown_fields_when_nested_then_named_with_their_path() -> None:
    raw = resource(
        engine={
            "x": 1,
            "lora": {"adapters": [{"name": "a", "source": "pvc://l/x", "y": 1}]},
        },
        podTemplate={"affinity": {"z": 1}, "metadata": {"labels": {"any": "label"}}},
        rollout={"notHashed": 1},
    )
    assert unknown_fields(raw) == (
        "engine.x",
        "engine.lora.adapters[0].y",
        "podTemplate.affinity.z",
    )


IN_FLIGHT = {"type": "InFlightRequests", "target": {"averageValue": 24}}
SET_UNBUILT: dict[str, JSON] = {
    "autoscaling.minReplicas": {"autoscaling": {"minReplicas": 2}},
    "autoscaling.maxReplicas": {"autoscaling": {"maxReplicas": 2}},
    "autoscaling.metrics": {"autoscaling": {"metrics": [IN_FLIGHT]}},
    "autoscaling.behavior": {
        "autoscaling": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}}}
    },
    "autoscaling.forecast.enabled": {"autoscaling": {"forecast": {"enabled": False}}},
    "autoscaling.fallback": {"autoscaling": {"fallback": {"replicas": 3}}},
    "rollout.analysis.metrics": {"rollout": {"analysis": {"metrics": [{"name": "TTFT"}]}}},
    "rollout.analysis.firstTokenTimeout": {"rollout": {"analysis": {"firstTokenTimeout": "5s"}}},
    "drift.action": {"drift": {"action": "Alert"}},
    "drift.window": {"drift": {"window": "1h"}},
    "drift.control": {"drift": {"control": "None"}},
    "scaleToZero.after": {"scaleToZero": {"after": "5m"}},
    "scaleToZero.holdRequests": {"scaleToZero": {"holdRequests": 0}},
    "scaleToZero.holdTimeout": {"scaleToZero": {"holdTimeout": "1m"}},
}
"""Every field whose behaviour is missing, as first shipped. Entries may only be removed."""


def test_unbuilt_fields_then_the_list_has_not_grown() -> None:
    assert set(UNBUILT_FIELDS) <= set(SET_UNBUILT), "build the behaviour instead of listing it"
    assert len(set(UNBUILT_FIELDS)) == len(UNBUILT_FIELDS) <= 14


@pytest.mark.parametrize("path", UNBUILT_FIELDS)
def test_unbuilt_fields_when_set_then_named(path: str) -> None:
    assert unbuilt_fields(resource(**SET_UNBUILT[path])) == (path,)


def test_unbuilt_fields_when_default_then_empty() -> None:
    spec = filled_in(SPEC_SCHEMA, {"model": MODEL})
    assert unbuilt_fields({"metadata": {"name": "chat"}, "spec": spec}) == ()
    assert unbuilt_fields(parse(resource())) == ()


@pytest.mark.parametrize("strategy", ["RollingUpdate", "BlueGreen"])
def test_unbuilt_fields_when_another_strategy_then_empty(strategy: str) -> None:
    assert unbuilt_fields(resource(rollout={"strategy": strategy})) == ()


def test_unbuilt_fields_when_parsed_then_same_as_stored() -> None:
    analysis = {"metrics": [{"name": "TTFT"}], "firstTokenTimeout": "5s"}
    raw = resource(drift={"action": "Alert"}, rollout={"analysis": analysis})
    expected = ("rollout.analysis.metrics", "drift.action")
    assert unbuilt_fields(parse(raw)) == unbuilt_fields(raw) == expected


def test_unbuilt_fields_when_only_error_rate_is_judged_then_empty() -> None:
    metrics = [{"name": "ErrorRate", "minEffect": "2%"}]
    assert unbuilt_fields(resource(rollout={"analysis": {"metrics": metrics}})) == ()


def test_unbuilt_fields_when_an_act_is_annotated_then_it_is_built() -> None:
    raw = resource()
    raw["metadata"]["annotations"] = {"llmfleet.dev/pause": "", "other": "x"}
    assert unbuilt_fields(raw) == ()
