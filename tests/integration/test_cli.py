"""``kubectl llmfleet`` as a process, against a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer, find_binary
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.waiting import eventually

JSON = dict[str, Any]
HEALTHY: JSON = {
    "observedGeneration": 1,
    "schema": 1,
    "phase": "Healthy",
    "message": "0123456789 is served by 1 replica",
    "ready": "1/1",
    "servedRevision": "0123456789",
    "specRevision": "0123456789",
    "traffic": [{"revision": "0123456789", "weight": 100}],
    "revisions": [{"hash": "0123456789", "replicas": 1, "readyReplicas": 1}],
}
CANARY: JSON = {
    **HEALTHY,
    "phase": "Progressing",
    "rollout": {
        "id": 2,
        "revision": "abcdef0123",
        "attempt": 0,
        "plan": {"strategy": "Canary", "steps": [{"setWeight": 25}, {"pause": {}}]},
    },
}
MEMORY: JSON = {"metadata": {"name": "chat-llmfleet-memory"}, "data": {"rejected": "{}"}}


@pytest.fixture
def fleet(api_server: ApiServer, namespace: str) -> Fleet:
    made = Fleet(api_server, namespace)
    made.apply(llm_deployment())
    # As an operator would: statuses of nobody are told as such.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "a test", "renewTime": now, "leaseDurationSeconds": 3600}
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    made.server.create(path, {"metadata": {"name": "llmfleet-operator"}, "spec": spec})
    return made


def run(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmfleet.cli", "-n", fleet.namespace, *words]
    environment = {**os.environ, "KUBECONFIG": str(fleet.server.kubeconfig), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def tell(fleet: Fleet, status: JSON) -> None:
    fleet.patch(f"{fleet.resource_path('chat')}/status", {"status": status})


def test_status_when_asked_then_exit_code_tells_health_and_json_is_the_status(fleet: Fleet) -> None:
    assert run(fleet, "status", "chat").returncode == 13
    tell(fleet, HEALTHY)
    done = run(fleet, "status", "chat")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0123456789" in done.stdout
    tell(fleet, CANARY)
    done = run(fleet, "status", "chat", "-o", "json")
    assert done.returncode == 10
    assert json.loads(done.stdout)["rollout"]["revision"] == "abcdef0123"


HOSTILE = "[/INST] [bold]x[/] \x1b]0;owned\x07\x1b[2J\u202egnol"


def test_views_when_the_status_holds_markup_and_escapes_then_they_are_printed_as_text(
    fleet: Fleet,
) -> None:
    at = "2026-03-01T12:00:00Z"
    condition = {
        "type": "Ready", "status": "False", "reason": "Degraded", "lastTransitionTime": at,
        "message": HOSTILE,
    }  # fmt: skip
    rejected = {"hash": "abcdef0123", "reason": HOSTILE, "at": at, "message": HOSTILE}
    revisions = [{**HEALTHY["revisions"][0], "image": HOSTILE}]
    tell(fleet, {
        **HEALTHY, "phase": "Degraded", "message": HOSTILE, "conditions": [condition],
        "rejectedRevisions": [rejected], "revisions": revisions, "ready": "[/]",
    })  # fmt: skip
    for words in (["status", "chat"], ["explain", "chat"], ["history", "chat"], ["get"]):
        done = run(fleet, *words)
        assert "Traceback" not in done.stderr, done.stderr
        assert "[/" in done.stdout
        assert not {"\x1b", "\u202e"} & set(done.stdout)
        assert "owned" not in done.stdout
    # In JSON it is what is stored, with escapes for what is not seen.
    told = run(fleet, "explain", "chat", "-o", "json").stdout
    assert json.loads(told)["message"] == HOSTILE
    assert told.isascii()
    done = run(fleet, "retry", "[/INST]")
    assert done.returncode == 1
    assert "an LLMDeployment cannot be called '[/INST]'" in done.stderr


def test_get_when_asked_then_the_fleet_is_listed(fleet: Fleet) -> None:
    tell(fleet, HEALTHY)
    assert "Healthy" in run(fleet, "get").stdout
    (one,) = json.loads(run(fleet, "get", "-o", "json").stdout)
    assert one["metadata"]["name"] == "chat"


def test_promote_when_a_canary_is_under_way_then_its_revision_and_a_new_token_are_annotated(
    fleet: Fleet,
) -> None:
    tell(fleet, HEALTHY)
    refused = run(fleet, "promote", "chat")
    assert refused.returncode == 1
    assert "nothing is being rolled out" in refused.stderr
    tell(fleet, {**CANARY, "rollout": {**CANARY["rollout"], "step": 1}})
    late = run(fleet, "promote", "chat", "--step", "0")
    assert late.returncode == 1
    assert "step 0 of abcdef0123 is not under way: it is step 1" in late.stderr
    assert run(fleet, "promote", "chat").returncode == 0
    first = (fleet.resource() or {})["metadata"]["annotations"]["llmfleet.dev/promote"]
    assert first.startswith("abcdef0123/1@")
    assert run(fleet, "promote", "chat", "--full").returncode == 0
    second = (fleet.resource() or {})["metadata"]["annotations"]["llmfleet.dev/promote"]
    assert second.startswith("abcdef0123/full@")
    assert second.partition("@")[2] != first.partition("@")[2]


def test_pause_when_resumed_then_the_annotation_is_gone(fleet: Fleet) -> None:
    assert run(fleet, "pause", "chat").returncode == 0
    assert (fleet.resource() or {})["metadata"]["annotations"]["llmfleet.dev/pause"] == "true"
    assert run(fleet, "resume", "chat").returncode == 0
    annotations = (fleet.resource() or {})["metadata"].get("annotations") or {}
    assert "llmfleet.dev/pause" not in annotations


def test_forget_when_the_resource_is_there_then_it_is_refused_with_what_to_do_instead(
    fleet: Fleet,
) -> None:
    fleet.server.create(fleet.path("ConfigMap"), MEMORY)
    bad = {"hash": "abcdef0123", "reason": "UserAbort", "at": "2026-03-01T12:00:00Z"}
    tell(fleet, {**HEALTHY, "rejectedRevisions": [bad]})
    done = run(fleet, "forget", "chat", "--yes")
    assert done.returncode == 1
    assert f"kubectl delete llmdep chat -n {fleet.namespace}" in done.stderr
    assert f"`kubectl llmfleet -n {fleet.namespace} retry chat --revision abcdef0123`" in (
        done.stderr
    )
    assert fleet.child("ConfigMap", "chat-llmfleet-memory") is not None


@pytest.mark.parametrize("stays", [False, True], ids=["gone", "waits-for-a-finalizer"])
def test_forget_when_the_resource_is_deleted_and_it_is_confirmed_then_the_memory_goes(
    fleet: Fleet, stays: bool
) -> None:
    fleet.server.create(fleet.path("ConfigMap"), MEMORY)
    if stays:
        fleet.patch(fleet.resource_path("chat"), {"metadata": {"finalizers": ["example.com/x"]}})
    fleet.server.request("DELETE", fleet.resource_path("chat"))
    assert (fleet.resource() is not None) == stays
    assert run(fleet, "forget", "chat").returncode == 1
    assert run(fleet, "forget", "chat", "--yes").returncode == 0
    assert fleet.child("ConfigMap", "chat-llmfleet-memory") is None
    assert "nothing is remembered" in run(fleet, "forget", "chat", "--yes").stderr
    if stays:
        fleet.patch(fleet.resource_path("chat"), {"metadata": {"finalizers": []}})


def complete(fleet: Fleet, *words: str) -> list[str]:
    """What kubectl offers a shell for these words behind ``kubectl llmfleet -n NAMESPACE``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "KUBECONFIG": str(fleet.server.kubeconfig), "PATH": path}
    done = subprocess.run(
        [str(find_binary("kubectl")), "__complete", "llmfleet", "-n", fleet.namespace, *words],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status", ""], ["chat\tHealthy", "embed\tUnknown"]),
        (["promote", "c"], ["chat\tHealthy"]),
        (["doctor", "c"], ["chat\tHealthy"]),
        (["retry", "chat", "--revision", ""], ["abcdef0123\tUserAbort"]),
        (["undo", "chat", "--revision", "f"], ["fedcba3210\tengine:1[/x]"]),
    ],
    ids=["names", "name-begun", "name-of-doctor", "rejected-revision", "kept-revision"],
)
def test_tab_when_kubectl_asks_then_names_and_the_revisions_of_an_act_are_offered(
    fleet: Fleet, words: list[str], expected: list[str]
) -> None:
    rejected = [{"hash": "abcdef0123", "reason": "UserAbort", "at": "2026-03-01T12:00:00Z"}]
    served = {"hash": "fedcba3210", "image": "engine:1[/x]", "promotedAt": "2026-02-01T12:00:00Z"}
    never = {"hash": "fffff43210", "image": "engine:1"}
    revisions = [never, served, *HEALTHY["revisions"]]
    tell(fleet, {**HEALTHY, "revisions": revisions, "rejectedRevisions": rejected})
    fleet.apply(llm_deployment("embed"))
    # On a busy machine the cluster's answer may come too late to be offered.
    eventually(lambda: complete(fleet, *words) == [*expected, ":4"], f"{expected} is offered", 60)


