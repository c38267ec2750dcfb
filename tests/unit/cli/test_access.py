"""What stands in the way to the cluster is told in one sentence: kubeconfigs, names, answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.played import CANARY, HEALTHY, chat, kubeconfig, play, run, stored


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What it says, which is one sentence, with exit code 1."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("kubectl llmfleet: ")


@pytest.mark.parametrize("current", [None, "", "gone"])
def test_context_when_it_is_named_then_a_current_one_is_not_needed(
    tmp_path: Path, current: str | None
) -> None:
    with play(stored(chat("d"))) as server:
        config = kubeconfig(tmp_path, server, current)
        assert run(config, "--context", "d", "status", "chat").returncode == 0
        assert sentence(run(config, "status", "chat")) == (
            "the kubeconfig has no context gone; it has c, d"
            if current
            else "the kubeconfig has no current context: choose one with --context, of c, d"
        )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"{a: [b", "cannot be read: while parsing", id="bad YAML"),
        pytest.param(b"\xff\xfe\x00", "cannot be read: 'utf-8' codec", id="binary"),
        pytest.param(b"", "cannot be read: Invalid kube-config.", id="empty"),
        pytest.param(b"[1]", "is not built as kubectl builds it", id="a list"),
        pytest.param(b"contexts: [1]", "is not built as kubectl builds it", id="odd contexts"),
        pytest.param(None, "cannot be read: [Errno 21]", id="a folder"),
    ],
)
def test_kubeconfig_when_it_is_broken_then_a_sentence_says_so(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "kubeconfig"
    file.mkdir() if content is None else file.write_bytes(content)
    assert sentence(run(file, "get")).startswith(f"the kubeconfig {problem}")


def test_kubeconfig_when_there_is_none_then_it_is_asked_for(tmp_path: Path) -> None:
    told = sentence(run(tmp_path / "nowhere", "get"))
    assert told == "there is no kubeconfig: set KUBECONFIG to its file"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "Chat", "chat\n", "chat?x=1", "x" * 254])
def test_name_when_nothing_can_have_it_then_the_cluster_is_not_asked(
    tmp_path: Path, name: str
) -> None:
    with play(stored()) as server:
        told = sentence(run(kubeconfig(tmp_path, server), "status", name))
        assert told.startswith("an LLMDeployment cannot be called '")
        assert server.asked == []


def test_namespace_when_nothing_can_have_it_then_the_cluster_is_not_asked(tmp_path: Path) -> None:
    with play(stored()) as server:
        told = sentence(run(kubeconfig(tmp_path, server), "-n", "..", "get"))
        assert told.startswith("a namespace cannot be called '..'")
        assert server.asked == []


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"null", b"[]"])
@pytest.mark.parametrize(
    "words",
    [["get"], ["get", "-A"], ["status", "chat"], ["status", "chat", "-w"], ["pause", "chat"]],
    ids=" ".join,
)
def test_answer_when_it_is_a_login_page_then_a_sentence_says_so(
    tmp_path: Path, words: list[str], body: bytes
) -> None:
    with play(lambda _method, _path: (200, body)) as server:
        told = sentence(run(kubeconfig(tmp_path, server), *words))
    assert told.startswith("the answer is not one of Kubernetes")


@pytest.mark.parametrize(
    ("method", "words"),
    [("PATCH", ["pause", "chat"]), ("DELETE", ["forget", "gone", "--yes"])],
    ids=["pause", "forget"],
)
def test_answer_when_only_a_write_meets_a_login_page_then_it_is_not_told_as_done(
    tmp_path: Path, method: str, words: list[str]
) -> None:
    objects = stored(chat("a"))

    def answer(asked: str, path: str) -> tuple[int, bytes]:
        return (200, b"<html>log in</html>") if asked == method else objects(asked, path)

    with play(answer) as server:
        told = sentence(run(kubeconfig(tmp_path, server), *words))
    assert told.startswith("the answer is not one of Kubernetes")


def test_forget_when_the_memory_is_deleted_then_it_is_told(tmp_path: Path) -> None:
    def answer(asked: str, path: str) -> tuple[int, bytes]:
        if asked == "DELETE" and path.endswith("/namespaces/a/configmaps/gone-llmfleet-memory"):
            return 200, b'{"kind": "Status", "apiVersion": "v1", "status": "Success"}'
        return stored()(asked, path)

    with play(answer) as server:
        done = run(kubeconfig(tmp_path, server), "forget", "gone", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a/gone is forgotten\n", "")


@pytest.mark.parametrize("act", ["retry", "undo", "promote", "abort"])
def test_revision_when_it_is_empty_then_it_is_wrong_usage_and_nothing_is_done(
    tmp_path: Path, act: str
) -> None:
    """As from a script's variable that was never set."""
    rejected = [{"hash": CANARY, "reason": "UserAbort", "at": "2026-03-01T12:00:00Z"}]
    status = {**HEALTHY, "specRevision": CANARY, "rejectedRevisions": rejected}
    with play(stored(chat("a", status))) as server:
        done = run(kubeconfig(tmp_path, server), act, "chat", "--revision", "")
        assert (done.returncode, server.asked) == (2, [])
    assert "--revision" in done.stderr
    assert "is empty" in done.stderr
