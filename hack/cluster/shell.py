"""Running other programs."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.cluster.errors import ClusterError


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    check: bool = True,
    timeout_seconds: float | None = None,
) -> str:
    """Runs a command and returns what it printed.

    Raises:
        ClusterError: `check` is set and the command failed; the message ends with its last lines.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            timeout=timeout_seconds,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError:
        raise ClusterError(f"`{words[0]}` is not installed or not on PATH") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{shown(words)}` did not end within {timeout_seconds} s") from None
    if check and done.returncode:
        raise ClusterError(f"`{shown(words)}` failed: {tail(done.stderr or done.stdout)}")
    return done.stdout


def shown(words: Sequence[str], *, limit: int = 120) -> str:
    """A command line, shortened for a message."""
    line = " ".join(words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def tail(output: str, *, lines: int = 4) -> str:
    """The last lines of an output that say something."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    return " | ".join(said[-lines:]) or "it printed nothing"
