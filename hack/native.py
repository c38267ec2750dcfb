"""Envoy's module for local use: `python -m hack.native` compiles it once and prints its path.

The compiler (PyPI's ziglang, pinned by hash) and the module lie in llmfleet's cache, each under the
hash of what it was made from. The image builds the same sources with the same compiler.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "runtime" / "llmfleet_router" / "native"
LOCK = ROOT / "requirements" / "native.txt"


class NativeError(Exception):
    """The compiler could not be had, or the module does not compile; the message says why."""


def module_file() -> Path:
    """The compiled module; the first call on a machine fetches the compiler (90 MB).

    Raises:
        NativeError: pip or the compiler failed.
    """
    return _made("llmfleet_router.so", [str(SOURCES / "build.py")], sorted(SOURCES.iterdir()))


def compiled(name: str, sources: list[Path], flags: tuple[str, ...]) -> Path:
    """Something else made of C sources, for tests; headers are looked for beside the sources.

    Raises:
        NativeError: as above.
    """
    folders = sorted({source.parent for source in sources})
    headers = [header for folder in folders for header in sorted(folder.glob("*.h"))]
    included = [f"-I{folder}" for folder in folders]
    words = ["-m", "ziglang", "cc", *included, *flags, *map(str, sources), "-o"]
    return _made(name, words, [*sources, *headers], flags)


def _made(name: str, words: list[str], inputs: list[Path], flags: tuple[str, ...] = ()) -> Path:
    """Runs Python with these words and the output's path, unless it was done before.

    Before is: with the same flags and inputs, in whatever folder they lay.
    """
    digest = hashlib.sha256("\0".join((name, *flags)).encode())
    for path in (LOCK, *(path for path in inputs if path.is_file())):
        digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    output = _cache() / digest.hexdigest()[:16] / name
    if output.exists():
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    with (_cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            environment = dict(os.environ)
            environment["PYTHONPATH"] = str(compiler())
            environment["ZIG_GLOBAL_CACHE_DIR"] = str(_cache() / "zig")
            environment["ZIG_LOCAL_CACHE_DIR"] = str(_cache() / "zig")
            unfinished = output.with_suffix(".unfinished")
            _run([sys.executable, *words, str(unfinished)], environment)
            unfinished.rename(output)
    return output


def compiler() -> Path:
    """Folder that holds the package of the compiler."""
    folder = _cache() / f"ziglang-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    done = folder / ".done"
    if not done.exists():
        sys.stderr.write(f"fetching the C compiler (PyPI's ziglang) into {folder} …\n")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        _run([*pip, "--upgrade", "--target", str(folder), "-r", str(LOCK)], dict(os.environ))
        done.touch()
    return folder


def _cache() -> Path:
    home = Path(os.environ.get("LLMFLEET_CACHE") or Path.home() / ".cache" / "llmfleet")
    folder = home / "native"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NativeError(f"{' '.join(command[:4])} … failed: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    sys.stdout.write(f"{module_file()}\n")
