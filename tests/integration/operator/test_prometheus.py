"""What is asked of Prometheus, of a real one: its own answers, times and copies of series."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hack.controlplane.apiserver import daemon, free_ports
from hack.processes.waiting import eventually

from llmfleet.cluster.prometheus_access import Connection, PrometheusAccess
from llmfleet.cluster.prometheus_fetch import KnownPod, Metric, fetch

BINARY = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(BINARY is None, reason="no prometheus on PATH")

CHAT = ("team-a", "chat")
RUNNING = Metric(name="vllm:num_requests_running", labels=("engine",))
PAGE = """\
vllm:num_requests_running{{engine="0",model_name="a"}} {value}
vllm:num_requests_running{{engine="1",model_name="a"}} NaN
"""


class Engine(ThreadingHTTPServer):
    """A pod's page of metrics."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.value = 3.0


class Page(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        body = PAGE.format(value=self.server.value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def url(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """Of a Prometheus that scrapes the same page as three pods, one of them by two jobs."""
    where = f"127.0.0.1:{engine.server_port}"

    def job(name: str, *pods: str) -> dict[str, Any]:
        configs = [{"targets": [where], "labels": {"namespace": "team-a", "pod": p}} for p in pods]
        return {"job_name": name, "static_configs": configs}

    configuration = {
        "global": {"scrape_interval": "1s", "external_labels": {"cluster": "eu"}},
        "scrape_configs": [job("podmonitor", "e-1", "e-2", "stranger"), job("annotations", "e-1")],
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    (port,) = free_ports(1)
    command = [
        str(BINARY), f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    found = f"http://127.0.0.1:{port}"
    with daemon(command, tmp_path / "log"):
        eventually(lambda: _ready(found), "Prometheus is ready", 60)
        yield found


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_metric_when_a_real_prometheus_is_asked_then_each_known_pod_has_one_series_of_now(
    url: str, engine: Engine
) -> None:
    connection = Connection(PrometheusAccess(url=url))
    began = datetime.now(UTC)
    pods = [
        KnownPod(owner=CHAT, namespace="team-a", name=name, running_since=began)
        for name in ("e-1", "e-2")
    ]

    def values() -> dict[str, float]:
        found = fetch(connection, RUNNING, pods, datetime.now(UTC))[CHAT]
        assert found.value is None or found.as_of is not None
        return {each.pod: each.samples[-1][1] for each in found.value or () if each.samples}

    eventually(lambda: values() == {"e-1": 3, "e-2": 3}, "both are scraped", 60)
    engine.value = 7
    eventually(lambda: values() == {"e-1": 7, "e-2": 7}, "the newest sample counts", 60)
    found = fetch(connection, RUNNING, pods, datetime.now(UTC))[CHAT]
    assert found.as_of is not None
    assert began <= found.as_of <= datetime.now(UTC)
    assert [(each.pod, each.labels) for each in found.value or ()] == [
        ("e-1", (("engine", "0"),)), ("e-2", (("engine", "0"),)),
    ]  # fmt: skip
    later = fetch(connection, RUNNING, pods, datetime.now(UTC) + timedelta(minutes=2))[CHAT]
    assert "too old to decide by" in later.problem
    labelled = fetch(
        connection, RUNNING, pods, datetime.now(UTC), matchers=(("cluster", "another"),)
    )
    assert "Prometheus has no vllm:num_requests_running" in labelled[CHAT].problem
