"""Downloads through the real huggingface_hub from a hub on loopback that misbehaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = """
import json, os, pathlib
from llmfleet_runtime.config import Weights
from llmfleet_runtime.errors import Failure
from llmfleet_runtime.sources import fetch
try:
    weights = Weights(source="hf://org/name", revision="0e9e39f")
    root = pathlib.Path("/none")
    fetch(weights, models_root=root, environment=os.environ, sleep=lambda seconds: None)
except Failure as failure:
    print(json.dumps([failure.reason, failure.exit_code, failure.retriable, failure.message]))
"""


class Hub(BaseHTTPRequestHandler):
    status = 200
    code = ""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815  # http.server's own naming


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(endpoint: str, home: Path, token: str | None) -> list[object]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "runtime"),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_ETAG_TIMEOUT": "2",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    environment.pop("HF_TOKEN", None)
    if token:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("status", "code", "token", "reason", "retriable"),
    [
        pytest.param(401, "RepoNotFound", None, "ModelNotFound", False, id="absent-or-private"),
        pytest.param(401, "RepoNotFound", "bad", "Unauthorized", False, id="bad-token"),
        pytest.param(403, "GatedRepo", "ok", "Unauthorized", False, id="gated"),
        pytest.param(404, "RevisionNotFound", None, "ModelNotFound", False, id="no-such-commit"),
        pytest.param(500, "", None, "DownloadFailed", True, id="hub-broken"),
    ],
)
def test_download_when_hub_refuses_then_reason_and_code_3(
    hub: str,
    tmp_path: Path,
    status: int,
    code: str,
    token: str | None,
    reason: str,
    retriable: bool,
) -> None:
    Hub.status, Hub.code = status, code
    assert ask(hub, tmp_path, token)[:3] == [reason, 3, retriable]


def test_download_when_network_is_down_then_download_failed_and_retriable(tmp_path: Path) -> None:
    reason, code, retriable, message = ask("http://127.0.0.1:9", tmp_path, None)
    assert (reason, code, retriable) == ("DownloadFailed", 3, True)
    assert "hf://org/name@0e9e39f" in str(message)
