"""What a GitOps user has: a Git repository, and an Application of Argo CD that follows it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hack.argocd.running import NAMESPACE
from hack.kube.kubectl import apply, get, kubectl, wait_for

JSON = dict[str, Any]
SYNC_SECONDS = 60


class Repository:
    """A bare repository, and the clone of the person who commits to it."""

    def __init__(self, folder: Path) -> None:
        self._clone = folder / "clone"
        bare = folder / "fleet.git"
        _git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        _git(folder, "clone", "--quiet", str(bare), str(self._clone))
        self.url = f"file://{bare}"

    def commit(self, files: Mapping[str, JSON | None], message: str) -> str:
        """Commits and pushes manifests, None = without that file; returns the commit."""
        for name, content in files.items():
            path = self._clone / name
            if content is None:
                path.unlink()
            else:
                path.write_text(yaml.safe_dump(content))
        _git(self._clone, "add", "--all")
        _git(self._clone, "commit", "--quiet", "-m", message)
        _git(self._clone, "push", "--quiet", "origin", "HEAD:main")
        return _git(self._clone, "rev-parse", "HEAD").strip()


def _git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=tests", "-c", "user.email=tests@llmfleet.test"]
    done = subprocess.run(
        ["git", *author, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Seen:
    """What an Application said at one moment."""

    sync: str
    revision: str
    health: str


class Application:
    """One Application, synced and healed by Argo CD without being asked."""

    def __init__(self, name: str, repository: Repository, namespace: str) -> None:
        self.name = name
        self._manifest: JSON = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "project": "default",
                "source": {"repoURL": repository.url, "targetRevision": "main", "path": "."},
                "destination": {
                    "server": "https://kubernetes.default.svc",
                    "namespace": namespace,
                },
                "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
            },
        }

    def create(self) -> None:
        apply(self._manifest)

    def object(self) -> JSON:
        """The Application as stored."""
        return get("applications.argoproj.io", self.name, NAMESPACE) or {}

    def seen(self) -> Seen:
        """Its sync state, the commit that is about, and its health."""
        status = self.object().get("status") or {}
        sync = status.get("sync") or {}
        health = (status.get("health") or {}).get("status", "")
        return Seen(sync.get("status", ""), sync.get("revision", ""), health)

    def follow(self, commit: str) -> None:
        """Has it look at the repository now, and waits until the commit is synced."""
        self._patch({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}})
        self._wait(f"be Synced at {commit}", lambda seen: self._is_synced(seen, commit))

    def sync_again(self) -> None:
        """What a click on Sync does, and waits until it is done."""
        before = len(self.history())
        operation = {"sync": {"revision": self.seen().revision, "prune": True}}
        self._patch({"operation": operation})
        wait_for(
            f"{self.name} to be synced once more",
            lambda: len(self.history()) > before,
            timeout_seconds=SYNC_SECONDS,
            describe=self.describe,
        )

    def history(self) -> list[JSON]:
        """Every sync that succeeded."""
        found: list[JSON] = (self.object().get("status") or {}).get("history") or []
        return found

    def wait_for_health(self, health: str, *, timeout_seconds: float = 120) -> None:
        """Waits until it is Synced and has this health."""
        self._wait(
            f"be Synced and {health}",
            lambda seen: (seen.sync, seen.health) == ("Synced", health),
            timeout_seconds=timeout_seconds,
        )

    def describe(self) -> str:
        """Everything it says, for messages."""
        status = self.object().get("status") or {}
        state = status.get("operationState") or {}
        return f"{self.seen()}, {status.get('conditions')}, {state.get('message')}"

    def _is_synced(self, seen: Seen, commit: str) -> bool:
        return (seen.sync, seen.revision) == ("Synced", commit)

    def _wait(
        self, what: str, true: Callable[[Seen], bool], *, timeout_seconds: float = SYNC_SECONDS
    ) -> None:
        wait_for(
            f"{self.name} to {what}",
            lambda: true(self.seen()),
            timeout_seconds=timeout_seconds,
            describe=self.describe,
        )

    def _patch(self, content: JSON) -> None:
        kubectl(
            "patch", "applications.argoproj.io", self.name, "-n", NAMESPACE, "--type=merge",
            "-p", json.dumps(content),
        )  # fmt: skip


class Watch:
    """Notes everything an Application says, from now until it is stopped."""

    _COLUMNS = (
        "{.status.sync.status}{'|'}{.status.sync.revision}{'|'}{.status.health.status}{'\\n'}"
    )

    def __init__(self, application: Application) -> None:
        self.seen: list[Seen] = []
        line = ["kubectl", "get", "applications.argoproj.io", application.name, "-n", NAMESPACE]
        self._process = subprocess.Popen(
            [*line, "--watch", "-o", f"jsonpath={self._COLUMNS}"], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen.append(Seen(*line.rstrip("\n").split("|")))

    def stop(self) -> None:
        """Ends the watch."""
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)
