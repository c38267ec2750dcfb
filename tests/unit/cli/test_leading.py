"""What the program says of a status that no operator keeps any more, and of an outage."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmfleet.cli.leading import find_problem
from tests.unit.cli.played import HEALTHY, Answer, chat, kubeconfig, play, run, stored

JSON = dict[str, Any]
NOW = datetime.now(UTC)
SERVED: JSON = {**HEALTHY, "ready": "1/1", "traffic": [{"revision": "0123456789", "weight": 100}]}
FORBIDDEN = b'{"kind": "Status", "message": "leases is forbidden", "code": 403}'


def lease(holder: str, ago: timedelta, namespace: str = "llmfleet-system") -> JSON:
    at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    meta = {"name": "llmfleet-operator", "namespace": namespace}
    spec = {"holderIdentity": holder, "renewTime": at, "leaseDurationSeconds": 12}
    return {"metadata": meta, "spec": spec}


def pod(component: str, ready: str, **meta: Any) -> JSON:
    labels = {"llmfleet.dev/deployment": "chat", "llmfleet.dev/component": component}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"namespace": "a", "labels": labels, **meta}, "status": status}


def cluster(leases: list[JSON] | None, pods: list[JSON], status: JSON = SERVED) -> Answer:
    """What an API server answers; ``leases`` None: they may not be listed."""
    shown = {**chat("a", status), "metadata": {**chat("a")["metadata"]}}
    shown["metadata"]["creationTimestamp"] = "2026-03-01T11:00:00Z"
    own = stored(shown)
    lists: dict[str, list[JSON]] = {
        "/api/v1/namespaces/a/pods": pods,
        "/apis/llmfleet.dev/v1alpha1/namespaces/a/llmdeployments": [shown],
    }

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path.endswith("/leases"):
            if leases is None:
                return 403, FORBIDDEN
            return 200, json.dumps({"kind": "LeaseList", "items": leases}).encode()
        if path in lists:
            return 200, json.dumps({"kind": "List", "items": lists[path]}).encode()
        return own(method, path)

    return answer


GONE = [pod("engine", "False"), pod("engine", "True", deletionTimestamp="2026-03-01T11:00:00Z")]
ENDED: dict[str, tuple[list[JSON], str]] = {
    "uninstalled": ([lease("", timedelta(hours=7))], "nobody holds the operator's Lease"),
    "killed": ([lease("uid", timedelta(hours=7))], "the operator's Lease"),
    "never there": ([], "there is no Lease llmfleet-operator"),
}


@pytest.mark.parametrize(("leases", "expected"), ENDED.values(), ids=ENDED)
def test_status_when_no_operator_leads_then_that_comes_first_with_what_is_seen_now(
    tmp_path: Path, leases: list[JSON], expected: str
) -> None:
    with play(cluster(leases, [*GONE, pod("router", "True")])) as server:
        config = kubeconfig(tmp_path, server)
        shown, listed = run(config, "status", "chat"), run(config, "get")
    first, second = shown.stdout.splitlines()[:2]
    assert first.startswith(f"! {expected}")
    assert first.endswith(": what follows is of then")
    if leases:
        assert "llmfleet-system/llmfleet-operator" in first
        assert "Z, 7h ago" in first
    assert second == "! seen now: 0 of 1 engine pods and 1 of 1 router pods are ready"
    assert shown.returncode == 13
    assert expected in listed.stderr
    assert " 0/1 " in listed.stdout


def test_status_when_an_operator_leads_then_nothing_is_said_of_it(tmp_path: Path) -> None:
    leases = [lease("", timedelta(hours=3), "old"), lease("uid", timedelta(seconds=2))]
    with play(cluster(leases, GONE)) as server:
        config = kubeconfig(tmp_path, server)
        shown, listed = run(config, "status", "chat"), run(config, "get")
        assert not [path for path in server.asked if "/pods" in path]
    assert "Lease" not in shown.stdout + listed.stderr
    assert " 1/1 " in listed.stdout
    assert shown.returncode == 0


def test_status_when_the_lease_may_not_be_read_then_only_that_is_said(tmp_path: Path) -> None:
    with play(cluster(None, GONE)) as server:
        shown = run(kubeconfig(tmp_path, server), "status", "chat")
        assert [path for path in server.asked if path.endswith("/leases/llmfleet-operator")]
    assert "whether an operator keeps this is not known" in shown.stdout
    assert shown.returncode == 0


@pytest.mark.parametrize(
    ("available", "replicas", "code"),
    [("False", 1, 14), ("True", 1, 0), ("False", 0, 0)],
    ids=["outage", "served", "none wanted"],
)
def test_status_when_clients_get_no_answer_then_the_exit_code_says_so(
    tmp_path: Path, available: str, replicas: int, code: int
) -> None:
    at = "2026-03-01T11:00:00Z"
    said = {"type": "Available", "status": available, "reason": "X", "lastTransitionTime": at}
    found = {**chat("a", {**SERVED, "conditions": [said]})}
    found["spec"] = {**found["spec"], "replicas": replicas}
    with play(stored(found)) as server:
        shown = run(kubeconfig(tmp_path, server), "status", "chat")
    assert shown.returncode == code


def test_lease_when_it_was_never_renewed_then_that_is_said() -> None:
    found = {"metadata": {"namespace": "x"}, "spec": {"holderIdentity": "uid"}}
    assert find_problem([found], NOW) == (
        "the operator's Lease x/llmfleet-operator was never renewed"
    )


@pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(hours=1)], ids=str)
@pytest.mark.parametrize("ago", [timedelta(seconds=3), timedelta(minutes=7)], ids=str)
def test_lease_when_its_holder_s_clock_is_wrong_then_the_api_server_s_time_counts(
    ahead: timedelta, ago: timedelta
) -> None:
    written = NOW - ago
    found = lease("uid", ago - ahead)
    found["metadata"]["managedFields"] = [
        {"time": f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "fieldsV1": {"f:metadata": {}}},  # a label, say
        {
            "time": f"{written:%Y-%m-%dT%H:%M:%SZ}",
            "fieldsV1": {"f:spec": {"f:renewTime": {}, "f:holderIdentity": {}}},
        },
    ]
    problem = find_problem([found], NOW)
    if ago < timedelta(minutes=1):
        assert problem is None
    else:
        assert problem is not None
        assert problem.endswith(f"was renewed last at {written:%H:%M:%SZ}, 7m ago")


@pytest.mark.parametrize("words", [["status", "chat", "-n", "d"], ["status", "-nd", "chat"],
                                   ["status", "chat", "--namespace=d"]])  # fmt: skip
def test_namespace_when_it_stands_behind_the_command_then_it_counts(
    tmp_path: Path, words: list[str]
) -> None:
    with play(stored(chat("d"))) as server:
        assert run(kubeconfig(tmp_path, server), *words).returncode == 0


def test_get_when_there_is_no_terminal_then_no_word_is_cut(tmp_path: Path) -> None:
    long = {**SERVED, "servedRevision": "0123456789", "message": "word " * 60}
    said = {"type": "Ready", "status": "True", "reason": "Ready", "message": "word " * 60,
            "lastTransitionTime": "2026-03-01T11:00:00Z"}  # fmt: skip
    with play(cluster([lease("uid", timedelta(0))], [], {**long, "conditions": [said]})) as server:
        shown = run(kubeconfig(tmp_path, server), "explain", "chat")
    assert all(len(line) > 250 or "word" not in line for line in shown.stdout.splitlines())
