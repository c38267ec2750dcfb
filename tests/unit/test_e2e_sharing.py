"""How the end-to-end tests share one cluster: lanes, turns, and what is done once."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from hack.kube.local import ROOT

from tests.e2e.sharing import SHARED, is_ours, lane, once, turn

TEST = "import os\ndef test_{name}(): print(os.environ['PYTEST_XDIST_WORKER'] + ':{name}')\n"


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/e2e/test_1_serving.py::test_a", SHARED),
        ("tests/e2e/test_9_new.py::test_a", SHARED),
        ("tests/e2e/test_8_argocd.py::test_a", "test_8_argocd.py"),
        ("tests/e2e/test_3_acts.py::test_a[undo]", "tests/e2e/test_3_acts.py::test_a[undo]"),
        ("tests/e2e/rollouts/test_routes.py::test_a", "tests/e2e/rollouts/test_routes.py::test_a"),
    ],
)
def test_lane_when_the_test_is_there_then_it_follows_those_it_shares_with(
    nodeid: str, expected: str
) -> None:
    assert lane(nodeid) == expected


@pytest.mark.long
def test_lanes_when_workers_run_them_then_a_lane_stays_in_one(tmp_path: Path) -> None:
    for number in range(1, 5):
        (tmp_path / f"test_{number}_shared.py").write_text(TEST.format(name=f"shared_{number}"))
    (tmp_path / "test_8_argocd.py").write_text(TEST.format(name="argocd"))
    (tmp_path / "conftest.py").write_text(
        "import pytest\nfrom tests.e2e.sharing import Lanes\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_xdist_make_scheduler(config, log): return Lanes(config, log)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(tmp_path), "-n", "2", "-rP", "-p", "no:cacheprovider",
         "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ran = dict(reversed(line.split(":")) for line in done.stdout.splitlines() if line[:2] == "gw")
    shared = {worker for name, worker in ran.items() if name.startswith("shared")}
    assert len(ran) == 5
    assert len(shared) == 1
    assert shared != {ran["argocd"]}


def test_turn_when_one_is_alone_then_nobody_is_beside_it(tmp_path: Path) -> None:
    with turn(tmp_path, alone=True):
        assert not could_come(tmp_path / "turns", fcntl.LOCK_SH)
    assert could_come(tmp_path / "turns", fcntl.LOCK_EX)


def test_turn_when_it_is_not_alone_then_others_are_beside_it_but_none_that_must_be(
    tmp_path: Path,
) -> None:
    with turn(tmp_path, alone=False):
        assert could_come(tmp_path / "turns", fcntl.LOCK_SH)
        assert not could_come(tmp_path / "turns", fcntl.LOCK_EX)


def could_come(file: Path, how: int) -> bool:
    with file.open("a") as opened:
        try:
            fcntl.flock(opened, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_once_when_another_comes_then_it_waits_for_the_end_and_knows_the_result(
    tmp_path: Path,
) -> None:
    waits: list[bool] = []

    def work() -> str:
        waits.append(not could_come(tmp_path / "work.lock", fcntl.LOCK_EX))
        return f"result {len(waits)}"

    assert [once(tmp_path, "work", work) for _ in range(2)] == ["result 1", "result 1"]
    assert waits == [True]


def test_once_when_it_failed_then_the_next_one_tries_it_again(tmp_path: Path) -> None:
    def fail() -> str:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        once(tmp_path, "work", fail)
    assert once(tmp_path, "work", lambda: "second") == "second"


@pytest.mark.parametrize(
    ("name", "ours"),
    [("e2e", True), ("e2e-gw0", True), ("e2e-gw12", True), ("e2e-team", False), ("e2egw0", False)],
)
def test_namespace_when_it_is_of_an_earlier_run_then_it_is_known(name: str, ours: bool) -> None:
    assert is_ours(name) is ours
