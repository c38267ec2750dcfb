"""Every status that was ever recorded of one LLMDeployment, in order, by a watch."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hack.kube.kubectl import NotInTimeError, condition, kubectl

from tests.e2e.fleet import Fleet

JSON = dict[str, Any]
GONE = 410
GROUP = "/apis/llmfleet.dev/v1alpha1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One version of the resource, as far as these tests read it."""

    at: float
    """Unix time at which it arrived."""
    spec_replicas: int
    current: bool = True
    """Whether the operator had seen this generation of spec."""
    status: JSON = field(default_factory=dict)

    @classmethod
    def read(cls, stored: JSON) -> Seen:
        """From the resource as stored, now."""
        status = stored.get("status") or {}
        return cls(
            at=time.time(),
            spec_replicas=int(stored["spec"]["replicas"]),
            current=status.get("observedGeneration") == stored["metadata"]["generation"],
            status=status,
        )

    @property
    def traffic(self) -> Mapping[str, int]:
        """Percent by revision, as commanded."""
        return {one["revision"]: one["weight"] for one in self.status.get("traffic", ())}

    @property
    def routing(self) -> JSON:
        """What routers do besides."""
        return self.status.get("routing") or {}

    @property
    def generation(self) -> int:
        """Of traffic and routing."""
        return int(self.status.get("trafficGeneration") or 0)

    @property
    def rejected(self) -> Mapping[str, str]:
        """Reason by rejected hash."""
        return {one["hash"]: one["reason"] for one in self.status.get("rejectedRevisions", ())}

    @property
    def served(self) -> str:
        """The served revision."""
        return str(self.status.get("servedRevision", ""))

    @property
    def rollout(self) -> JSON:
        """The rollout's record; empty outside one."""
        return self.status.get("rollout") or {}

    @property
    def handled(self) -> Mapping[str, str]:
        """The last value of each act that was carried out or refused."""
        return self.status.get("handledActs") or {}

    def condition(self, kind: str) -> JSON:
        """One of its conditions, empty when absent."""
        return condition({"status": self.status}, kind)

    @property
    def phase(self) -> str:
        """Summary of the conditions."""
        return str(self.status.get("phase", ""))

    def as_line(self) -> str:
        """What is kept of it on disk."""
        rollout = {key: value for key, value in self.rollout.items() if key != "plan"}
        kept = {
            "at": self.at, "replicas": self.spec_replicas, "current": self.current,
            "phase": self.phase, "served": self.served, "traffic": self.traffic,
            "routing": self.routing, "generation": self.generation, "rejected": self.rejected,
            "rollout": rollout, "handled": self.handled, "message": self.status.get("message"),
        }  # fmt: skip
        return json.dumps(kept)


class History:
    """What a watch has seen so far; safe to read while it goes on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        self._path = path
        self._changed = threading.Condition()
        self._seen: list[Seen] = []
        self.gaps = 0
        """How often the watch was too old to go on, so that statuses may be missing."""

    def add(self, seen: Seen) -> None:
        """The next version."""
        with self._changed, self._path.open("a") as file:
            file.write(seen.as_line() + "\n")
            self._seen.append(seen)
            self._changed.notify_all()

    @property
    def seen(self) -> tuple[Seen, ...]:
        """All versions so far."""
        with self._changed:
            return tuple(self._seen)

    def wait_for(
        self, what: str, holds: Callable[[Seen], bool], *, timeout_seconds: float = 120
    ) -> Seen:
        """Waits until the latest version is as asked, and returns it.

        Raises:
            NotInTimeError: it was not so in time; says what it is instead.
        """

        def latest() -> Seen | None:
            last = self._seen[-1] if self._seen else None
            return last if last is not None and holds(last) else None

        with self._changed:
            found = self._changed.wait_for(latest, timeout_seconds)
            if found is not None:
                return found
            last = self._seen[-1].as_line() if self._seen else "no status"
        raise NotInTimeError(f"waited {timeout_seconds:g} s for {what}; instead: {last}")


class _Watch:
    """Follows one resource from a version on, in a thread, until told to end."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._fleet, self._history = fleet, history
        self._over = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._version = self._begin()

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(10)

    def _path(self, **query: str) -> str:
        chosen = urlencode({"fieldSelector": f"metadata.name={self._fleet.name}", **query})
        return f"{GROUP}/namespaces/{self._fleet.namespace}/llmdeployments?{chosen}"

    def _begin(self) -> str:
        """The version to watch from; what is there now is the first one seen."""
        listed = json.loads(kubectl("get", "--raw", self._path()))
        for stored in listed["items"]:
            self._history.add(Seen.read(stored))
        return str(listed["metadata"]["resourceVersion"])

    def _follow(self) -> None:
        while not self._over.is_set():
            path = self._path(watch="1", resourceVersion=self._version, allowWatchBookmarks="true")
            with subprocess.Popen(
                ["kubectl", "get", "--raw", path],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            ) as self._process:  # fmt: skip
                for line in self._process.stdout or ():
                    if not self._take(json.loads(line)):
                        self._process.terminate()
                        break
            self._over.wait(0.2)

    def _take(self, event: JSON) -> bool:
        """One event; False where the watch cannot go on from its version."""
        if event["type"] == "ERROR":
            if event["object"].get("code") == GONE:
                self._history.gaps += 1
                self._version = self._begin()
            return False
        self._version = str(event["object"]["metadata"]["resourceVersion"])
        if event["type"] in {"ADDED", "MODIFIED"}:
            self._history.add(Seen.read(event["object"]))
        return True


@contextlib.contextmanager
def following(fleet: Fleet, path: Path) -> Iterator[History]:
    """Every status of the fleet's resource while the block runs, in memory and as JSON lines."""
    history = History(path)
    watch = _Watch(fleet, history)
    watch.start()
    try:
        yield history
    finally:
        watch.end()
