"""A real etcd and kube-apiserver on loopback, for tests that need what only they do.

No kubelet, no controller manager: nothing starts pods, collects garbage or fills namespaces in,
so a test plays those parts itself, or takes ``plane``. Every process dies with its starter.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

REPOSITORY = Path(__file__).parents[2]
CRD_PATH = REPOSITORY / "crds" / "llmfleet.dev_llmdeployments.yaml"
START_DEADLINE_SECONDS = 90
STOP_DEADLINE_SECONDS = 10
_PR_SET_PDEATHSIG = 1

JSON = dict[str, Any]

AUDIT_POLICY: JSON = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "Metadata"},
    ],
}


def cache_directory() -> Path:
    """Where binaries are built to (environment LLMFLEET_CACHE)."""
    return Path(os.environ.get("LLMFLEET_CACHE", Path.home() / ".cache" / "llmfleet")).expanduser()


def find_binary(name: str) -> Path:
    """Return a built binary, or one on PATH.

    Raises:
        FileNotFoundError: it is in neither place; the text names the command that builds it.
    """
    built = cache_directory() / "bin" / name
    if built.exists():
        return built
    if found := shutil.which(name):
        return Path(found)
    raise FileNotFoundError(f"{name} is missing: run `make cluster-build` (it builds {built})")


@dataclass
class ApiServer:
    """A running API server and the ways to talk to it."""

    url: str
    token: str
    ca_file: Path
    directory: Path
    kubeconfig: Path
    _clients: list[httpx.Client] = field(default_factory=list)

    def client(self, token: str | None = None) -> httpx.Client:
        """Return an HTTP client that speaks as the admin, or as the owner of ``token``."""
        client = httpx.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
            headers={"Authorization": f"Bearer {token or self.token}"},
            timeout=30,
            trust_env=False,
        )
        self._clients.append(client)
        return client

    def request(
        self, method: str, path: str, body: JSON | list[JSON] | None = None, content_type: str = ""
    ) -> httpx.Response:
        """Send one request as the admin; the answer's status is not checked."""
        headers = {"Content-Type": content_type or "application/json"} if body is not None else {}
        content = None if body is None else json.dumps(body)
        with self.client() as client:
            return client.request(method, path, content=content, headers=headers)

    def create(self, path: str, body: JSON) -> JSON:
        """POST an object and return it as stored; raises AssertionError with the refusal."""
        answer = self.request("POST", path, body)
        assert answer.status_code in (200, 201), answer.text
        stored: JSON = answer.json()
        return stored

    def apply(self, path: str, body: JSON) -> None:
        """Server-side apply as the admin; raises AssertionError with the refusal."""
        query = f"{path}?fieldManager=tests&force=true"
        answer = self.request("PATCH", query, body, "application/apply-patch+yaml")
        assert answer.status_code in (200, 201), answer.text

    def kubectl(
        self, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl as the admin, with ``text`` on its standard input."""
        done = subprocess.run(
            [str(find_binary("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(self.directory)},
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done

    def create_namespace(self, prefix: str = "test") -> str:
        """Create a namespace with a name of its own."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def install_crd(self) -> None:
        """Apply the repository's CRD and wait until its resources are served."""
        crd = yaml.safe_load(CRD_PATH.read_text())
        name = crd["metadata"]["name"]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        self.apply(f"{path}/{name}", crd)
        served = f"/apis/{crd['spec']['group']}/v1alpha1/{crd['spec']['names']['plural']}"
        wait_for(lambda: self.request("GET", served).status_code == 200, "the CRD is served")

    def service_account_token(self, namespace: str, name: str) -> str:
        """Create the ServiceAccount if need be, and return a token of it, good for an hour."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        answer = self.request("POST", accounts, {"metadata": {"name": name}})
        assert answer.status_code in (201, 409), answer.text
        spec = {"spec": {"expirationSeconds": 3600, "audiences": ["https://llmfleet.test"]}}
        token: str = self.create(f"{accounts}/{name}/token", spec)["status"]["token"]
        return token

    def write_kubeconfig(self, path: Path, token: str, url: str | None = None) -> Path:
        """Write a kubeconfig for the owner of ``token``; ``url`` may name a proxy in between."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": url or self.url,
                        "certificate-authority": str(self.ca_file),
                    },
                }
            ],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def audited_writes(self, user_contains: str = "") -> list[JSON]:
        """Return the audit log's entries of writes so far, by users whose name contains a text."""
        log = self.directory / "audit.log"
        if not log.exists():
            return []
        entries = (json.loads(line) for line in log.read_text().splitlines() if line)
        return [each for each in entries if user_contains in each["user"]["username"]]

    def close(self) -> None:
        """Close the clients that were handed out."""
        for client in self._clients:
            client.close()


