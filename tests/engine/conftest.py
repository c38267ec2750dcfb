"""Tests against the real vLLM on CPU; run them with the Python that has it installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engine.pod import Pod, copy_models, install_plugins

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "runtime"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks everything here, and skips it where vLLM is not installed."""
    absent = find_spec("vllm") is None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)
            if absent:
                item.add_marker(pytest.mark.skip(reason="vLLM is not installed here"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_plugins(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def start_pod(
    tmp_path_factory: pytest.TempPathFactory, models: Path, installed: Path
) -> Iterator[Callable[..., Pod]]:
    """Starts supervised engines and ends whatever is left of them."""
    pods: list[Pod] = []

    def start(**settings: object) -> Pod:
        pods.append(Pod(tmp_path_factory.mktemp("pod"), models, installed, settings))
        return pods[-1]

    yield start
    for pod in pods:
        pod.close()
