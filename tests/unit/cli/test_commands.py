"""Commands that the CLI prints lead to where it has looked, and can be run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.unit.cli.played import PAUSED, chat, kubeconfig, play, run, stored

COMMAND = re.compile(r"`kubectl llmfleet ([^`\n]*)`|: kubectl llmfleet (.*)$", re.MULTILINE)


def told(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in COMMAND.findall(text)]


LONG = "team-production-inference-emea-west-of-the-river"


@pytest.mark.parametrize(
    ("options", "namespace", "expected"),
    [
        pytest.param([], "a", "", id="the-context's-own"),
        pytest.param(["-n", "a"], "a", "", id="the-context's-own-by-name"),
        pytest.param(["-n", "team-b"], "team-b", "-n team-b ", id="another-namespace"),
        pytest.param(["--context", "d"], "d", "--context d ", id="another-context"),
        pytest.param(["-n", LONG], LONG, f"-n {LONG} ", id="longer-than-80-columns"),
        pytest.param(["-n", "a", "--context", "d"], "a", "-n a --context d ", id="both"),
    ],
)
def test_advice_when_followed_as_printed_then_it_finds_what_it_is_about(
    tmp_path: Path, options: list[str], namespace: str, expected: str
) -> None:
    with play(stored(chat(namespace, PAUSED))) as server:
        config = kubeconfig(tmp_path, server)
        shown = run(config, *options, "status", "chat")
        assert told(shown.stdout) == [f"{expected}promote chat"]
        followed = run(config, *shlex.split(told(shown.stdout)[0]))
        assert followed.returncode == 0, followed.stderr
        assert told(followed.stdout) == [f"{expected}status chat --watch"]


def test_advice_when_a_pause_by_hand_is_in_the_way_then_the_resume_finds_it_too(
    tmp_path: Path,
) -> None:
    with play(stored(chat(LONG, PAUSED, pause="true"))) as server:
        config = kubeconfig(tmp_path, server)
        refused = run(config, "-n", LONG, "promote", "chat")
        assert refused.returncode == 1
        assert told(refused.stderr) == [f"-n {LONG} resume chat"]
        assert run(config, *shlex.split(told(refused.stderr)[0])).returncode == 0


def test_advice_when_the_operator_said_nothing_yet_then_its_pods_are_looked_for_in_that_cluster(
    tmp_path: Path,
) -> None:
    with play(stored(chat("d", {}))) as server:
        shown = run(kubeconfig(tmp_path, server), "--context", "d", "status", "chat")
    command = "kubectl get pods -A -l app.kubernetes.io/name=llmfleet --context d"
    assert (shown.returncode, command in shown.stdout) == (13, True)
