"""A child equals its intent exactly when nothing must be sent."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet.cluster.equality import content_fingerprint, difference, parse_quantity

JSON = dict[str, Any]

INTENT: JSON = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "chat",
        "namespace": "a",
        "labels": {"llmfleet.dev/deployment": "chat"},
        "annotations": {"llmfleet.dev/digest": "d1"},
        "ownerReferences": [{"uid": "u1", "kind": "LLMDeployment", "controller": True}],
    },
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "securityContext": {},
                "hostNetwork": False,
                "containers": [
                    {
                        "name": "engine",
                        "args": ["--a", "--b"],
                        "ports": [{"name": "http", "containerPort": 8000}],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
                        "resources": {"requests": {"cpu": 1, "memory": "1024Mi"}},
                    }
                ],
                "volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}],
            }
        },
    },
}


def as_stored() -> JSON:
    """The intent as the API server keeps it: defaults added, values in its own spelling."""
    live = copy.deepcopy(INTENT)
    live["metadata"] |= {"uid": "u9", "resourceVersion": "7"}
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    live["status"] = {"replicas": 2}
    live["spec"] |= {"progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}
    pod = live["spec"]["template"]["spec"]
    del pod["hostNetwork"], pod["securityContext"]
    pod["dnsPolicy"] = "ClusterFirst"
    container = pod["containers"][0]
    container["ports"][0]["protocol"] = "TCP"
    del container["env"][1]["value"]
    container["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}}
    container["terminationMessagePath"] = "/dev/termination-log"
    pod["volumes"][0]["emptyDir"]["sizeLimit"] = "1024Mi"
    return live


def test_difference_when_only_defaults_and_spelling_differ_then_none() -> None:
    assert difference(as_stored(), INTENT) is None


def edit(path: list[Any], value: Any) -> JSON:
    live = as_stored()
    node = live
    for step in path[:-1]:
        node = node[step]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return live


POD = ["spec", "template", "spec"]
CONTAINER = [*POD, "containers", 0]


@pytest.mark.parametrize(
    ("path", "value", "leaf"),
    [
        (["spec", "replicas"], 3, "spec.replicas"),
        (["metadata", "labels"], {}, "metadata.labels.llmfleet.dev/deployment"),
        (["metadata", "ownerReferences"], None, "metadata.ownerReferences"),
        (["metadata", "ownerReferences", 0, "controller"], False, "controller"),
        ([*CONTAINER, "args"], ["--b", "--a"], "args[0]"),
        ([*CONTAINER, "args"], ["--a"], "args"),
        ([*CONTAINER, "name"], "motor", "containers[engine]"),
        ([*CONTAINER, "env", 0, "value"], "2", "env[A].value"),
        ([*CONTAINER, "ports", 0, "protocol"], "UDP", "ports[8000,TCP]"),
        ([*CONTAINER, "resources", "requests", "cpu"], "1100m", "cpu"),
        ([*CONTAINER, "resources", "requests", "memory"], "1G", "memory"),
        ([*POD, "volumes", 0, "emptyDir", "sizeLimit"], None, "sizeLimit"),
        ([*POD, "hostNetwork"], True, "hostNetwork"),
    ],
)
def test_difference_when_a_leaf_differs_then_it_is_named(
    path: list[Any], value: Any, leaf: str
) -> None:
    found = difference(edit(path, value), INTENT)
    assert found is not None
    assert found.edited_by_others
    assert any(leaf in one for one in found.leaves), found.leaves


def test_difference_when_the_digest_differs_then_it_is_our_change() -> None:
    found = difference(edit(["metadata", "annotations", "llmfleet.dev/digest"], "d0"), INTENT)
    assert found is not None
    assert found.digest_changed
    assert not found.edited_by_others


def test_difference_when_a_quantity_stands_outside_resources_then_spelling_counts() -> None:
    intent: JSON = {"metadata": {}, "data": {"cpu": "1000m"}}
    assert difference({"metadata": {}, "data": {"cpu": "1"}}, intent) is not None


def test_difference_when_list_items_are_reordered_by_key_then_none() -> None:
    live = as_stored()
    live["spec"]["template"]["spec"]["containers"][0]["env"].reverse()
    assert difference(live, INTENT) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("1k", "1000"), ("0.5Gi", "512Mi"), ("2E", "2000P")],
)
def test_quantity_when_spelled_otherwise_then_equal(one: Any, other: Any) -> None:
    assert parse_quantity(one) == parse_quantity(other) is not None


@pytest.mark.parametrize("word", ["", "abc", "1Q", "Mi", True, None, "1 Gi"])
def test_quantity_when_it_is_none_then_none(word: Any) -> None:
    assert parse_quantity(word) is None


def test_fingerprint_when_only_status_and_revision_annotation_change_then_the_same() -> None:
    before, after = as_stored(), as_stored()
    after["status"] = {"replicas": 9}
    after["metadata"]["resourceVersion"] = "8"
    after["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "4"
    assert content_fingerprint(before) == content_fingerprint(after)
    after["spec"]["replicas"] = 3
    assert content_fingerprint(before) != content_fingerprint(after)


SCALARS = st.one_of(st.integers(), st.text(max_size=5), st.booleans())
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(tree=TREES)
def test_difference_when_stored_verbatim_then_none_whatever_the_content(tree: Any) -> None:
    body: JSON = {"apiVersion": "v1", "kind": "X", "metadata": {}, "spec": tree}
    assert difference(copy.deepcopy(body), body) is None
