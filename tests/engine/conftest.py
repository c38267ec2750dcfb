"""Tests against the real vLLM on CPU; run them with the Python that has it installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

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
    """A writable copy of the tiny models, which are made once and kept in the cache."""
    cache = Path(os.environ.get("LLMFLEET_CACHE", Path.home() / ".cache" / "llmfleet"))
    folder = Path(os.environ.get("LLMFLEET_TEST_MODELS", cache / "test-models"))
    if not (folder / "tiny-llama-v2" / "config.json").exists():
        maker = ROOT / "hack" / "models" / "make_tiny_models.py"
        subprocess.run([sys.executable, str(maker), str(folder)], check=True)
    copy = tmp_path_factory.mktemp("models")
    return Path(shutil.copytree(folder, copy, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes the checkout's plugins visible, as installing the wheel would."""
    import tomllib

    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path_factory.mktemp("installed")
    info = folder / "llmfleet_runtime_checkout-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: llmfleet-runtime-checkout\nVersion: 0\n"
    )
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def start_pod(
    tmp_path_factory: pytest.TempPathFactory, models: Path, installed: Path
) -> Iterator[Callable[..., object]]:
    """Starts supervised engines and ends whatever is left of them."""
    from tests.engine.pod import Pod

    pods: list[Pod] = []

    def start(**settings: object) -> Pod:
        pods.append(Pod(tmp_path_factory.mktemp("pod"), models, installed, settings))
        return pods[-1]

    yield start
    for pod in pods:
        pod.close()
