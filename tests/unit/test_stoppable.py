"""Programs that are a container's first process can be told to stop while they are being loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Stands in for the first library that each program imports, and asks what a kubelet asks then.
TOLD_TO_STOP = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()"


@pytest.mark.parametrize(
    "program",
    [
        ["llmfleet"],
        ["llmfleet_router", "agent"],
        ["llmfleet_router", "envoy"],
        ["llmfleet_runtime"],
    ],
    ids=" ".join,
)
def test_program_when_told_to_stop_while_it_is_loaded_then_it_handles_the_signal(
    program: list[str], tmp_path: Path
) -> None:
    (tmp_path / "structlog.py").write_text(TOLD_TO_STOP)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", *program],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    # Without a handler it would be killed by the signal here, and not at all as a first process.
    assert done.returncode == 0, done.stderr