@contextlib.contextmanager
def running_api_server(directory: Path, audit_policy: JSON = AUDIT_POLICY) -> Iterator[ApiServer]:
    """Start etcd and kube-apiserver with their data under ``directory``; stop them at the end.

    Raises:
        FileNotFoundError: a binary is missing; the text names the command that builds it.
        RuntimeError: a process ended or was not ready in time; the text ends with its log.
    """
    binaries = {name: find_binary(name) for name in ("etcd", "kube-apiserver")}
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        etcd_port, peer_port, port = free_ports(3)
        etcd_url = f"http://127.0.0.1:{etcd_port}"
        etcd = stack.enter_context(
            daemon(
                [str(binaries["etcd"]), *_etcd_arguments(directory, etcd_url, peer_port)],
                directory / "etcd.log",
            )
        )
        wait_for(
            lambda: _answers_ok(httpx.Client(trust_env=False), f"{etcd_url}/health"),
            "etcd is ready",
            etcd,
            directory / "etcd.log",
        )
        token = secrets.token_hex(16)
        server = ApiServer(
            url=f"https://127.0.0.1:{port}",
            token=token,
            ca_file=directory / "certs" / "apiserver.crt",
            directory=directory,
            kubeconfig=directory / "admin.kubeconfig",
        )
        log = directory / "kube-apiserver.log"
        arguments = _api_server_arguments(directory, etcd_url, port, token, audit_policy)
        process = stack.enter_context(daemon([str(binaries["kube-apiserver"]), *arguments], log))
        server.write_kubeconfig(server.kubeconfig, token)
        stack.callback(server.close)
        wait_for(server.ca_file.exists, "the API server made its certificate", process, log)
        with server.client() as client:
            ready = lambda: _answers_ok(client, "/readyz")  # noqa: E731 - read once, right below
            wait_for(ready, "the API server is ready", process, log)
            path = "/api/v1/namespaces/default"
            wait_for(lambda: _answers_ok(client, path), "its namespaces exist", process, log)
        yield server


def _etcd_arguments(directory: Path, url: str, peer_port: int) -> list[str]:
    peer = f"http://127.0.0.1:{peer_port}"
    return [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        f"--quota-backend-bytes={8 << 30}",  # benchmarks write more than the default of 2 GiB
        "--log-level=warn",
    ]


def _api_server_arguments(
    directory: Path, etcd_url: str, port: int, token: str, audit_policy: JSON
) -> list[str]:
    key = directory / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens = directory / "tokens.csv"
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    policy = directory / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(audit_policy))
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certs'}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://llmfleet.test",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.250.0.0/16",
        # Nothing makes the default ServiceAccount of a namespace here, which it would wait for.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={directory / 'audit.log'}",
        "--profiling=false",
    ]


@contextlib.contextmanager
def daemon(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of a ``with``, its output going to ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no locks
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _answers_ok(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(
    condition: Any,
    what: str,
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> None:
    """Ask every 50 ms until the answer is true.

    Raises:
        RuntimeError: ``process`` ended, or it took too long; the text ends with ``log``.
    """
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while not condition():
        tail = log.read_text(errors="replace")[-2000:] if log else ""
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before {what}: {tail}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {START_DEADLINE_SECONDS} s: {what}. {tail}")
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return free loopback ports; all are held open while choosing, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
