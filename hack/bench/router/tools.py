"""What the benchmark needs and llmfleet does not: fetched once into the cache, never installed.

wrk and nginx are unpacked from Debian's packages, the rival routers go into virtual environments of
their own from hash-pinned locks, the stub engines are built by Go. What cannot be had is None, and
its targets are skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STUB_SOURCE = Path(__file__).with_name("stub")
DEBIAN_PACKAGES = ("wrk", "nginx", "libluajit2-5.1-2", "libluajit2-5.1-common")


class AbsentError(Exception):
    """A tool cannot be had here; the message says why."""


def cache() -> Path:
    """The benchmark's folder in llmfleet's cache."""
    home = Path(os.environ.get("LLMFLEET_CACHE") or Path.home() / ".cache" / "llmfleet")
    folder = home / "bench-router"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def say(words: str) -> None:
    """Progress, on stderr."""
    sys.stderr.write(f"{words}\n")


def debian() -> Path:
    """Root of the unpacked Debian packages.

    Raises:
        AbsentError: apt or dpkg is missing, or a package cannot be fetched.
    """
    root = cache() / "debian"
    if not (root / ".done").exists():
        say(f"fetching {' '.join(DEBIAN_PACKAGES)} (Debian) into {root} …")
        packages = cache() / "packages"
        packages.mkdir(exist_ok=True)
        _run(["apt-get", "download", "-q", *DEBIAN_PACKAGES], packages)
        for package in sorted(packages.glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(root)], packages)
        (root / ".done").touch()
    return root


def wrk() -> tuple[str, dict[str, str]]:
    """The load generator (PATH's, else Debian's) and the environment it runs in."""
    if found := shutil.which("wrk"):
        return found, dict(os.environ)
    root = debian()
    libraries = next(root.glob("usr/lib/*/libluajit-5.1.so.2")).parent
    return str(root / "usr/bin/wrk"), {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def nginx() -> str:
    """The binary of nginx: PATH's, else Debian's."""
    return shutil.which("nginx") or str(debian() / "usr/sbin/nginx")


def stub() -> str:
    """The stub engines' binary, built from ``stub/`` once its own tests pass."""
    sources = sorted(STUB_SOURCE.glob("*.go"))
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:12]
    binary = cache() / f"stub-{digest}"
    if not binary.exists():
        say("building and testing the stub engines …")
        _run(["go", "test", "."], STUB_SOURCE)
        _run(["go", "build", "-o", str(binary), "."], STUB_SOURCE)
    return str(binary)


def rival(name: str) -> Path:
    """Folder of the programs of ``requirements/bench-NAME.txt``.

    Raises:
        AbsentError: pip could not install it.
    """
    lock = ROOT / "requirements" / f"bench-{name}.txt"
    home = cache() / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (home / ".done").exists():
        say(f"installing {name} into {home} (up to two minutes) …")
        _run([sys.executable, "-m", "venv", "--clear", str(home)], ROOT)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        _run([*pip, "--require-hashes", "-r", str(lock)], ROOT)
        (home / ".done").touch()
    return home / "bin"


def version(name: str) -> str:
    """The pinned version of a rival."""
    lock = (ROOT / "requirements" / f"bench-{name}.txt").read_text()
    lines = (line for line in lock.splitlines() if line.startswith(f"{name}=="))
    return next(lines).split("==")[1].split()[0]


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise AbsentError(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AbsentError(f"{' '.join(command[:4])} … failed: {done.stderr.strip()[-300:]}")
