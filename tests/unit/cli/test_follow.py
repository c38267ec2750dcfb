"""``status --watch`` when the API server refuses, breaks off or forgets; the server is played."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmfleet.cli import access

JSON = dict[str, Any]
CHAT: JSON = {
    "apiVersion": "llmfleet.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "chat", "namespace": "a", "uid": "u", "resourceVersion": "7"},
    "spec": {"model": {"source": "pvc://m/one", "servedName": "m"}, "replicas": 1},
    "status": {"phase": "Healthy", "message": "x is served", "schema": 1},
}
MAY_NOT_WATCH = 'User "dev" cannot watch resource "llmdeployments"'


class Server(ThreadingHTTPServer):
    """Answers reads and watches with these statuses, the last one for ever; 0 breaks off."""

    daemon_threads = True

    def __init__(self, reads: list[int], watches: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reads, self.watches = list(reads), list(watches)

    def next(self, *, watch: bool) -> int:
        statuses = self.watches if watch else self.reads
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status = self.server.next(watch="watch=" in self.path)
        if status == 0:
            self.connection.close()
            return
        body = CHAT if status == 200 else {"kind": "Status", "message": MAY_NOT_WATCH}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def played(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(*request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def watch(server: Server, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = folder / "kubeconfig"
    cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
    context = {"cluster": "c", "user": "dev", "namespace": "a"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "dev", "user": {}}],
                "contexts": [{"name": "c", "context": context}],
            }
        )
    )
    return subprocess.run(
        [sys.executable, "-m", "llmfleet.cli", "status", "chat", "--watch", *options],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )


@pytest.mark.long
@pytest.mark.parametrize("options", [[], ["-o", "json"]], ids=["text", "json"])
@pytest.mark.parametrize("played", [([200], [403])], indirect=True, ids=["may get, not watch"])
def test_status_when_it_may_not_be_watched_then_a_sentence_and_exit_code_1(
    played: Server, tmp_path: Path, options: list[str]
) -> None:
    done = watch(played, tmp_path, *options)
    assert done.returncode == 1
    assert done.stderr == f"kubectl llmfleet: you may not: {MAY_NOT_WATCH}\n"
    assert "Healthy" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("options", [[], ["-o", "json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "played", [([200, 503, 404], [0])], indirect=True, ids=["breaks off, then 503"]
)
def test_status_when_the_server_is_away_for_a_while_then_the_watch_goes_on_to_the_end(
    played: Server, tmp_path: Path, options: list[str]
) -> None:
    done = watch(played, tmp_path, *options)
    assert (done.returncode, done.stderr) == (1, "chat was deleted\n")


def test_follow_when_watches_end_at_once_then_it_waits_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, slept, ends = object.__new__(access.Cluster), list[float](), iter([[], [], [None]])
    cluster.namespace = "a"
    monkeypatch.setattr(access.time, "sleep", slept.append)
    monkeypatch.setattr(cluster, "_read", lambda name: CHAT)
    monkeypatch.setattr(cluster, "_watch", lambda name: next(ends))
    assert list(cluster.follow("chat"))[-1] is None
    assert len(slept) == 2
    assert min(slept) > 0
