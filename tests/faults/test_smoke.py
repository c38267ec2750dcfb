"""A small part of the campaign, so that every test run has it; ``make test-faults`` runs all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hack.controlplane.apiserver import ApiServer

from tests.faults import campaign
from tests.faults.faults import Kind
from tests.faults.workloads import WORKLOADS

PLANS = 28
NAMES = {"create", "update", "children-edited", "upgrade"}
BUG = "expired-watch-not-listed-again"


@pytest.mark.timeout(300)
def test_fault_when_it_strikes_then_the_end_is_the_same_and_nothing_is_lost(
    api_server: ApiServer, tmp_path: Path
) -> None:
    results = asyncio.run(_run(api_server, tmp_path, None))
    assert {str(each.plan): each.problem for each in results if each.problem} == {}
    assert sum(each.struck for each in results) >= PLANS * 0.8


@pytest.mark.timeout(300)
def test_bug_when_it_is_planted_then_a_plan_fails(api_server: ApiServer, tmp_path: Path) -> None:
    results = asyncio.run(_run(api_server, tmp_path, BUG))
    assert any(each.problem for each in results)


async def _run(server: ApiServer, folder: Path, bug: str | None) -> list[campaign.Result]:
    async with campaign.world(server, folder) as world:
        shared = replace(world, patience_seconds=30) if bug else world
        workloads = [each for each in WORKLOADS if each.name in NAMES]
        outcomes = await campaign.references(shared, workloads)
        plans = [
            plan for plan in campaign.plans(outcomes, lasting=0)
            if bug is None or (plan.fault.kind is Kind.HIDE and plan.fault.plural == "pods")
        ]  # fmt: skip
        return await campaign.run_all(
            shared,
            campaign.spread(plans, PLANS, seed=0),
            outcomes,
            bug=bug,
            until=lambda result: bug is not None and result.problem is not None,
        )
