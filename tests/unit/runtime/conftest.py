from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from llmfleet_runtime import metrics, middleware
from tests.unit.runtime.guarded_app import GuardedApp


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of one test: the process-wide one takes each metric once."""
    registry = CollectorRegistry()

    def with_registry(revision: str) -> metrics.RequestMetrics:
        return metrics.RequestMetrics(revision, registry)

    monkeypatch.setattr(middleware, "RequestMetrics", with_registry)
    return registry


@pytest.fixture
async def engine(tmp_path: Path, registry: CollectorRegistry) -> GuardedApp:
    return GuardedApp(tmp_path)


def shown(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()
