"""Starts and stops the prober's pod, and reads its counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hack.kube.kubectl import apply, kubectl, last_log_line, wait_for

SCRIPT = Path(__file__).parent / "load.py"


class Prober:
    """Constant load from inside the cluster, through the Service, as a client has it."""

    def __init__(
        self,
        namespace: str,
        service: str,
        model: str,
        image: str,
        *,
        script: Path = SCRIPT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.namespace = namespace
        self.pod = "prober"
        self._script, self._environment = script, dict(environment or {})
        self._service, self._model, self._image = service, model, image

    def counts(self) -> dict[str, Any]:
        """The counts so far; empty before the first second has passed."""
        line = last_log_line(self.pod, self.namespace)
        return json.loads(line) if line.startswith("{") else {}

    def start(self, rate: float) -> None:
        """Starts it and waits until the first answers came."""
        self.remove()
        apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self.pod, "namespace": self.namespace},
                "data": {"load.py": self._script.read_text()},
            },
            self._manifest(rate),
        )
        # Until it runs, the kubelet may still answer with the log of the one before.
        kubectl("wait", "pod", self.pod, "-n", self.namespace, "--for=condition=Ready",
                "--timeout=90s", timeout_seconds=100)  # fmt: skip
        self.wait_for_successes(3)

    def wait_for_successes(self, more: int, *, timeout_seconds: float = 60) -> None:
        """Waits until that many more requests have succeeded than now."""
        before = 0
        with contextlib.suppress(Exception):  # no log yet: count from zero
            before = self.counts().get("succeeded", 0)
        wait_for(
            f"{more} more answered requests",
            lambda: self.counts().get("succeeded", 0) >= before + more,
            timeout_seconds=timeout_seconds,
            describe=lambda: json.dumps(self.counts()),
        )

    def stop(self) -> dict[str, Any]:
        """Stops sending, waits for the requests under way, and returns the final counts."""
        kubectl("exec", self.pod, "-n", self.namespace, "--", "touch", "/tmp/stop")
        final: dict[str, Any] = wait_for(
            "the prober's last requests",
            lambda: counts if (counts := self.counts()).get("final") else None,
            timeout_seconds=90,
            describe=lambda: json.dumps(self.counts()),
        )
        return final

    def remove(self) -> None:
        """Ends the load at once."""
        kubectl("delete", "pod", self.pod, "-n", self.namespace, "--ignore-not-found", "--now")

    def _manifest(self, rate: float) -> dict[str, Any]:
        environment = {
            "BASE_URL": f"http://{self._service}.{self.namespace}.svc.cluster.local",
            "MODEL": self._model,
            "RATE": str(rate),
            **self._environment,
        }
        container = {
            "name": "prober",
            "image": self._image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "/script/load.py"],
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "volumeMounts": [
                {"name": "script", "mountPath": "/script"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.pod, "namespace": self.namespace},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [container],
                "volumes": [
                    {"name": "script", "configMap": {"name": self.pod}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        }


@contextlib.contextmanager
def constant_load(
    prober: Prober, figure: Callable[[str], None], *, what: str, rate: float = 3
) -> Iterator[Prober]:
    """Load during the block; afterwards every request must have been answered in full."""
    prober.start(rate)
    yield prober
    prober.wait_for_successes(3)
    counts = prober.stop()
    total = f"{counts['sent']} sent, {counts['streams']} of them streams"
    figure(
        f"zero lost, {what}: {total}: {counts['failed']} failed, "
        f"{counts['truncated']} truncated, slowest {counts['slowest_seconds']:.1f} s, "
        f"revisions {counts['revisions']}"
    )
    assert counts["sent"] == counts["succeeded"] + counts["failed"] + counts["truncated"]
    assert (counts["failed"], counts["truncated"]) == (0, 0), f"{total}: {counts['reasons']}"
