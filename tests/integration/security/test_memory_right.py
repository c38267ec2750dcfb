"""What llmfleet remembers and makes pods from is written by it, and by who has the right to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer, wait_for
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.operator import running_operator
from hack.processes.waiting import eventually

from tests.integration.security.policies import grant, installed_policies, rule

JSON = dict[str, Any]
MERGE = "application/merge-patch+json"
EVERYTHING = ("get", "list", "create", "update", "patch", "delete", "deletecollection")
LABEL = {"llmfleet.dev/deployment": "chat"}
OWNER = {
    "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LLMDeployment", "name": "chat",
    "uid": "0f1e2d3c-0000-4000-8000-000000000001", "controller": True,
}  # fmt: skip
REVISION: JSON = {"revision": 1, "data": {"schema": 1}}
CONTAINERS = [{"name": "engine", "image": "x"}]
POD = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": CONTAINERS}}
DEPLOYMENT = {"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": POD}}

FORGED: dict[str, tuple[str, JSON]] = {
    "the memory by name": ("ConfigMap", {"metadata": {"name": "chat-llmfleet-memory"}}),
    "the memory by label": ("ConfigMap", {"metadata": {"name": "any", "labels": LABEL}}),
    "a revision by label": (
        "ControllerRevision", {"metadata": {"name": "chat-rev-0", "labels": LABEL}, **REVISION},
    ),
    "a revision by owner": (
        "ControllerRevision",
        {"metadata": {"name": "chat-rev-0", "ownerReferences": [OWNER]}, **REVISION},
    ),
    "an engine": (
        "Deployment", {"metadata": {"name": "chat-rev-0", "labels": LABEL}, **DEPLOYMENT},
    ),
}  # fmt: skip
"""Kind and object, each made by name in turn."""


@pytest.fixture(scope="module")
def guarded(api_server: ApiServer) -> Iterator[Fleet]:
    """A namespace in an API server with the chart's policies at work."""
    with installed_policies(api_server):
        fleet = Fleet(api_server, api_server.create_namespace("memory"))
        editor = _editor(fleet, "editor")
        kind, body = FORGED["the memory by name"]
        wait_for(
            lambda: ask(fleet, editor, "POST", fleet.path(kind), body, dry=True)[0] == 403,
            "the policy about the memory is at work",
        )
        yield fleet


def _editor(fleet: Fleet, name: str, *more: JSON) -> str:
    """Token of an account that may write everything of the kinds in question."""
    rules = [
        rule("", "configmaps", *EVERYTHING),
        rule("apps", "controllerrevisions", *EVERYTHING),
        rule("apps", "deployments", *EVERYTHING),
    ]
    return grant(fleet.server, fleet.namespace, name, *rules, *more)


@pytest.fixture(scope="module")
def editor(guarded: Fleet) -> str:
    """Token of an account without the right."""
    return guarded.server.service_account_token(guarded.namespace, "editor")


@pytest.fixture(scope="module")
def keeper(guarded: Fleet) -> str:
    """Token of an account with it: an administrator, a backup tool."""
    return _editor(guarded, "keeper", rule("llmfleet.dev", "llmdeployments/memory", "update"))


def ask(
    fleet: Fleet, token: str, verb: str, path: str, body: JSON | None = None, *, dry: bool = False
) -> tuple[int, str]:
    """Status and text of an answer to the owner of a token."""
    with fleet.server.client(token) as client:
        answer = client.request(
            verb,
            f"{path}?dryRun=All" if dry else path,
            # A ControllerRevision's data is compared by its bytes, which a patch writes so.
            content=None if body is None else json.dumps(body, separators=(",", ":")),
            headers={"Content-Type": MERGE if verb == "PATCH" else "application/json"},
        )
    return answer.status_code, answer.text


@pytest.mark.parametrize("what", FORGED)
def test_object_of_ours_when_the_right_is_missing_then_it_is_neither_made_changed_nor_deleted(
    guarded: Fleet, editor: str, keeper: str, what: str
) -> None:
    kind, body = FORGED[what]
    status, text = ask(guarded, editor, "POST", guarded.path(kind), body)
    assert status == 403, text
    assert "needs the right to update llmdeployments/memory in namespace" in text
    made = guarded.path(kind, body["metadata"]["name"])
    assert ask(guarded, keeper, "POST", guarded.path(kind), body)[0] == 201
    for change in (
        {"metadata": {"annotations": {"note": "x"}}},
        {"metadata": {"labels": {"llmfleet.dev/deployment": None}, "ownerReferences": None}},
    ):
        status, text = ask(guarded, editor, "PATCH", made, change)
        assert status == 403, text
    for deleted in (made, guarded.path(kind)):
        status, text = ask(guarded, editor, "DELETE", deleted)
        assert status == 403, text
    assert ask(guarded, keeper, "DELETE", made)[0] == 200


def test_other_object_when_the_right_is_missing_then_nobody_asks_for_it_until_it_looks_like_ours(
    guarded: Fleet, editor: str
) -> None:
    path = guarded.path("ConfigMap")
    assert ask(guarded, editor, "POST", path, {"metadata": {"name": "mine"}})[0] == 201
    assert ask(guarded, editor, "PATCH", f"{path}/mine", {"data": {"a": "b"}})[0] == 200
    assert ask(guarded, editor, "PATCH", f"{path}/mine", {"metadata": {"labels": LABEL}})[0] == 403
    generated = {"metadata": {"generateName": "some-"}}
    assert ask(guarded, editor, "POST", path, generated)[0] == 201
    assert ask(guarded, editor, "DELETE", f"{path}/mine")[0] == 200


