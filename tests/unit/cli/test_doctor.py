"""What the doctor says of clusters that are played: its exit codes, and words of others."""

from __future__ import annotations

import json
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
