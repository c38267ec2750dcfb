"""The answer to ``GET /llmfleet/ledger``: cohorts that changed since the last one.

Counts are absolute, so reading them twice changes nothing, and one who lost an answer asks again
with the same number (docs/contract.md, Router).
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from llmfleet_router.ledger import (
    CLASSES,
    OUTCOMES,
    SLOT_SECONDS,
    STILL_CHANGING_SECONDS,
    Cohort,
    Ledger,
    monotonic_ms,
)

JSON = dict[str, Any]

LARGEST_ANSWER: Final = 256 * 1024
"""Bytes of rows in one answer, about."""
COLUMNS: Final = ("slot", "generation", "revision", "class", "size", *OUTCOMES)


def report_ledger(
    ledger: Ledger, since: int, identity: JSON, largest: int = LARGEST_ANSWER
) -> JSON:
    """What changed after ``since``, the oldest change first, as much as fits.

    Args:
        ledger: the table.
        since: ``next`` of an earlier answer of the same epoch; 0 for all.
        identity: who answers.
        largest: bytes of rows, about.

    Raises:
        LedgerError: there is no table.
    """
    settled = monotonic_ms() - round(1000 * STILL_CHANGING_SECONDS)
    epoch = ledger.epoch()
    cohorts = [one for one in ledger.cohorts_since(since) if one.key.kind < len(CLASSES)]
    rows, taken = _as_many_as_fit(cohorts, largest)
    upto = settled
    if len(rows) < len(cohorts):
        # Those that may still change are given again, unless nothing else would ever be given.
        upto = min(settled, taken) if min(settled, taken) > since else taken
    return {
        **identity,
        "epoch": str(epoch),
        "now": round(time.time(), 3),
        "slotSeconds": SLOT_SECONDS,
        "columns": list(COLUMNS),
        "rows": rows,
        "next": max(since, upto),
        "more": len(rows) < len(cohorts),
    }


def _as_many_as_fit(cohorts: list[Cohort], largest: int) -> tuple[list[list[Any]], int]:
    """Rows of the first cohorts, and when the last of them changed.

    What changed in the same millisecond goes together, since an answer ends with a time.
    """
    rows: list[list[Any]] = []
    size = taken = 0
    for cohort in cohorts:
        if size > largest and cohort.changed_ms > taken:
            break
        rows.append(_row(cohort))
        size += len(json.dumps(rows[-1]))
        taken = cohort.changed_ms
    return rows, taken


def _row(cohort: Cohort) -> list[Any]:
    key = cohort.key
    kind = CLASSES[key.kind]
    return [key.slot, key.generation, key.revision, kind, key.size, *cohort.counts[: len(OUTCOMES)]]
