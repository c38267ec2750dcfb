"""What happened in the cluster, with times, so that a lost request can be explained."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_WATCHED = ("pods", "endpointslices")


class Journal:
    """Lines with times, in a file and in memory; safe from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        self._lock = threading.Lock()
        self._entries: list[tuple[float, str]] = []

    def note(self, text: str) -> None:
        """Adds a line, now."""
        now = time.time()
        with self._lock, self._path.open("a") as file:
            self._entries.append((now, text))
            file.write(f"{_clock(now)} {text}\n")

    def around(self, moment: float, *, seconds: float = 8) -> list[str]:
        """The lines of so many seconds before a moment, and two after."""
        with self._lock:
            return [
                f"{_clock(at)} {text}" for at, text in self._entries if -seconds <= at - moment <= 2
            ]


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment)) + f"{moment % 1:.3f}"[1:]


@contextlib.contextmanager
def watching(journal: Journal, namespace: str) -> Iterator[None]:
    """Notes every change of pods and endpoints in a namespace while the block runs."""
    over = threading.Event()
    running: dict[str, subprocess.Popen[str]] = {}

    def follow(kind: str) -> None:
        line = ["kubectl", "get", kind, "-n", namespace, "-o", "wide", "-w", "--no-headers"]
        while not over.is_set():
            with subprocess.Popen(
                line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                running[kind] = process
                for said in process.stdout or ():
                    journal.note(f"  {kind}: {' '.join(said.split())}")
            over.wait(1)

    threads = [threading.Thread(target=follow, args=(kind,), daemon=True) for kind in _WATCHED]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for process in running.values():
            process.terminate()
        for thread in threads:
            thread.join(5)


@contextlib.contextmanager
def keeping_logs(source: Path, target: Path, *namespaces: str) -> Iterator[None]:
    """Links the node's pod logs into a folder as they appear: they outlive their pods."""
    over = threading.Event()

    def link_all() -> None:
        paths = (path for name in namespaces for path in source.glob(f"{name}_*/*/*.log"))
        for path in paths:
            link = target / f"{path.parent.parent.name}_{path.parent.name}_{path.name}"
            if not link.exists():
                with contextlib.suppress(OSError):  # gone, or on another file system
                    os.link(path.resolve(), link)

    def repeat() -> None:
        while not over.wait(2):
            link_all()

    target.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
        link_all()
