"""``kubectl_complete-llmfleet`` as kubectl runs it, without a cluster and with one that is mute."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.rich_utils import rich_render_text

from llmfleet.cli import candidates, completion
from llmfleet.cli.candidates import LONGEST_WAIT_SECONDS

pytestmark = pytest.mark.long

START_SECONDS = 20.0
"""Of a Python process with all its imports, on a machine that is busy."""


def complete(*words: str, kubeconfig: Path | None = None) -> list[str]:
    """What is printed for these words, line by line; nothing may be said beside it."""
    script = Path(sys.executable).with_name("kubectl_complete-llmfleet")
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or "/nowhere")}
    done = subprocess.run(
        [str(script), *words], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def offered(lines: list[str]) -> list[str]:
    """The candidates alone, after a look at the directive: no file names."""
    assert lines[-1] == ":4"
    return [line.partition("\t")[0] for line in lines[:-1]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["pro"], ["promote"], id="command"),
        pytest.param(
            ["-n", "team a", "re"], ["retry", "restart", "resume"], id="command-after-options"
        ),
        pytest.param(["promote", "chat", "--f"], ["--full"], id="option"),
        pytest.param(["explain", "chat", "-o", ""], ["text", "json"], id="value-of-an-option"),
        pytest.param(["retry", "--revision", ""], [], id="revision-without-a-name"),
    ],
)
def test_complete_when_tab_is_pressed_then_what_may_stand_there_is_printed(
    words: list[str],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-llmfleet", *words])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(SystemExit):
        completion.main()
    assert offered([line for line in capsys.readouterr().out.splitlines() if line]) == expected


def test_complete_when_nothing_is_typed_then_every_command_is_offered_with_what_it_does() -> None:
    lines = complete("")
    assert {"get", "status", "promote", "forget"} <= set(offered(lines))
    assert all("\t" in line for line in lines[:-1])


def test_candidate_when_what_stands_beside_it_is_hostile_then_it_is_text_on_one_line() -> None:
    told = [("chat", "[/INST] \x1b[31mred\nforged\tline"), ("other\n", "")]
    try:
        (found,) = candidates._in_time(lambda: told, "chat")
    finally:
        logging.disable(logging.NOTSET)  # it silences its whole process
    assert found[0] == "chat"
    assert rich_render_text(found[1]) == "[/INST] red forged line"


def test_complete_when_there_is_no_cluster_then_nothing_is_offered_and_nothing_said() -> None:
    assert complete("status", "") == [":4"]


def test_complete_when_the_cluster_is_mute_then_nobody_waits_for_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        kubeconfig = tmp_path / "kubeconfig"
        server = {"server": f"http://127.0.0.1:{mute.getsockname()[1]}"}
        context = {"cluster": "mute", "user": "nobody"}
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "mute",
                    "clusters": [{"name": "mute", "cluster": server}],
                    "users": [{"name": "nobody", "user": {}}],
                    "contexts": [{"name": "mute", "context": context}],
                }
            )
        )
        began = time.monotonic()
        assert complete("status", "", kubeconfig=kubeconfig) == [":4"]
        assert time.monotonic() - began < LONGEST_WAIT_SECONDS + START_SECONDS
