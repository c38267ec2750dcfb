"""Bugs in what the operator decides, to show that the campaign notices such bugs."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from llmfleet import __main__ as program
from llmfleet.planning import decide
from llmfleet.planning.children import intended, naming, network, pools, router
from llmfleet.planning.children.engines import pod as engine
from llmfleet.planning.facts import read as facts
from llmfleet.planning.plan import Plan
from llmfleet.planning.report import status
from llmfleet.planning.revisions import memory
from llmfleet.planning.revisions import revision as revisions
from llmfleet.planning.rollout import split
from tests.faults.faults import Kind
from tests.faults.planting import bug, swap


@bug()
def owner_reference_missing() -> None:
    """Services are not owned by their LLMDeployment."""
    real = naming.make_child

    def make_child(deployment: Any, key: Any, *rest: Any, **options: Any) -> Any:
        owned = options.pop("owned", True) and key.kind != "Service"
        return real(deployment, key, *rest, owned=owned, **options)

    for module in (pools, network, router):
        swap(module, "make_child", make_child)


@bug()
def traffic_before_ready() -> None:
    """The new revision gets its share as soon as it is wanted."""
    swap(split, "_share", lambda facts, asked, rejected: 100)


@bug(workloads={"update", "edit-engine"})
def scale_down_before_routers_confirm() -> None:
    """Nobody waits for the routers."""
    real = facts.read_facts

    def read_facts(*arguments: Any) -> Any:
        seen = real(*arguments)
        return replace(seen, routers=replace(seen.routers, confirmed=True, lagging=()))

    swap(decide, "read_facts", read_facts)


@bug(workloads={"upgrade"})
def template_rendered_anew() -> None:
    """The Deployment is applied from today's rendering, not from the frozen one."""
    real = intended._children

    def children(snapshot: Any, history: Any, *rest: Any) -> Any:
        spec_revision = revisions.revision_hash(revisions.spec_payload(snapshot.raw))
        fresh = revisions.render_revision(snapshot.deployment, snapshot.raw, snapshot.settings, 1)
        known = {**history.known, spec_revision: fresh}
        return real(snapshot, replace(history, known=known), *rest)

    swap(intended, "_children", children)


@bug()
def memory_forgets_the_last_good() -> None:
    """What was promoted is not remembered."""
    real = memory.build_memory
    swap(intended, "build_memory", lambda d, m: real(d, replace(m, last_good=None)))


@bug()
def traffic_generation_reused() -> None:
    """Another split under the same number: routers do not notice."""
    swap(status, "next_generation", lambda facts, rollout: facts.generation or 1)


@bug()
def old_revision_deleted_first() -> None:
    """The old revision's Deployment is deleted when the rollout starts."""
    real = decide.decide

    def early(snapshot: Any, now: Any) -> Plan:
        plan = real(snapshot, now)
        target = ((plan.status or {}).get("rollout") or {}).get("revision")
        served = (plan.status or {}).get("servedRevision")
        if not target or not served:
            return plan
        key = naming.deployment_key(snapshot.deployment.metadata.name, served)
        found = snapshot.objects.get(key)
        children = tuple(child for child in plan.children if child.key != key)
        gone = intended._deletions(snapshot, (served,), ())
        return replace(plan, children=children, deletions=gone if found else ())

    swap(decide, "decide", early)
    swap(program, "decide", early)


@bug(Kind.KILL_BEFORE, Kind.KILL_AFTER)
def token_name_of_the_process() -> None:
    """Every start of the operator makes a token Secret of its own."""

    def token_name(deployment: Any) -> str:
        return f"{deployment.metadata.name}-token-{os.getpid()}"

    for module in (naming, intended, engine, router, revisions):
        swap(module, "token_name", token_name)


@bug(Kind.KILL_BEFORE, Kind.KILL_AFTER, workloads={"update", "edit-engine"})
def deletions_skipped_after_a_crash() -> None:
    """Only what this process has seen being made is deleted: what was there before stays."""
    real = decide.decide
    there_before: dict[str, frozenset[str]] = {}

    def forgetful(snapshot: Any, now: Any) -> Plan:
        plan = real(snapshot, now)
        found = frozenset(each.uid for each in snapshot.objects.values())
        old = there_before.setdefault(snapshot.raw["metadata"]["uid"], found)
        return replace(
            plan, deletions=tuple(each for each in plan.deletions if each.uid not in old)
        )

    swap(program, "decide", forgetful)
