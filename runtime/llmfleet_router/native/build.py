"""Compiles Envoy's module: ``python build.py OUTPUT``; the compiler is PyPI's ziglang.

Needs nothing but Python and that package, so that the image and a developer's machine build alike.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = (
    "key.c", "checks.c", "balance.c", "pages.c", "ledger.c", "counting.c", "config.c",
    "balancer.c", "module.c",
)  # fmt: skip
# glibc of Debian 10: older than any base image that Python 3.11 and Envoy run on.
GLIBC = "2.28"
FLAGS = (
    "-std=c11", "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-sanitize=all",
    "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wall", "-Wextra", "-Wpedantic",
    "-Wconversion", "-Wno-sign-conversion", "-Werror", "-Wl,-z,relro,-z,now", "-s",
)  # fmt: skip


def command(output: Path) -> list[str]:
    """The compiler's command line."""
    target = f"{platform.machine()}-linux-gnu.{GLIBC}"
    sources = [str(FOLDER / name) for name in SOURCES]
    return [
        sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS,
        "-o", str(output), *sources,
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(subprocess.run(command(Path(sys.argv[1])), check=False).returncode)
