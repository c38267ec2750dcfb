"""Fixtures of the integration tests: one real API server for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hack.controlplane.apiserver import ApiServer, running_api_server


@pytest.fixture(scope="session")
def bare_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server without our CRD."""
    with running_api_server(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="session")
def api_server(bare_api_server: ApiServer) -> ApiServer:
    """A real API server that serves LLMDeployments."""
    bare_api_server.install_crd()
    return bare_api_server


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace of the test's own."""
    return api_server.create_namespace()
