"""Processes by record: only what we started is ever stopped."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hack.cluster import golang, preflight, processes
from hack.cluster.errors import ClusterError
from hack.cluster.settings import Settings


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_identify_when_process_runs_then_the_same_each_time() -> None:
    mine = processes.identify(os.getpid())
    assert mine is not None
    assert processes.alive(mine)


def test_identify_when_process_has_ended_then_none(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert processes.identify(sleeper.pid) is None


def test_stop_when_pid_was_recycled_then_the_other_process_lives(
    sleeper: subprocess.Popen[bytes],
) -> None:
    other = processes.identify(sleeper.pid)
    assert other is not None
    recorded = dataclasses.replace(other, started_ticks=other.started_ticks - 1)
    processes.stop([recorded], grace_seconds=0.1)
    assert processes.alive(other)


def test_stop_when_sigterm_is_ignored_then_killed() -> None:
    script = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    )
    line = [sys.executable, "-c", script]
    child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    process = processes.identify(child.pid)
    assert process is not None
    processes.stop([process], grace_seconds=0.2)
    assert not processes.alive(process)
    child.stdout.close()


def test_recorder_when_daemon_started_then_found_by_a_later_recorder(tmp_path: Path) -> None:
    first = processes.Recorder(tmp_path / "records", tmp_path / "logs")
    started = first.start("nap", ["sleep", "60"], cgroups=[])
    try:
        later = processes.Recorder(tmp_path / "records", tmp_path / "logs")
        assert later.find("nap") == started
        assert later.all_alive() == [started]
    finally:
        processes.stop([started], grace_seconds=1)
    assert later.find("nap") is None


def test_recorder_when_record_is_broken_then_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "nap.json").write_text('{"pid": 1}')
    assert processes.Recorder(tmp_path, tmp_path).all_alive() == []


def _product(root: Path) -> tuple[Settings, golang.Product]:
    module = root / "hack" / "cluster" / "tools" / "x"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module x\n")
    (root / "bin").mkdir()
    (root / "bin" / "x").touch()
    return Settings(repository=root, cache=root), golang.Product(name="x", packages={"x": "."})


def test_up_to_date_when_module_is_as_built_then_true(tmp_path: Path) -> None:
    settings, product = _product(tmp_path)
    assert not golang.up_to_date(settings, product)
    golang.write_stamp(settings, product)
    assert golang.up_to_date(settings, product)


@pytest.mark.parametrize("change", ["module", "sums", "binary"])
def test_up_to_date_when_something_changed_then_false(tmp_path: Path, change: str) -> None:
    settings, product = _product(tmp_path)
    golang.write_stamp(settings, product)
    folder = golang.module_folder(settings, product)
    if change == "module":
        (folder / "go.mod").write_text("module x\n\ngo 1.26\n")
    elif change == "sums":
        (folder / "go.sum").write_text("a\n")
    else:
        (settings.binaries / "x").unlink()
    assert not golang.up_to_date(settings, product)


def test_require_disk_when_too_little_then_says_how_much_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"needs 1000000 GiB free.*LLMFLEET_CACHE"):
        preflight.require_disk(tmp_path / "not" / "there", 1e6, "building")
