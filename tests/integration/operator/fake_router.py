"""A router's agent as the operator's tests see it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

JSON = dict[str, Any]


class FakeRouter(ThreadingHTTPServer):
    """Answers ``/llmfleet/state`` as the contract says, hanging GET included.

    Args:
        address: its pod's; several may listen on one port of the loopback net.
        port: of all agents; any that is free if left out.
        names: what the answer says of the object and pod it is of; earlier versions say nothing.
    """

    daemon_threads = True

    def __init__(
        self, address: str = "127.0.0.1", port: int = 0, names: JSON | None = None
    ) -> None:
        super().__init__((address, port), _State)
        self.names = names or {}
        self.changed = threading.Condition()
        self.generation: int | None = None
        self.asked: list[JSON] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, generation: int) -> None:
        with self.changed:
            self.generation = generation
            self.changed.notify_all()


class _State(BaseHTTPRequestHandler):
    server: FakeRouter

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
        with self.server.changed:
            self.server.asked.append(query)
            if "generation" in query:
                wanted, seconds = int(query["generation"]), float(query["timeout"])
                self.server.changed.wait_for(lambda: self.server.generation == wanted, seconds)
            answer = {
                "schema": 1,
                **self.server.names,
                "trafficGeneration": self.server.generation,
                "revisions": [],
            }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        del arguments
