"""The chart where somebody was before it: a CRD applied by hand, a second release."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hack.controlplane.apiserver import ApiServer, find_binary, running_api_server

CHART = Path(__file__).resolve().parents[2] / "charts" / "llmfleet"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llmdeployments.llmfleet.dev"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server where the CRD was applied by hand."""
    with running_api_server(tmp_path_factory.mktemp("install")) as running:
        running.install_crd()
        yield running


def helm(server: ApiServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(find_binary("helm")), "--kubeconfig", str(server.kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def install(server: ApiServer, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    return helm(
        server, "install", name, str(CHART), "--namespace", f"{name}-system",
        "--create-namespace", *more,
    )  # fmt: skip


def owner_of_crd(server: ApiServer) -> str | None:
    meta = server.request("GET", CRD).json()["metadata"]
    found: str | None = (meta.get("annotations") or {}).get("meta.helm.sh/release-name")
    return found


def test_install_when_the_crd_was_applied_by_hand_then_it_can_be_taken_over(
    server: ApiServer,
) -> None:
    refused = install(server, "llmfleet")
    assert "invalid ownership metadata" in refused.stderr
    helm(server, "uninstall", "llmfleet", "--namespace", "llmfleet-system")

    taken = install(server, "llmfleet", "--take-ownership")
    assert taken.returncode == 0, taken.stderr
    assert owner_of_crd(server) == "llmfleet"

    refused = install(server, "second")
    assert "invalid ownership metadata" in refused.stderr
    helm(server, "uninstall", "second", "--namespace", "second-system")
    beside = install(server, "second", "--set", "crds.install=false")
    assert beside.returncode == 0, beside.stderr
    assert owner_of_crd(server) == "llmfleet"
    assert helm(server, "uninstall", "second", "--namespace", "second-system").returncode == 0
    assert helm(server, "uninstall", "llmfleet", "--namespace", "llmfleet-system").returncode == 0
    assert server.request("GET", CRD).status_code == 200, "what serves is kept"
