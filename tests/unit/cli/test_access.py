"""What stands in the way to the cluster is told in one sentence: kubeconfigs, names, answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.played import chat, kubeconfig, play, run, stored

pytestmark = pytest.mark.long


@pytest.mark.parametrize("current", [None, "", "gone"])
def test_context_when_it_is_named_then_a_current_one_is_not_needed(
    tmp_path: Path, current: str | None
) -> None:
    with play(stored(chat("d"))) as server:
        config = kubeconfig(tmp_path, server, current)
        assert run(config, "--context", "d", "status", "chat").returncode == 0
        done = run(config, "status", "chat")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr == (
        "kubectl llmfleet: the kubeconfig has no context gone; it has c, d\n"
        if current
        else "kubectl llmfleet: the kubeconfig has no current context: choose one with"
        " --context, of c, d\n"
    )
