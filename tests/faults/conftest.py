"""One API server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hack.controlplane.apiserver import ApiServer, running_api_server


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server with the CRD; fails with the command to run when binaries are missing."""
    try:
        with running_api_server(tmp_path_factory.mktemp("faults")) as running:
            running.install_crd()
            yield running
    except FileNotFoundError as error:
        pytest.fail(str(error), pytrace=False)
