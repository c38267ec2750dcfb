# ruff: noqa: T201  # an engine writes to stdout
"""Stands in for vLLM under the real supervisor: same port, same signals, chosen misfortunes.

``stub_engine.py PORT MODE``; MODE is ``ok``, ``unguarded`` (no body guard), ``fails`` (ends while
loading, with an error as vLLM writes it), ``clean`` (ends with code 0 while serving), ``dead``
(says 503 on /health once asked to ``POST /die``), ``orphan`` (leaves a process behind), ``breaks``
(closes the first connection that asks for a token, and ends a moment later).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from llmfleet_runtime.activity import Activity
from llmfleet_runtime.settings import PluginSettings

MODE = sys.argv[2]
SETTINGS = PluginSettings.from_environment()
ACTIVITY = Activity(Path(SETTINGS.activity_file))
DEAD = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, body: object = None) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        if self.headers.get("x-llmfleet-loopback") != SETTINGS.loopback_key:
            self._say(401)
        elif self.path == "/health":
            self._say(503 if DEAD.is_set() else 200)
        elif self.path == "/metrics":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'vllm:num_requests_running{engine="0"} 0.0\n')
        else:
            self._say(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/die":
            DEAD.set()
            self._say(200)
        elif self.path == "/stop":
            self._say(200)
            end(int(body["code"]))
        elif self.path == "/slow":
            ACTIVITY.begin()
            self.send_response(200)
            self.end_headers()
            for _ in range(int(body["pieces"])):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(body["seconds"])
            ACTIVITY.end()
        elif "cache_salt" in body and MODE != "unguarded":
            self._say(400, {"error": {"code": "forbidden_field"}})
        elif MODE == "breaks":
            self.close_connection = True
            threading.Timer(0.3, end, [9]).start()
        else:
            self._say(200, {})


def end(code: int) -> None:
    print("RuntimeError: told to stop", flush=True)
    os._exit(code)


if MODE == "fails":
    print("(EngineCore pid=7) ERROR 11-21 02:54:06 [core.py:1] ValueError: fp9 is not supported")
    print("RuntimeError: Engine core initialization failed. See root cause above.")
    sys.exit(1)
if MODE == "orphan":
    subprocess.Popen(["sleep", "3600"])
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
