"""`python -m hack.demo rollout`: a good release is promoted, a bad one is taken back, narrated.

Clients keep asking all the while through the stable address, and every answer is counted by the
revision that gave it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
from rich.console import Console
from rich.markup import escape

from hack.kube.kubectl import (
    JSON,
    NotInTimeError,
    get,
    kubectl,
    port_forward,
    wait_for,
)

GOOD, BAD = "pvc://models/tiny-llama-v2", "pvc://models/withdrawn-by-its-publisher"
POLICY: JSON = {
    "strategy": "Canary",
    "maxSurge": 1,
    "scaleDownDelay": "10s",
    "steps": [{"setWeight": 50}, {"pause": {"duration": "20s"}}],
}
REQUESTS_PER_SECOND = 3


class Clients:
    """People who keep asking; their answers are counted by revision."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self.answers: Counter[str] = Counter()
        self.failed = 0

    @contextlib.contextmanager
    def asking(self) -> Iterator[Clients]:
        """Ask for the time of a ``with``."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def _ask_on(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._stop.wait(1 / REQUESTS_PER_SECOND):
                self._ask(client)

    def _ask(self, client: httpx.Client) -> None:
        message = {"role": "user", "content": "What is a revision?"}
        body = {"model": self._model, "messages": [message], "max_tokens": 8}
        try:
            answer = client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError:
            self.failed += 1
            return
        if answer.status_code == 200:
            self.answers[answer.headers.get("x-llmfleet-revision", "?")] += 1
        else:
            self.failed += 1


def run(console: Console, name: str, namespace: str) -> None:
    """The whole story; needs `make demo`'s LLMDeployment.

    Raises:
        NotInTimeError: it is not there or not Healthy, or the story went otherwise.
        KubectlError: kubectl refused something.
    """
    before = get("llmdep", name, namespace)
    if before is None or (before.get("status") or {}).get("phase") != "Healthy":
        raise NotInTimeError(f"{namespace}/{name} is not there or not Healthy: run `make demo`")
    spec = before["spec"]
    narrator = _Narrator(console, name, namespace)
    with port_forward(f"svc/{name}", 80, namespace) as port:
        clients = Clients(f"http://127.0.0.1:{port}", spec["model"]["servedName"])
        with clients.asking():
            narrator.say("Clients ask three times a second, and go on doing so.")
            narrator.say("[bold]1. A good release[/]: half of the traffic, 20 seconds, then all.")
            narrator.patch({"rollout": POLICY, "model": {"source": GOOD}})
            narrator.until("Healthy", clients)
            narrator.say("Promoted: what spec asks for is what clients get.")
            narrator.say("[bold]2. A bad release[/]: its weights are not there.")
            narrator.patch({"model": {"source": BAD}})
            narrator.until("Degraded", clients)
            narrator.say(
                "Taken back by itself, and remembered: neither a re-apply nor an edit of steps or"
                " replicas rolls it out again. The previous revision serves."
            )
            narrator.say("[bold]3. The commit is reverted[/].")
            narrator.patch({"model": {"source": GOOD}})
            narrator.until("Healthy", clients)
            narrator.patch({"model": spec["model"], "rollout": {**spec["rollout"], "steps": None}})
            narrator.until("Healthy", clients)
    narrator.say(f"Answers by revision {dict(clients.answers)}, failed requests: {clients.failed}.")
    if clients.failed:
        raise NotInTimeError(f"{clients.failed} requests were lost")


class _Narrator:
    def __init__(self, console: Console, name: str, namespace: str) -> None:
        self._console, self._name, self._namespace = console, name, namespace
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        self._console.print(f"\n{text}")

    def patch(self, spec: JSON) -> None:
        words = json.dumps({"spec": spec})
        self._console.print(f"  [dim]kubectl patch llmdep {self._name} -p '{escape(words)}'[/]")
        kubectl("patch", "llmdep", self._name, "-n", self._namespace, "--type=merge", "-p", words)

    def until(self, phase: str, clients: Clients) -> None:
        said = ""

        def look() -> str:
            found = get("llmdep", self._name, self._namespace) or {}
            status = found.get("status") or {}
            if status.get("observedGeneration") != found.get("metadata", {}).get("generation"):
                return "Pending"
            return f"{status.get('phase')}: {status.get('message')}"

        def reached() -> bool:
            nonlocal said
            now = look()
            if now != said:
                said = now
                answers = " ".join(f"{key}:{count}" for key, count in clients.answers.items())
                seconds = time.monotonic() - self._begun
                self._console.print(f"  {seconds:4.0f} s  {escape(now)}  [dim]{answers}[/]")
            return now.startswith(f"{phase}:")

        wait_for(f"phase {phase}", reached, timeout_seconds=300, every_seconds=0.5, describe=look)