def test_json_when_asked_of_explain_or_an_act_then_it_is_what_status_says_or_was_annotated(
    fleet: Fleet,
) -> None:
    tell(fleet, CANARY)
    explained = json.loads(run(fleet, "explain", "chat", "-o", "json").stdout)
    assert explained["message"] == CANARY["message"]
    assert set(explained) == {"phase", "message", "conditions", "rejectedRevisions"}
    done = json.loads(run(fleet, "abort", "chat", "-o", "json").stdout)
    stored = (fleet.resource() or {})["metadata"]
    assert done["metadata"]["name"] == "chat"
    assert done["annotations"] == stored["annotations"]
    assert json.loads(run(fleet, "pause", "chat", "-o", "json").stdout)["annotations"] == {
        "llmfleet.dev/pause": "true"
    }


def test_cluster_when_it_says_no_then_one_sentence_and_no_traceback(fleet: Fleet) -> None:
    for words, sentence in (
        (("status", "absent"), "is not there"),
        (("--context", "nowhere", "status", "chat"), "no context nowhere"),
    ):
        done = run(fleet, *words)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_status_when_watched_then_every_state_is_told_until_it_is_deleted(fleet: Fleet) -> None:
    tell(fleet, HEALTHY)
    command = [sys.executable, "-m", "llmfleet.cli", "-n", fleet.namespace, "status", "chat"]
    environment = {**os.environ, "KUBECONFIG": str(fleet.server.kubeconfig)}
    with subprocess.Popen(
        [*command, "--watch", "-o", "json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            assert json.loads(watching.stdout.readline())["phase"] == "Healthy"
            tell(fleet, CANARY)
            lines = iter(watching.stdout.readline, "")
            assert any(json.loads(line)["phase"] == "Progressing" for line in lines)
            fleet.server.request("DELETE", fleet.resource_path("chat"))
            assert watching.wait(30) == 1
            assert watching.stderr.read() == "chat was deleted\n"
        finally:
            watching.kill()
