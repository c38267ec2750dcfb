"""What the doctor says of clusters that are played: its exit codes, and words of others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmfleet.cli.doctor.checking import CHECKS, exit_code
from llmfleet.cli.doctor.finding import Finding, State
from llmfleet.cli.doctor.selectors import selects
from tests.unit.cli.played import Answer, kubeconfig, play, run

JSON = dict[str, Any]
OPERATOR: JSON = {
    "metadata": {"name": "[/x]\x1b[2J", "namespace": "sys"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"env": [{"name": "LLMFLEET_ROUTER_IMAGE"}]}]}},
    },
}


def answering(found: dict[str, JSON], status: int = 403) -> Answer:
    """With these objects by path; with a status to everything else."""

    def answer(_method: str, path: str) -> tuple[int, bytes]:
        if path in found:
            return 200, json.dumps(found[path]).encode()
        return status, b'{"kind": "Status", "message": "no"}'

    return answer


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([State.OK, State.OK], 0),
        ([State.OK, State.UNKNOWN], 3),
        ([State.UNKNOWN, State.MISSING], 1),
        ([], 0),
    ],
)
def test_exit_code_when_something_is_missing_or_unknown_then_it_says_so(
    states: list[State], code: int
) -> None:
    findings = [Finding(check="x", state=each, message="x") for each in states]
    assert exit_code(findings) == code


def test_cluster_when_it_does_not_answer_then_one_sentence_and_a_code_of_its_own(
    tmp_path: Path,
) -> None:
    with play(answering({})) as server:
        config = kubeconfig(tmp_path, server)
    done = run(config, "doctor")  # nobody listens there any more
    assert (done.returncode, done.stdout) == (121, "")
    assert done.stderr.startswith("kubectl llmfleet: the API server does not answer: ")
    nowhere = run(tmp_path / "nowhere", "doctor")
    assert nowhere.returncode == 121
    assert "there is no kubeconfig" in nowhere.stderr


def test_cluster_when_it_knows_nobody_of_this_name_then_that_is_no_finding(tmp_path: Path) -> None:
    with play(answering({}, status=401)) as server:
        done = run(kubeconfig(tmp_path, server), "doctor")
    assert (done.returncode, done.stdout) == (121, "")
    assert "does not know you" in done.stderr


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"null", b"[]", b"{}", b"[" * 100_000])
def test_cluster_when_it_is_a_login_page_then_a_sentence_says_so(
    tmp_path: Path, body: bytes
) -> None:
    with play(lambda _method, _path: (200, body)) as server:
        done = run(kubeconfig(tmp_path, server), "doctor", "-o", "json")
    assert (done.returncode, done.stdout) == (121, "")
    assert done.stderr.startswith("kubectl llmfleet: the answer is not one of Kubernetes")


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_cluster_when_it_answers_nothing_that_is_asked_then_nothing_is_known_and_all_is_asked(
    tmp_path: Path, status: int
) -> None:
    with play(answering({}, status)) as server:
        done = run(kubeconfig(tmp_path, server), "doctor", "-o", "json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert [each["check"] for each in found] == [name for name, _ in CHECKS]
    assert {each["state"] for each in found if each["check"] != "your-clock"} == {"unknown"}


def test_words_when_others_wrote_them_then_they_are_shown_as_text(tmp_path: Path) -> None:
    with play(
        answering({"/apis/apps/v1/deployments": {"kind": "List", "items": [OPERATOR]}})
    ) as server:
        config = kubeconfig(tmp_path, server)
        shown, told = run(config, "doctor"), run(config, "doctor", "-o", "json")
    assert "0 of 2 operator pods of sys/[/x]" in shown.stdout
    for each in (shown.stdout, told.stdout):
        assert "\x1b" not in each
    operator = next(each for each in json.loads(told.stdout) if each["check"] == "operator")
    assert operator["fix"] == "kubectl describe deployment '[/x]' -n sys"


def test_operator_when_there_is_none_then_the_command_that_installs_it_is_told(
    tmp_path: Path,
) -> None:
    empty: JSON = {"kind": "List", "items": []}
    found = {"/apis/apps/v1/deployments": empty, "/apis/coordination.k8s.io/v1/leases": empty}
    with play(answering(found)) as server:
        done = run(kubeconfig(tmp_path, server), "doctor", "-o", "json")
    by_check = {each["check"]: each for each in json.loads(done.stdout)}
    assert by_check["operator"]["fix"].startswith("helm install llmfleet ")
    assert by_check["lease"]["message"].startswith("there is no Lease llmfleet-operator")


def installed(page: bytes | None, url: str = "http://prometheus", status: int = 200) -> Answer:
    """An operator whose first pod leads, and what its page ``/signals`` is."""
    variables = [
        {"name": "LLMFLEET_ROUTER_IMAGE", "value": "r"},
        {"name": "LLMFLEET_PROMETHEUS_URL", "value": url},
        {"name": "LLMFLEET_NETWORK_POLICIES", "value": "false"},
    ]
    operator = json.loads(json.dumps(OPERATOR))
    operator["metadata"] = {"name": "llmfleet", "namespace": "sys"}
    operator["spec"]["template"]["spec"]["containers"][0]["env"] = variables
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lease = {
        "metadata": {"name": "llmfleet-operator", "namespace": "sys"},
        "spec": {"holderIdentity": "u1", "renewTime": at, "leaseDurationSeconds": 12},
    }
    lists: dict[str, list[JSON]] = {
        "/apis/apps/v1/deployments": [operator],
        "/apis/coordination.k8s.io/v1/leases": [lease],
        "/api/v1/namespaces/sys/pods": [{"metadata": {"name": "llmfleet-1", "uid": "u1"}}],
        "/apis/llmfleet.dev/v1alpha1/llmdeployments": [
            {"metadata": {"namespace": "a", "name": "chat"}, "spec": {"autoscaling": {}}},
            {"metadata": {"namespace": "a", "name": "embed"}, "spec": {"autoscaling": {"x": 1}}},
        ],
    }
    others = answering({path: {"kind": "List", "items": each} for path, each in lists.items()})

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path == "/api/v1/namespaces/sys/pods/llmfleet-1:8080/proxy/signals" and page is not None:
            return status, page
        return others(method, path)

    return answer


def signals(**more: Any) -> bytes:
    return json.dumps(
        {"schema": 1, "configured": True, "problem": "", "metrics": [], **more}
    ).encode()


LACKING: JSON = {
    "metric": "vllm:num_requests_running", "chartValue": "monitoring.podMonitor.enabled",
    "asOf": None, "objects": 3, "missing": 1,
    "without": [{"namespace": "a", "name": "chat", "problem": "Prometheus has none"}],
}  # fmt: skip


def prometheus_of(tmp_path: Path, answer: Answer) -> list[JSON]:
    with play(answer) as server:
        done = run(kubeconfig(tmp_path, server), "doctor", "-o", "json")
    assert done.stderr == ""
    return [each for each in json.loads(done.stdout) if each["check"] in {"prometheus", "series"}]


def test_prometheus_when_the_operator_has_no_answer_of_it_then_its_problem_and_value_are_told(
    tmp_path: Path,
) -> None:
    page = signals(problem="HTTP status 401 (Unauthorized)", chartValue="prometheus.tokenSecret")
    (found,) = prometheus_of(tmp_path, installed(page))
    assert found["state"] == "missing"
    assert found["message"].endswith("the operator sys/llmfleet: HTTP status 401 (Unauthorized)")
    assert found["fix"] == "correct the chart value prometheus.tokenSecret"


def test_series_when_prometheus_lacks_them_then_the_objects_and_the_chart_value_are_named(
    tmp_path: Path,
) -> None:
    there = {**LACKING, "metric": "llmfleet_leader", "missing": 0, "asOf": "12:00", "without": []}
    none = {**LACKING, "objects": 0, "missing": 0}
    answered, lacking, has, nobody = prometheus_of(
        tmp_path, installed(signals(metrics=[LACKING, there, none]))
    )
    assert (answered["check"], answered["state"]) == ("prometheus", "ok")
    assert lacking["state"] == "missing"
    assert lacking["message"].endswith("it is not known of 1 (a/chat): Prometheus has none")
    assert lacking["fix"].startswith("set the chart value monitoring.podMonitor.enabled=true")
    assert (has["state"], nobody["state"]) == ("ok", "ok")


@pytest.mark.parametrize("url", ["", "http://prometheus"])
def test_prometheus_when_none_is_set_and_something_needs_it_then_the_chart_value_is_named(
    tmp_path: Path, url: str
) -> None:
    page = b'{"schema": 1, "configured": false}'  # set, and the operator was not started anew
    (found,) = prometheus_of(tmp_path, installed(page, url))
    assert found["state"] == "missing"
    assert "a/embed would be scaled by it" in found["message"]
    assert found["fix"].startswith("set the chart value prometheus.url=http://")


STATUS = b'{"kind": "Status", "message": "error trying to reach service: dial tcp: refused"}'


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        (STATUS, 503, "the API server cannot reach llmfleet-1: error trying to reach service"),
        (STATUS, 403, "you may not ask pods in sys (get pods/proxy)"),
        (b"404: Not Found", 404, "llmfleet-1 has no page /signals of this version"),
        (b"[]", 200, "llmfleet-1 has no page /signals of this version"),
        (signals(metrics=["x"]), 200, "the operator's page /signals is not of this version"),
        (signals(metrics=None), 200, "the operator's page /signals is not of this version"),
        (signals(metrics=[{**LACKING, "without": ["x"]}]), 200, "is not of this version"),
    ],
)
def test_prometheus_when_the_operator_cannot_be_asked_then_it_says_why_it_cannot_know(
    tmp_path: Path, page: bytes, status: int, words: str
) -> None:
    found = prometheus_of(tmp_path, installed(page, status=status))[-1]
    assert (found["check"], found["state"]) == ("prometheus", "unknown")
    assert found["message"].startswith("cannot know, because ")
    assert words in found["message"]
    if status == 503:
        assert found["fix"].startswith("kubectl port-forward -n sys llmfleet-1 8080 ")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "c", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "?"}]}, False),
    ],
    ids=str,
)
def test_selector_when_labels_are_held_against_it_then_it_selects_as_kubernetes_does(
    selector: JSON | None, expected: bool
) -> None:
    assert selects(selector, {"a": "1", "b": "2"}) is expected