def test_right_when_it_is_for_one_name_then_it_ends_there(guarded: Fleet) -> None:
    only = {**rule("llmfleet.dev", "llmdeployments/memory", "update"), "resourceNames": ["chat"]}
    token = _editor(guarded, "narrow", only)
    path = guarded.path("ConfigMap")
    for name, expected in (("chat", 201), ("other", 403)):
        for body in (
            {"metadata": {"name": f"{name}-llmfleet-memory"}},
            {"metadata": {"name": "x", "labels": {"llmfleet.dev/deployment": name}}},
        ):
            assert ask(guarded, token, "POST", path, body, dry=True)[0] == expected


ELSEWHERE: dict[str, tuple[str, JSON]] = {
    "another's memory with our label": (
        "ConfigMap", {"metadata": {"name": "other-llmfleet-memory", "labels": LABEL}},
    ),
    "the memory of a name that ends as ours": (
        "ConfigMap", {"metadata": {"name": "chat-llmfleet-memory-llmfleet-memory"}},
    ),
    "a revision that another owns": (
        "ControllerRevision",
        {
            "metadata": {
                "name": "other-rev-0", "labels": LABEL,
                "ownerReferences": [{**OWNER, "name": "other"}],
            },
            **REVISION,
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def narrow(guarded: Fleet) -> str:
    """Token of an account with the right for ``chat`` alone."""
    only = {**rule("llmfleet.dev", "llmdeployments/memory", "update"), "resourceNames": ["chat"]}
    return _editor(guarded, "one-name", only)


@pytest.mark.parametrize("what", ELSEWHERE)
def test_right_when_it_is_for_one_name_then_no_label_carries_it_to_another(
    guarded: Fleet, narrow: str, what: str
) -> None:
    kind, body = ELSEWHERE[what]
    status, text = ask(guarded, narrow, "POST", guarded.path(kind), body, dry=True)
    assert status == 403, text


def test_right_when_it_is_for_one_name_then_what_is_ours_is_not_given_to_another(
    guarded: Fleet, narrow: str
) -> None:
    path = guarded.path("ConfigMap")
    mine = {"metadata": {"name": "given", "labels": LABEL}}
    assert ask(guarded, narrow, "POST", path, mine)[0] == 201
    for other in ("other", "chat-2"):
        change = {"metadata": {"labels": {"llmfleet.dev/deployment": other}}}
        assert ask(guarded, narrow, "PATCH", f"{path}/given", change)[0] == 403
    assert ask(guarded, narrow, "DELETE", f"{path}/given")[0] == 200


@pytest.mark.parametrize("controller", ["generic-garbage-collector", "namespace-controller"])
def test_controllers_of_the_cluster_when_they_delete_then_they_may(
    guarded: Fleet, keeper: str, controller: str
) -> None:
    token = guarded.server.service_account_token("kube-system", controller)
    for kind, body in FORGED.values():
        made = guarded.path(kind, body["metadata"]["name"])
        assert ask(guarded, keeper, "POST", guarded.path(kind), body)[0] == 201
        assert ask(guarded, token, "DELETE", made)[0] == 200


def test_operator_when_the_policies_are_at_work_then_it_makes_and_removes_what_it_needs(
    guarded: Fleet, tmp_path: Path
) -> None:
    with running_operator(guarded.server, tmp_path) as operator:
        operator.wait_leading(120)
        guarded.apply(llm_deployment("made", rollout={"revisionHistoryLimit": 0}))
        eventually(
            lambda: guarded.child("ConfigMap", "made-llmfleet-memory"), "the memory is made", 60
        )
        limit = {"spec": {"engine": {"maxModelLen": 1024}}}
        guarded.patch(guarded.resource_path("made"), limit)
        eventually(
            lambda: len(guarded.children("ControllerRevision")) == 1, "history is pruned", 60
        )
        assert "is not used" not in operator.log.read_text()


def test_memory_when_forged_before_the_resource_is_made_then_no_pod_is_made_from_it(
    guarded: Fleet, tmp_path: Path
) -> None:
    """The policy switched off, so to say: an administrator restored what somebody had forged."""
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"hostPID": True, "containers": CONTAINERS},
    }
    good = {"hash": "0123456789", "number": 1, "image": "x", "payload": {}, "template": template}
    data = {"schema": "1", "rejected": "[]", "lastGood": json.dumps(good)}
    label = {"llmfleet.dev/deployment": "forged"}
    meta = {"name": "forged-llmfleet-memory", "labels": label}
    guarded.server.create(guarded.path("ConfigMap"), {"metadata": meta, "data": data})
    with running_operator(guarded.server, tmp_path) as operator:
        operator.wait_leading(120)
        guarded.apply(llm_deployment("forged"))
        said = eventually(
            lambda: guarded.condition("MemoryUnreadable", "forged"), "the condition is there", 60
        )
        assert "kubectl delete configmap forged-llmfleet-memory" in said["message"]
        assert guarded.child("Deployment", "forged-rev-0123456789") is None
        guarded.server.request("DELETE", guarded.path("ConfigMap", "forged-llmfleet-memory"))
        eventually(lambda: guarded.condition("Progressing", "forged"), "the resource goes on", 60)
        assert guarded.condition("MemoryUnreadable", "forged") is None
