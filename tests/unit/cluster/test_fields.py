"""Who owns a child's content, and how it becomes ours again."""

from __future__ import annotations

from typing import Any

import pytest

from llmfleet.cluster.equality import content_fingerprint
from llmfleet.cluster.fields import (
    handover_patch,
    needs_handover,
    owners_that_count,
    surplus_fields,
)

JSON = dict[str, Any]

INTENT: JSON = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "chat"},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "engine",
                        "env": [{"name": "A", "value": "1"}],
                        "ports": [{"containerPort": 8000}],
                    }
                ]
            }
        },
    },
}
ENGINE = 'k:{"name":"engine"}'


def entry(manager: str, fields: JSON, operation: str = "Update", subresource: str = "") -> JSON:
    made: JSON = {"manager": manager, "operation": operation, "fieldsV1": fields}
    return {**made, "subresource": subresource} if subresource else made


def live(*entries: JSON, kind: str = "Deployment") -> JSON:
    return {
        **INTENT,
        "kind": kind,
        "metadata": {"name": "chat", "resourceVersion": "7", "managedFields": list(entries)},
    }


def in_pod(fields: JSON) -> JSON:
    return {"f:spec": {"f:template": {"f:spec": fields}}}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"f:spec": {"f:paused": {}}}, "spec.paused", id="field"),
        pytest.param(
            in_pod({"f:containers": {'k:{"name":"side"}': {".": {}, "f:image": {}}}}),
            "spec.template.spec.containers[side]",
            id="list item",
        ),
        pytest.param(
            in_pod({"f:containers": {ENGINE: {"f:env": {'k:{"name":"B"}': {"f:value": {}}}}}}),
            "spec.template.spec.containers[engine].env[B]",
            id="item in an item of ours",
        ),
        pytest.param(
            in_pod({"f:containers": {ENGINE: {"f:env": {'k:{"name":"A"}': {"f:valueFrom": {}}}}}}),
            "spec.template.spec.containers[engine].env[A].valueFrom",
            id="field in an item of ours",
        ),
        pytest.param(
            in_pod({"f:nodeSelector": {".": {}, "f:disk": {}}}),
            "spec.template.spec.nodeSelector",
            id="map",
        ),
    ],
)
def test_surplus_when_another_manager_added_a_field_then_it_is_named(
    fields: JSON, path: str
) -> None:
    assert surplus_fields(live(entry("kubectl", fields)), INTENT) == {"kubectl": (path,)}


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(entry("kubectl", {"f:spec": {"f:replicas": {}}}), id="a field of ours"),
        pytest.param(
            entry("kubectl", {"f:metadata": {"f:annotations": {"f:x": {}}}}), id="an annotation"
        ),
        pytest.param(
            entry("kube-controller-manager", {"f:status": {"f:replicas": {}}}, "Update", "status"),
            id="the status",
        ),
        pytest.param(
            entry("kube-controller-manager", {"f:spec": {"f:x": {}}}, "Update", "scale"),
            id="the scale subresource",
        ),
        pytest.param(
            entry("llmfleet", {"f:spec": {"f:progressDeadlineSeconds": {}}}),
            id="defaults beside our POST",
        ),
        pytest.param(
            entry("llmfleet", in_pod({"f:containers": {ENGINE: {"f:ports": {
                'k:{"containerPort":8000,"protocol":"TCP"}': {"f:containerPort": {}}}}}}), "Apply"),
            id="a key with its default",
        ),
    ],
)  # fmt: skip
def test_surplus_when_nobody_added_a_field_then_none(one: JSON) -> None:
    assert surplus_fields(live(one), INTENT) == {}


def test_surplus_when_an_earlier_apply_of_ours_left_a_field_then_it_is_named() -> None:
    left = entry("llmfleet", {"f:spec": {"f:paused": {}}}, "Apply")
    assert surplus_fields(live(left), INTENT) == {"llmfleet": ("spec.paused",)}


def test_surplus_when_a_service_account_gets_pull_secrets_then_none() -> None:
    theirs = entry("openshift", {"f:imagePullSecrets": {}})
    assert surplus_fields(live(theirs, kind="ServiceAccount"), INTENT) == {}


def test_handover_when_needed_then_content_becomes_ours_and_the_rest_stays_theirs() -> None:
    body = live(
        entry("llmfleet", {"f:spec": {"f:replicas": {}}}, "Apply"),
        entry("llmfleet", {"f:spec": {"f:strategy": {}}}),
        entry("kubectl", {"f:spec": {"f:paused": {}}, "f:metadata": {"f:labels": {"f:x": {}}}}),
        entry("kcm", {"f:status": {}}, "Update", "status"),
    )
    assert needs_handover(body, INTENT)
    test, replace = handover_patch(body)
    assert test == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    assert replace["path"] == "/metadata/managedFields"
    assert replace["value"] == [
        entry(
            "llmfleet", {"f:spec": {"f:replicas": {}, "f:strategy": {}, "f:paused": {}}}, "Apply"
        ),
        entry("kubectl", {"f:metadata": {"f:labels": {"f:x": {}}}}),
        entry("kcm", {"f:status": {}}, "Update", "status"),
    ]


def test_handover_when_only_our_apply_owns_content_then_not_needed() -> None:
    body = live(entry("llmfleet", {"f:spec": {"f:replicas": {}}}, "Apply"))
    assert not needs_handover(body, INTENT)


def test_owners_kept_when_compared_then_they_tell_what_all_of_them_told() -> None:
    body = live(
        entry("llmfleet", {"f:spec": {"f:replicas": {}}}, "Apply"),
        entry("llmfleet", {"f:spec": {"f:strategy": {}}}),
        entry("kubectl", {"f:spec": {"f:paused": {}}}),
        entry("kcm", {"f:status": {}}, "Update", "status"),
    )
    kept = live(*owners_that_count(body))
    assert len(kept["metadata"]["managedFields"]) == 3
    assert "f:strategy" not in str(kept)
    assert (
        surplus_fields(kept, INTENT)
        == surplus_fields(body, INTENT)
        == {"kubectl": ("spec.paused",)}
    )
    assert needs_handover(kept, INTENT)
    assert content_fingerprint(kept) == content_fingerprint(body)
