"""A real Argo CD as ordinary processes of this machine, on the cluster of a kubeconfig.

Redis, repo server, application controller and API server, without logins, reachable on loopback
only. All of them die with the process that started them; what they leave in the cluster (the
namespace and the resource definitions) is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from hack.argocd.customizations import settings_data
from hack.controlplane.apiserver import daemon, find_binary, free_ports, wait_for

JSON = dict[str, Any]
NAMESPACE: Final = "argocd"
_KINDS: Final = tuple(
    f"{name}.argoproj.io" for name in ("applications", "applicationsets", "appprojects")
)
_PART: Final = {"app.kubernetes.io/part-of": "argocd"}
_RECHECK_SECONDS: Final = 3600
"""Repositories are looked at when a test says so, never in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgoCD:
    """A running Argo CD."""

    url: str
    """Of its API, which asks for no login."""
    directory: Path
    """Where its logs lie."""

    def health(self, application: str, kind: str) -> JSON:
        """Status and message of the one resource of a kind, as its page shows them."""
        tree = self._call("GET", f"{application}/resource-tree")
        nodes: list[JSON] = [each for each in tree.get("nodes") or [] if each["kind"] == kind]
        return nodes[0].get("health") or {} if nodes else {}

    def list_actions(self, application: str, resource: Mapping[str, str]) -> dict[str, bool]:
        """The actions it offers for a resource → whether each is enabled."""
        answer = self._call("GET", f"{application}/resource/actions", params=resource)
        return {each["name"]: not each.get("disabled") for each in answer.get("actions") or []}

    def run_action(self, application: str, resource: Mapping[str, str], action: str) -> None:
        """What a click on an action does.

        Raises:
            AssertionError: it refused; with its words.
        """
        body = {**resource, "action": action}
        self._call("POST", f"{application}/resource/actions/v2", json=body)

    def _call(self, method: str, path: str, **content: Any) -> JSON:
        with httpx.Client(trust_env=False, timeout=30) as client:
            answer = client.request(method, f"{self.url}/api/v1/applications/{path}", **content)
        assert answer.status_code == 200, answer.text
        found: JSON = answer.json()
        return found


def manifests() -> list[JSON]:
    """What Argo CD needs to find in the cluster, its settings included."""
    metadata = {"namespace": NAMESPACE, "labels": _PART}
    project = {
        "sourceRepos": ["*"],
        "destinations": [{"namespace": "*", "server": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "argocd-cm", **metadata},
            "data": settings_data(),
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", **metadata}},
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AppProject",
            "metadata": {"name": "default", **metadata},
            "spec": project,
        },
    ]


@contextlib.contextmanager
def running_argocd(directory: Path, kubeconfig: Path) -> Iterator[ArgoCD]:
    """Argo CD with the scripts of argocd/resource_customizations, for the time of a ``with``.

    Raises:
        FileNotFoundError: it was not built, or Redis is not installed; the text says what to run.
        RuntimeError: a part ended or was not ready in time; the text ends with its log.
    """
    redis = shutil.which("redis-server")
    if redis is None:
        raise FileNotFoundError("redis-server is missing: run `apt-get install redis-server`")
    kubectl = [str(find_binary("kubectl")), f"--kubeconfig={kubeconfig}"]
    ports = Ports(*free_ports(6))
    url = f"http://127.0.0.1:{ports.server}"
    try:
        _install(kubectl)
        with contextlib.ExitStack() as stack:
            cache = [redis, "--bind", "127.0.0.1", "--port", str(ports.redis), "--save", ""]
            stack.enter_context(daemon([*cache, "--dir", str(directory)], directory / "redis.log"))
            for name, words in _parts(ports, kubeconfig).items():
                line = ["env", *_environment(name, directory, kubeconfig)]
                line += [str(find_binary("argocd")), *words]
                log = directory / f"{name}.log"
                process = stack.enter_context(daemon(line, log))
                if name == "argocd-server":
                    wait_for(lambda: _answers(url), "Argo CD's API answers", process, log)
            yield ArgoCD(url=url, directory=directory)
    finally:
        _remove(kubectl)


@dataclass(frozen=True, slots=True)
class Ports:
    """Free ports of loopback."""

    redis: int
    repo: int
    server: int
    repo_metrics: int
    controller_metrics: int
    server_metrics: int


def _parts(ports: Ports, kubeconfig: Path) -> dict[str, list[str]]:
    """Name of each part → its command line, in the order in which they start."""
    redis = f"--redis=127.0.0.1:{ports.redis}"
    common = [redis, "--loglevel=info", "--logformat=text"]
    client = [
        f"--kubeconfig={kubeconfig}",
        f"--namespace={NAMESPACE}",
        f"--repo-server=127.0.0.1:{ports.repo}",
        "--repo-server-plaintext",
    ]
    return {
        "argocd-repo-server": [
            *common,
            "--disable-tls",
            "--address=127.0.0.1",
            f"--port={ports.repo}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={ports.repo_metrics}",
        ],
        "argocd-application-controller": [
            *common,
            *client,
            f"--app-resync={_RECHECK_SECONDS}",
            f"--metrics-port={ports.controller_metrics}",
        ],
        "argocd-server": [
            *common,
            *client,
            "--insecure",
            "--disable-auth",
            "--address=127.0.0.1",
            f"--port={ports.server}",
            f"--metrics-port={ports.server_metrics}",
        ],
    }


def _environment(name: str, directory: Path, kubeconfig: Path) -> list[str]:
    """Which part the one program is to be, and folders of its own."""
    return [
        f"ARGOCD_BINARY_NAME={name}",
        "ARGOCD_GPG_ENABLED=false",
        "ARGOCD_FAKE_IN_CLUSTER=true",  # "this cluster" is the kubeconfig's
        f"KUBECONFIG={kubeconfig}",
        f"HOME={directory}",
        f"TMPDIR={directory}",
    ]


def _install(kubectl: list[str]) -> None:
    folder = find_binary("argocd").parent / "argocd-crds"
    for path in sorted(folder.glob("*-crd.yaml")):
        _run([*kubectl, "apply", "--server-side", "--force-conflicts", "-f", str(path)])
    listing = [*kubectl, "get", ",".join(_KINDS), "--all-namespaces"]
    wait_for(lambda: _succeeds(listing), "Argo CD's kinds are served")
    _run([*kubectl, "apply", "-f", "-"], yaml.safe_dump_all(manifests()))


def _remove(kubectl: list[str]) -> None:
    quietly = ["--ignore-not-found", "--timeout=60s"]
    _run([*kubectl, "delete", "namespace", NAMESPACE, *quietly])
    _run([*kubectl, "delete", "crd", *_KINDS, *quietly])


def _run(line: list[str], text: str | None = None) -> None:
    done = subprocess.run(
        line, input=text, capture_output=True, text=True, check=False, timeout=120, env=os.environ
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}: {done.stderr.strip()}")


def _succeeds(line: list[str]) -> bool:
    return subprocess.run(line, capture_output=True, check=False, timeout=30).returncode == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz?full=true", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
