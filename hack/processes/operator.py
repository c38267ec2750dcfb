"""``python -m llmfleet`` as a service account that holds exactly the chart's rights."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import yaml

from hack.controlplane.apiserver import REPOSITORY, ApiServer, free_ports
from hack.processes.waiting import eventually

OPERATOR_NAMESPACE = "default"


class OperatorProcess:
    """``python -m llmfleet`` as a service account that holds exactly the chart's rights."""

    def __init__(self, server: ApiServer, directory: Path, **environment: str) -> None:
        self.identity = f"operator-{secrets.token_hex(4)}"
        self.log = directory / f"{self.identity}.log"
        token = operator_token(server)
        (self.port,) = free_ports(1)
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                str(REPOSITORY / part) for part in ("operator", "runtime")
            ),
            "KUBECONFIG": str(server.write_kubeconfig(directory / f"{self.identity}.kc", token)),
            "LLMFLEET_RUNTIME_IMAGE_GPU": "llmfleet/runtime:gpu",
            "LLMFLEET_RUNTIME_IMAGE_CPU": "llmfleet/runtime:cpu",
            "LLMFLEET_ROUTER_IMAGE": "llmfleet/router:test",
            "LLMFLEET_POD_UID": self.identity,
            "LLMFLEET_POD_NAMESPACE": OPERATOR_NAMESPACE,
            "LLMFLEET_METRICS_ADDRESS": f"127.0.0.1:{self.port}",
            **environment,
        }
        variables.pop("KUBERNETES_SERVICE_HOST", None)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llmfleet"], env=variables, stdout=output, stderr=output
            )

    def answer(self, path: str) -> httpx.Response:
        """Ask its own port (``/metrics``, ``/healthz``, ``/readyz``)."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=5)

    def metric(self, name: str) -> float:
        """A metric without labels; 0 where it is not exported."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.answer("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def writes(self) -> dict[str, float]:
        """Writes by kind and verb, the Lease's aside."""
        pattern = r'^llmfleet_api_writes_total\{kind="(\w+)",verb="(\w+)"\} (\S+)$'
        found = re.findall(pattern, self.answer("/metrics").text, re.MULTILINE)
        return {f"{kind} {verb}": float(n) for kind, verb, n in found if kind != "Lease"}

    def reconciles(self) -> float:
        """Passes so far, whatever their result."""
        pattern = r'^llmfleet_reconcile_total\{result="\w+"\} (\S+)$'
        return sum(map(float, re.findall(pattern, self.answer("/metrics").text, re.MULTILINE)))

    def wait_leading(self, seconds: float = 30.0) -> None:
        """Wait until it holds the Lease."""
        eventually(lambda: self.metric("llmfleet_leader") == 1, "the operator leads", seconds)

    def wait_quiet(self) -> None:
        """Wait until a second has passed without a write."""
        before, since = self.writes(), time.monotonic()

        def unchanged() -> bool:
            nonlocal before, since
            now = self.writes()
            if now != before:
                before, since = now, time.monotonic()
            return time.monotonic() - since > 1

        eventually(unchanged, "no more writes")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait up to 30 s for its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def running_operator(
    server: ApiServer, directory: Path, **environment: str
) -> Iterator[OperatorProcess]:
    """An operator for the time of a ``with``; its log is printed when the test fails."""
    operator = OperatorProcess(server, directory, **environment)
    try:
        yield operator
        log = operator.log.read_text()
        for trouble in ("reconcile crashed", "stores a child otherwise", "Traceback"):
            assert trouble not in log, f"the operator's log says: {trouble}"
    except BaseException:
        sys.stderr.write(operator.log.read_text()[-6000:])
        raise
    finally:
        operator.stop(signal.SIGKILL)


def operator_token(server: ApiServer) -> str:
    """A token of a service account with the chart's rules, which so are shown to suffice."""
    text = (REPOSITORY / "charts/llmfleet/templates/_rules.tpl").read_text()
    plain = "\n".join(line for line in text.splitlines() if "{{" not in line)
    rules = [
        *yaml.safe_load(plain),
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": ["llmdeployments.llmfleet.dev"],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update"],
        },
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "llmfleet-test"},
        "rules": rules,
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "llmfleet-test"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "llmfleet-test",
        },
        "subjects": [
            {"kind": "ServiceAccount", "name": "llmfleet", "namespace": OPERATOR_NAMESPACE}
        ],
    }
    for plural, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        server.apply(f"{rbac}/{plural}/llmfleet-test", body)
    return server.service_account_token(OPERATOR_NAMESPACE, "llmfleet")
