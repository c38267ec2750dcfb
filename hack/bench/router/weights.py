"""How long a change of weights takes: from the status write to the first request it moved."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from hack.bench.router import isolated
from hack.controlplane.apiserver import ApiServer
from hack.processes.router import RouterProcess

JSON = dict[str, Any]

CHANGES = 60
ASK_SECONDS = 0.001
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]})


def measure(changes: int) -> JSON:
    """Runs this module in a network namespace and returns what it measured.

    Raises:
        tools.AbsentError: no network namespace can be made, or a binary is missing.
    """
    return isolated.run(__name__, [str(changes)], timeout_seconds=180)


@dataclass
class Client:
    """Asks all the time on one connection, and notes when the revision that answers changes."""

    port: int
    changed: dict[str, float] = field(default_factory=dict)
    """Revision → when it first answered after another one had."""
    failed: int = 0
    asked: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Asks until stopped."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        last = ""
        while not self._stop.is_set():
            connection.request(
                "POST", "/v1/chat/completions", BODY, {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
            self.asked += 1
            self.failed += answer.status != 200
            revision = answer.getheader("x-llmfleet-revision", "")
            if revision != last:
                self.changed[revision] = time.perf_counter()
                last = revision
            time.sleep(ASK_SECONDS)
        connection.close()

    def stop(self) -> None:
        """Ends the asking."""
        self._stop.set()


def _change(server: ApiServer, router: RouterProcess, arguments: list[str]) -> JSON:
    client = Client(router.ports[0])
    asking = threading.Thread(target=client.run)
    from_sent, from_answered = [], []
    with isolated.StatusWriter(server, router) as status:
        asking.start()
        try:
            for generation in range(2, int(arguments[0]) + 2):
                revision = ("aaaa", "bbbb")[generation % 2]
                client.changed.pop(revision, None)
                sent, answered = status.write(generation, {revision: 100})
                first = _wait(client, revision, sent)
                if generation > 2:  # the first change begins at 50:50
                    from_sent.append(1000 * (first - sent))
                    from_answered.append(1000 * (first - answered))
                # Less than the 2 s after which an idle cluster is removed; and at no fixed beat.
                time.sleep(random.uniform(0.1, 0.25))
        finally:
            client.stop()
            asking.join()
    return {
        "write_sent_to_first_request_ms": sorted(from_sent),
        "write_answered_to_first_request_ms": sorted(from_answered),
        "requests": client.asked,
        "failed": client.failed,
    }


def _wait(client: Client, revision: str, since: float) -> float:
    while (first := client.changed.get(revision, 0.0)) < since:
        if time.perf_counter() - since > 20:
            raise RuntimeError(f"no request reached {revision} within 20 s")
        time.sleep(0.0005)
    return first


if __name__ == "__main__":
    isolated.main(_change)
