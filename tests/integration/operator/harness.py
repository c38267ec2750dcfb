"""An operator process under test, and a test that plays kubelet and controllers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlparse

import httpx
import yaml
from hack.controlplane.apiserver import REPOSITORY, ApiServer, free_ports

JSON = dict[str, Any]
T = TypeVar("T")

DEPLOYMENTS = "/apis/llmfleet.dev/v1alpha1/namespaces/{}/llmdeployments"
CHILD_PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}
OPERATOR_NAMESPACE = "default"


def eventually(question: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Ask until the answer is truthy; the API server pushes nothing to a test."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            if answer := question():
                return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def llm_deployment(name: str = "chat", **spec: Any) -> JSON:
    """A valid LLMDeployment without accelerators."""
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "pvc://models/tiny-llama", "servedName": "tiny"},
            "accelerator": {"type": "cpu"},
            "replicas": 1,
            **spec,
        },
    }


class Fleet:
    """One namespace, seen as its users and its kubelet see it."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace

    def path(self, kind: str, name: str = "") -> str:
        return CHILD_PATHS[kind].format(self.namespace) + (f"/{name}" if name else "")

    def resource_path(self, name: str = "") -> str:
        return DEPLOYMENTS.format(self.namespace) + (f"/{name}" if name else "")

    def apply(self, body: JSON) -> JSON:
        return self.server.create(self.resource_path(), body)

    def get(self, path: str) -> JSON | None:
        answer = self.server.request("GET", path)
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    def resource(self, name: str = "chat") -> JSON | None:
        return self.get(self.resource_path(name))

    def child(self, kind: str, name: str) -> JSON | None:
        return self.get(self.path(kind, name))

    def children(self, kind: str) -> list[JSON]:
        listed = self.get(self.path(kind)) or {}
        return [
            item
            for item in listed["items"]
            if (item["metadata"].get("labels") or {}).get("llmfleet.dev/deployment")
        ]

    def condition(self, kind: str, name: str = "chat") -> JSON | None:
        status = (self.resource(name) or {}).get("status") or {}
        return next((one for one in status.get("conditions") or [] if one["type"] == kind), None)

    def patch(
        self, path: str, body: Any, manager: str = "kubectl-edit", kind: str = "merge"
    ) -> JSON:
        types = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}
        types["strategic"] = "application/strategic-merge-patch+json"
        answer = self.server.request("PATCH", f"{path}?fieldManager={manager}", body, types[kind])
        assert answer.status_code == 200, answer.text
        stored: JSON = answer.json()
        return stored

    def events(self, reason: str) -> list[JSON]:
        listed = self.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events") or {}
        return [event for event in listed["items"] if event["reason"] == reason]


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
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=5)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.answer("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def writes(self) -> dict[str, float]:
        """Writes by kind and verb, the Lease's aside."""
        pattern = r'^llmfleet_api_writes_total\{kind="(\w+)",verb="(\w+)"\} (\S+)$'
        found = re.findall(pattern, self.answer("/metrics").text, re.MULTILINE)
        return {f"{kind} {verb}": float(n) for kind, verb, n in found if kind != "Lease"}

    def reconciles(self) -> float:
        pattern = r'^llmfleet_reconcile_total\{result="\w+"\} (\S+)$'
        return sum(map(float, re.findall(pattern, self.answer("/metrics").text, re.MULTILINE)))

    def wait_leading(self, seconds: float = 30.0) -> None:
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
        answer = server.request(
            "PATCH",
            f"{rbac}/{plural}/llmfleet-test?fieldManager=tests&force=true",
            body,
            "application/apply-patch+yaml",
        )
        assert answer.status_code in (200, 201), answer.text
    return server.service_account_token(OPERATOR_NAMESPACE, "llmfleet")


class FakeRouter(ThreadingHTTPServer):
    """Answers ``/llmfleet/state`` as the contract says, hanging GET included."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _State)
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
            answer = {"schema": 1, "trafficGeneration": self.server.generation, "revisions": []}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        del arguments
