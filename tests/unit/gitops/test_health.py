"""Every state looks the same to kubectl, Argo CD and kstatus; the table is golden/health.md.

LLMFLEET_UPDATE_GOLDEN=1 writes the table, and the test data that goes to Argo CD, anew. What
kstatus says in it is computed by the real one in tests/integration/gitops.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.argocd.customizations import FOLDER

from tests.unit.gitops.machine import Machine
from tests.unit.gitops.states import STATES, reach

JSON = dict[str, Any]
TABLE = Path(__file__).parent / "golden" / "health.md"
READERS = {
    "Healthy": ("Healthy", "Current"),
    "Progressing": ("Progressing", "InProgress"),
    "Paused": ("Suspended", "InProgress"),
    "Degraded": ("Degraded", "Failed"),
}
"""Phase → Argo CD's and kstatus' word."""
EXAMPLES = {
    "created": "just created",
    "changed": "canary: spec changed, not seen yet",
    "loading": "model loading",
    "healthy": "healthy",
    "pause-step": "canary: pause until promoted",
    "timed-pause": "canary: timed pause",
    "rejected": "rejected: crashes",
}
"""What goes to Argo CD as test data: file → state."""


def phase_of(body: JSON) -> str:
    """The phase as a reader should take it: none, or one of an older spec, is on its way."""
    status = body.get("status") or {}
    current = status.get("observedGeneration") == body["metadata"]["generation"]
    return str(status["phase"]) if current else "Progressing"


def updating() -> bool:
    return bool(os.environ.get("LLMFLEET_UPDATE_GOLDEN"))


def golden(path: Path, text: str) -> None:
    if updating():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


def dump(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=1000, allow_unicode=True)


def test_states_when_read_by_argo_cd_then_its_word_is_the_phases_and_the_table_is_golden() -> None:
    machine = Machine()
    rows = [
        "| state | phase | Argo CD | kstatus | message |",
        "|---|---|---|---|---|",
    ]
    for name in STATES:
        body = reach(name).raw
        phase, health = phase_of(body), machine.health(body)
        argo, kstatus = READERS[phase]
        assert health["status"] == argo, f"{name}: phase {phase}"
        if phase == (body.get("status") or {}).get("phase"):
            assert health["message"] == body["status"]["message"], name
        shown = health["message"].replace("|", "\\|")
        rows.append(f"| {name} | {phase} | {argo} | {kstatus} | {shown} |")
    assert len(rows) > 42
    golden(TABLE, "\n".join(rows) + "\n")


def test_phases_when_all_states_are_read_then_each_one_occurs() -> None:
    assert {row.split(" | ")[1] for row in TABLE.read_text().splitlines()[2:]} == set(READERS)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"metadata": {"generation": 1}}, "waiting"),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}, "waiting"),
        (
            {
                "metadata": {"generation": 2},
                "status": {"observedGeneration": 1, "phase": "Healthy"},
            },
            "changed spec",
        ),
    ],
    ids=["no status", "the CRD's default", "an older generation"],
)
def test_health_when_the_operator_has_not_seen_the_spec_then_progressing(
    body: JSON, word: str
) -> None:
    health = Machine().health(body)
    assert health["status"] == "Progressing"
    assert word in health["message"]


def test_health_when_the_phase_is_of_a_newer_operator_then_unknown() -> None:
    body = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "phase": "Frozen"}}
    assert Machine().health(body)["status"] == "Unknown"


def test_health_test_data_when_made_then_it_is_what_the_planner_and_the_script_say() -> None:
    machine, tests = Machine(), []
    for file, name in EXAMPLES.items():
        body = reach(name).raw
        golden(FOLDER / "testdata" / f"{file}.yaml", dump(body))
        health = machine.health(body)
        tests.append({
            "healthStatus": {"status": health["status"], "message": health["message"]},
            "inputPath": f"testdata/{file}.yaml",
        })  # fmt: skip
    golden(FOLDER / "health_test.yaml", dump({"tests": tests}))
