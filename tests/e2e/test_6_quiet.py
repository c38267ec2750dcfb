"""Nothing changes, so nothing is written: counted in the API server's audit log."""

from __future__ import annotations

import collections
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hack.kube import chart
from hack.kube.kubectl import kubectl

from tests.e2e.fleet import Fleet

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
WINDOW_SECONDS = float(os.environ.get("LLMFLEET_QUIET_SECONDS", "60"))


def writes_of(log: Path, offset: int, users: tuple[str, ...]) -> list[dict[str, str]]:
    """Writes since a byte offset of the audit log by users whose name begins so."""
    found = []
    with log.open("rb") as file:
        file.seek(offset)
        for line in file:
            event = json.loads(line)
            subject = event.get("objectRef") or {}
            if (
                event["user"]["username"].startswith(users)
                and event["verb"] in WRITES
                and event["stage"] == "ResponseComplete"
            ):
                found.append(
                    {
                        "user": event["user"]["username"].rpartition(":")[2],
                        "verb": event["verb"],
                        "resource": subject.get("resource", ""),
                        "name": subject.get("name", ""),
                    }
                )
    return found


@pytest.fixture
def audit_log() -> Path:
    path = Path(os.environ.get("LLMFLEET_AUDIT_LOG") or "/nonexistent")
    if not path.exists():
        pytest.skip("this cluster has no audit log to read (LLMFLEET_AUDIT_LOG)")
    return path


@pytest.mark.alone
def test_writes_when_nothing_changes_then_there_are_none_but_the_lease(
    fleet: Fleet, audit_log: Path, figure: Callable[[str], None]
) -> None:
    fleet.wait_until_healthy()
    fleet.wait_for_engines(1)
    ours = (
        f"system:serviceaccount:{chart.NAMESPACE}:",
        f"system:serviceaccount:{fleet.namespace}:{fleet.name}-router",
    )
    generation = fleet.object()["metadata"]["resourceVersion"]

    # The one wait that is its own subject: the window in which nothing may happen.
    start = audit_log.stat().st_size
    time.sleep(WINDOW_SECONDS)
    writes = writes_of(audit_log, start, ours)

    leases = [write for write in writes if write["resource"] == "leases"]
    others = [write for write in writes if write["resource"] != "leases"]
    figure(
        f"quiet: {len(others)} writes by operator and agents in {WINDOW_SECONDS:.0f} s, "
        f"besides {len(leases)} renewals of the Lease"
    )
    assert len(leases) > WINDOW_SECONDS / 12, "the audit log does not show the operator at all"
    assert collections.Counter(map(json.dumps, others)) == {}
    assert fleet.object()["metadata"]["resourceVersion"] == generation
    assert "llmfleet_api_writes_total" in _operator_metrics()


def _operator_metrics() -> str:
    target = f"deployment/{chart.OPERATOR}"
    code = (
        "import urllib.request;"
        "print(urllib.request.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
    )
    return kubectl("exec", target, "-n", chart.NAMESPACE, "--", "python", "-c", code)
