"""The programs that the GitOps tests ask; a missing one fails with the command that builds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hack.controlplane.apiserver import find_binary


@pytest.fixture(scope="session")
def kstatus() -> Path:
    """Prints kstatus' word for each JSON object on its input."""
    return find_binary("kstatus")


@pytest.fixture(scope="session")
def argocd() -> Path:
    """Argo CD, all of it in one program."""
    return find_binary("argocd")
