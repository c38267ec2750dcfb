"""A played API server, and ``kubectl llmfleet`` that asks it."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from kubernetes.config import kube_config

from llmfleet.cli import __main__ as program

JSON = dict[str, Any]
SERVED, CANARY = "0123456789", "abcdef0123"
META: JSON = {"name": "chat", "uid": "u", "resourceVersion": "7", "generation": 1}
SPEC: JSON = {"model": {"source": "pvc://m/one", "servedName": "m"}, "replicas": 1}
HEALTHY: JSON = {
    "observedGeneration": 1,
    "schema": 1,
    "phase": "Healthy",
    "message": "ok",
    "servedRevision": SERVED,
    "specRevision": SERVED,
    "revisions": [{"hash": SERVED, "replicas": 1, "readyReplicas": 1}],
}
PLAN: JSON = {"strategy": "Canary", "steps": [{"setWeight": 25}, {"pause": {}}]}
PAUSED: JSON = {
    **HEALTHY,
    "phase": "Paused",
    "specRevision": CANARY,
    "rollout": {"id": 2, "state": "Forward", "revision": CANARY, "step": 1, "plan": PLAN},
}


def chat(namespace: str, status: JSON = HEALTHY, **annotations: str) -> JSON:
    """An LLMDeployment as stored."""
    marks = {f"llmfleet.dev/{key}": value for key, value in annotations.items()}
    meta = {**META, "namespace": namespace, "annotations": marks}
    return {"metadata": meta, "spec": SPEC, "status": status}


Answer = Callable[[str, str], tuple[int, bytes]]
"""From a method and a path."""


def stored(*items: JSON) -> Answer:
    """Answers with these, by namespace and name; to a PATCH too."""

    def answer(_method: str, path: str) -> tuple[int, bytes]:
        for each in items:
            meta = each["metadata"]
            if path.endswith(f"/namespaces/{meta['namespace']}/llmdeployments/{meta['name']}"):
                return 200, json.dumps(each).encode()
        return 404, b'{"kind": "Status", "message": "no such object", "code": 404}'

    return answer


class Server(ThreadingHTTPServer):
    """Keeps the paths it was asked for."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked = answer, list[str]()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = self.server.answer(self.command, self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if body[:1] == b"<" else "application/json")
        self.end_headers()
        self.wfile.write(body)

    def do_PATCH(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def play(answer: Answer) -> Iterator[Server]:
    with Server(answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def kubeconfig(folder: Path, server: Server, current: str | None = "c") -> Path:
    """With the contexts ``c``, in namespace a, and ``d``, in namespace d."""
    contexts = [
        {"name": name, "context": {"cluster": "c", "user": "dev", "namespace": namespace}}
        for name, namespace in (("c", "a"), ("d", "d"))
    ]
    cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
    body: JSON = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "dev", "user": {}}],
        "contexts": contexts,
    }
    file = folder / "kubeconfig"
    file.write_text(
        yaml.safe_dump(body if current is None else {**body, "current-context": current})
    )
    return file


def run(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As a script runs it: without a terminal, and 80 columns wide as rich takes it then."""
    command, said, complained = ["kubectl-llmfleet", *words], io.StringIO(), io.StringIO()
    with (
        patch.object(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(config)),
        patch.object(sys, "argv", command),
        patch.multiple(program.console, _width=80, _height=25),
        patch.multiple(program.complaints, _width=80, _height=25),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
        pytest.raises(SystemExit) as ended,
    ):
        program.main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(command, code, said.getvalue(), complained.getvalue())
