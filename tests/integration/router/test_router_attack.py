"""A small part of ``make test-hostile``."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.campaign import run


async def test_router_when_attacked_then_documented_answers_and_nothing_forged_passes(
    tmp_path: Path,
) -> None:
    report = await run(tmp_path, 1500, seed=1)
    assert report.outcome.wrong == []
    assert report.engine_trouble == []
    assert report.reached_engine > 100
    assert report.alive
