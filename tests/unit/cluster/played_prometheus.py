"""A Prometheus that is played: an HTTP server that answers queries with the series it was given."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from llmfleet.planning.snapshot import JSON


@dataclass
class Prometheus:
    """What it has, and what it was asked."""

    url: str
    now: datetime
    found: list[Any] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    status: int = 200

    def add(
        self,
        samples: Sequence[tuple[float, float | str]],
        pod: str = "chat-1",
        metric: str = "vllm:num_requests_running",
        **labels: str,
    ) -> None:
        """Samples by their age in seconds."""
        own = {"__name__": metric, "namespace": "team-a", "pod": pod, **labels}
        values = [[self.now.timestamp() - age, str(value)] for age, value in samples]
        self.found.append({"metric": own, "values": values})

    def answer(self, query: str) -> JSON:
        """All that it has of a metric, whatever else is asked for; all, where none is named.

        A series with a label ``unasked`` is in every answer.
        """
        self.queries.append(query)
        named = [each for each in self.found if not isinstance(each, dict) or _names(each, query)]
        return {"status": "success", "data": {"resultType": "matrix", "result": named}}


def _names(series: JSON, query: str) -> bool:
    labels = series.get("metric")
    if not isinstance(labels, dict) or "unasked" in labels:
        return True
    name = labels.get("__name__")
    return name is None or "__name__" not in query or f'"{name}"' in query


@contextlib.contextmanager
def play_prometheus(now: datetime) -> Iterator[Prometheus]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (query,) = parse_qs(urlsplit(self.path).query)["query"]
            body = json.dumps(found.answer(query)).encode()
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Prometheus(f"http://127.0.0.1:{server.server_port}", now)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        server.shutdown()
