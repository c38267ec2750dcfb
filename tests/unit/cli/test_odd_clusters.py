"""Clusters, terminals and moments that a night may bring: what is printed is true, and whole."""

from __future__ import annotations

import copy
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from rich.console import Console

from llmfleet.api import parse
from llmfleet.cli import __main__ as program
from llmfleet.cli import annotating, view
from tests.unit.cli.played import HEALTHY, JSON, SERVED, Answer, chat, kubeconfig, play, run
from tests.unit.gitops.states import reach

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG = "assistant-for-the-legal-department-eu-1"


def without_the_crd(_method: str, _path: str) -> tuple[int, bytes]:
    return 404, b"404 page not found\n"


@pytest.mark.parametrize(
    "words",
    [["get"], ["get", "-A"], ["status", "chat"], ["status", "chat", "-w"], ["pause", "chat"]],
    ids=" ".join,
)
def test_crd_when_it_is_not_installed_then_that_is_said_and_not_that_an_object_is_missing(
    tmp_path: Path, words: list[str]
) -> None:
    with play(without_the_crd) as server:
        done = run(kubeconfig(tmp_path, server), *words)
    assert done.returncode == 1
    assert "the cluster does not know LLMDeployments: is llmfleet installed there" in done.stderr


def test_forget_when_the_crd_is_gone_then_what_is_remembered_can_still_be_deleted(
    tmp_path: Path,
) -> None:
    def answer(method: str, path: str) -> tuple[int, bytes]:
        if method == "DELETE" and path.endswith("/configmaps/chat-llmfleet-memory"):
            return 200, b'{"kind": "Status", "status": "Success"}'
        return without_the_crd(method, path)

    with play(answer) as server:
        done = run(kubeconfig(tmp_path, server), "forget", "chat", "--yes")
    assert (done.returncode, done.stdout) == (0, "a/chat is forgotten\n")


def listing(items: list[JSON], leases: bytes, pods: bytes) -> Answer:
    def answer(_method: str, path: str) -> tuple[int, bytes]:
        kind = path.rpartition("/")[2]
        found = {
            "leases": leases,
            "pods": pods,
            "llmdeployments": json.dumps({"items": items}).encode(),
        }
        return 200, found[kind]

    return answer


def named(name: str) -> JSON:
    found = copy.deepcopy(chat("a"))
    found["metadata"] |= {"name": name, "creationTimestamp": "2026-03-01T11:00:00Z"}
    found["status"] |= {"ready": "10/10", "phase": "Progressing"}
    return found


@pytest.mark.parametrize(
    ("leases", "pods"),
    [(b'{"items": []}', b"null"), (b"null", b""), (b'{"items": [1]}', b""), (b"[]", b"")],
    ids=["no pods", "no leases", "odd leases", "a list"],
)
def test_get_when_what_is_asked_beside_it_is_odd_then_the_list_is_shown_all_the_same(
    tmp_path: Path, leases: bytes, pods: bytes
) -> None:
    with play(listing([named("chat")], leases, pods)) as server:
        done = run(kubeconfig(tmp_path, server), "get")
    assert done.returncode == 0
    assert "chat" in done.stdout


def test_get_when_the_terminal_is_narrow_then_no_word_is_cut(tmp_path: Path) -> None:
    with (
        play(listing([named(LONG)], b'{"items": []}', b'{"items": []}')) as server,
        patch.object(program.console, "_force_terminal", True),
        patch.dict("os.environ", {"TERM": "xterm", "NO_COLOR": "1"}),
    ):
        shown = run(kubeconfig(tmp_path, server), "get", "-A").stdout
    assert "…" not in shown
    assert {LONG, "Progressing", SERVED, "READY"} <= set(shown.replace("\x1b[0m", " ").split())


@pytest.mark.parametrize(
    ("state", "code"), [("scaled up, not seen yet", 10), ("all engines are lost", 14)]
)
def test_status_when_the_newest_spec_is_not_seen_then_nobody_is_told_that_it_is_served(
    state: str, code: int
) -> None:
    """So ``kubectl apply`` and then ``status`` in a script wait for what was applied."""
    world = reach(state)
    world.edit(replicas=5)
    deployment = parse(world.raw)
    assert view.exit_code(deployment) == code
    assert view.whats_next(deployment, world.now) == "the operator looks at the newest spec"


def test_attempts_when_one_was_aborted_then_its_number_is_that_of_the_message() -> None:
    for state, said in (
        ("aborted by the cluster, tried again later", "attempt 1: aborted"),
        ("aborted by the cluster, second try", "attempt 2: "),
        ("retries exhausted", "attempt 4: aborted"),
    ):
        status = parse(reach(state).raw).status
        assert status.rollout is not None
        assert said in view._steps(status, status.rollout, NOW).plain


def test_next_when_a_person_is_needed_and_something_moves_then_both_are_said() -> None:
    world = reach("undone, on its way back")
    said = view.whats_next(parse(world.raw), world.now)
    moving = world.condition("Progressing")["message"]
    assert said.startswith(f"{moving}; after that, change spec, or `kubectl llmfleet retry chat`")


def test_next_when_it_is_paused_by_hand_outside_a_rollout_then_that_is_said() -> None:
    deployment = parse(chat("a", HEALTHY, pause="true"))
    said = view.whats_next(deployment, NOW)
    assert said.endswith("and until `kubectl llmfleet resume chat` a changed one waits")


def test_available_when_no_replicas_are_wanted_then_it_is_no_problem() -> None:
    deployment = parse(reach("scaled to zero").raw)
    available = deployment.status.condition("Available")
    assert available is not None
    assert available.status == "False"
    assert not view.is_problem(available, deployment)
    assert view.is_problem(available, parse(reach("healthy").raw))


def test_deletion_when_somebodys_finalizer_holds_it_up_then_nothing_else_is_said_to_be_next() -> (
    None
):
    raw = chat("a")
    raw["metadata"] |= {"deletionTimestamp": "2026-03-01T11:00:00Z"}
    deployment = parse(raw)
    assert view.whats_next(deployment, NOW) == "it is being deleted, with all that is its own"
    shown = io.StringIO()
    Console(file=shown, width=200).print(view.status_view(deployment, NOW))
    assert "(being deleted)" in shown.getvalue()


def test_retry_when_the_newest_spec_is_not_seen_then_only_one_that_is_named_is_lifted() -> None:
    world = reach("aborted by hand")
    old = world.status()["specRevision"]
    world.edit(engine={"maxModelLen": 4096})
    deployment = parse(world.raw)
    with pytest.raises(annotating.NothingToDoError, match="the operator has not seen that yet"):
        annotating.retry(deployment, NOW)
    assert annotating.retry(deployment, NOW, revision=old)
