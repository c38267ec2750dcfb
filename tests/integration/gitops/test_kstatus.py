"""The real kstatus computes the kstatus column of the golden table of states."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.unit.gitops.states import STATES, reach
from tests.unit.gitops.test_health import TABLE


def test_states_when_kstatus_computes_them_then_the_golden_table_has_its_words(
    kstatus: Path,
) -> None:
    lines = "".join(json.dumps(reach(name).raw) + "\n" for name in STATES)
    done = subprocess.run([kstatus], input=lines, capture_output=True, text=True, check=True)
    computed = dict(zip(STATES, done.stdout.split(), strict=True))

    rows = [row.strip("|").split("|") for row in TABLE.read_text().splitlines()[2:]]
    expected = {row[0].strip(): row[3].strip() for row in rows}
    assert computed == expected
