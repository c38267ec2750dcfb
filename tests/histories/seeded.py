"""Bugs in decisions, each a fault that was found once, to show that random histories reach it.

Each is put in by replacing one function of planning in a process of its own. Those that a gate
below them would stop take the gate away as well: it is what the mistake would have led to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from llmfleet.api import CountedRequests, RequestsAtStart
from llmfleet.planning import decide
from llmfleet.planning.analysis.metrics import METRICS
from llmfleet.planning.children import intended
from llmfleet.planning.facts import read as facts
from llmfleet.planning.report import situation, status
from llmfleet.planning.rollout import (
    acts,
    advance,
    arriving,
    inputs,
    judging,
    machine,
    served,
    split,
    stage,
    transitions,
)
from llmfleet.planning.rollout.state import Forward, Idle, Returning, Undoing
from llmfleet.planning.rollout.steps import analysis
from llmfleet.planning.rollout.triggers import pods
from tests.faults.planting import swap

BUGS: dict[str, Callable[[], None]] = {}


def bug(patch: Callable[[], None]) -> Callable[[], None]:
    """Register a bug under its function's name."""
    BUGS[patch.__name__.replace("_", "-")] = patch
    return patch


def plant(name: str) -> None:
    """Put a bug into this process.

    Raises:
        KeyError: there is none of that name.
    """
    BUGS[name]()


def no_gates() -> None:
    """What is rejected may gain weight, and be promoted."""
    real, may = split._gates, arriving.may_promote
    swap(split, "_gates", lambda facts, revision, rejected: real(facts, revision, ()))
    swap(
        arriving, "may_promote", lambda facts, state, rejected, **how: may(facts, state, (), **how)
    )


def see(change: Callable[[Any, Any], Any]) -> None:
    """Decisions see other facts: what ``change`` makes of snapshot and facts."""
    real = facts.read_facts
    swap(decide, "read_facts", lambda snapshot, *rest: change(snapshot, real(snapshot, *rest)))


@bug
def f1_undo_goes_on_with_what_it_rejects() -> None:
    """An undo in mid-rollout turns the rollout under way into one without steps."""
    no_gates()
    wanted = served.wanted_revision

    def undo(state: Any, asked: Any, context: Any) -> Any:
        del asked
        return transitions._begin(state.attempt.revision, "Undo", context)

    def still_wanted(facts: Any, state: Any, *rest: Any) -> Any:
        if isinstance(state, Undoing):
            return state.attempt.revision, state.cause
        return wanted(facts, state, *rest)

    transitions.TRANSITIONS[Forward, inputs.UndoTo] = undo  # type: ignore[index]
    swap(machine, "wanted_revision", still_wanted)


@bug
def f2_ends_of_the_past_count() -> None:
    """Restarts are counted from the beginning of the pod's life."""
    for module in (stage, pods):
        swap(module, "ends_before", lambda arm, recorded: {})


@bug
def f3_promoted_without_replicas() -> None:
    """Nothing forbids a promotion at no replicas."""
    real = arriving.may_promote
    swap(arriving, "may_promote", lambda facts, *rest, **how: real(
        replace(facts, replicas=max(1, facts.replicas)), *rest, **how
    ))  # fmt: skip


@bug
def f3_traffic_moves_without_replicas() -> None:
    """The split goes on at no replicas as at one."""
    real = stage.move
    swap(stage, "move", lambda facts, *rest: real(
        replace(facts, replicas=max(1, facts.replicas)), *rest
    ))  # fmt: skip


@bug
def f9_stale_counts_believed() -> None:
    """Counts of three hours ago are counts of now."""
    swap(facts, "COUNTS_LAST", timedelta(days=1))


@bug
def f10_requests_before_the_step_count() -> None:
    """An analysis step takes all requests of the attempt for its own."""
    real, none = judging.judge_since, CountedRequests(total=0, failed=0)
    swap(judging, "judge_since", lambda counts, start, **how: real(
        counts, RequestsAtStart(stable=none, canary=none), **how
    ))  # fmt: skip


@bug
def f10_running_taken_for_successful() -> None:
    """An analysis step ends at the first verdict that is not Failed."""
    swap(analysis, "_successful", lambda context: context.own_judgement.verdict != "Failed")


@bug
def f11_nothing_to_compare_with_passes() -> None:
    """At 100 % a revision that fails every request is judged against nothing."""
    METRICS["ErrorRate"] = replace(METRICS["ErrorRate"], process_alone=lambda *_: 0.0)


@bug
def f13_retry_keeps_the_attempt() -> None:
    """A retry of a revision that still goes back goes on with the attempt that failed."""
    transitions.TRANSITIONS[Returning, inputs.Retry] = lambda state, asked, context: (  # type: ignore[index]
        Forward(attempt=state.attempt, position=state.position)
        if asked.revision == state.attempt.revision
        else state
    )


@bug
def f19_weight_for_what_is_only_made_now() -> None:
    """Leftover pods count: one plan makes a Deployment and gives it weight."""
    swap(split, "_gates", lambda facts, revision, rejected: (
        [facts.traffic.get(revision, 0)] if revision in rejected else []
    ))  # fmt: skip


@bug
def f20_unknown_state_read_as_known() -> None:
    """A record with a state or cause of a newer operator is followed."""
    real = advance.read_state

    def read(record: Any, *rest: Any, **how: Any) -> Any:
        if record is not None:
            record = record.model_copy(update={"state": None, "cause": None})
        return real(record, *rest, **how)

    swap(advance, "read_state", read)


@bug
def f24_undo_target_not_watched() -> None:
    """Nobody looks at the pods of a kept revision on its way up."""
    del transitions.TRANSITIONS[Undoing, transitions.GoBack]  # type: ignore[attr-defined]


@bug
def f25_served_said_of_a_split() -> None:
    """The message names one revision, whatever the traffic is."""
    said = lambda traffic, **_: f"{min(traffic, default='?')} is served"  # noqa: E731
    swap(situation, "describe_traffic", said)


@bug
def f26_promotion_told_when_it_fails() -> None:
    """A promotion in the pass that goes back is told as carried out."""
    swap(acts.Acts, "withdraw", lambda self, act, why: self)


@bug
def f29_generation_above_what_routers_say() -> None:
    """The next trafficGeneration follows from what routers report."""

    def change(snapshot: Any, found: Any) -> Any:
        said = [each.traffic_generation or 0 for each in snapshot.routers.values()]
        return replace(found, next_generation=max([found.next_generation, *(n + 1 for n in said)]))

    see(change)


@bug
def generation_of_the_status_alone() -> None:
    """After a status was lost, numbers begin anew."""
    swap(facts, "_next_generation", lambda recorded, memory: 1 + (recorded or 0))


@bug
def generation_kept() -> None:
    """Another split under the same number."""
    swap(status, "next_generation", lambda facts, rollout: facts.generation or 1)


@bug
def rejection_without_a_gate() -> None:
    """Spec is rolled out, rejected or not."""
    no_gates()
    real = served.wanted_revision
    swap(machine, "wanted_revision", lambda facts, state, stable, rejected, now: real(
        facts, state, stable, (), now
    ))  # fmt: skip


@bug
def rejection_not_remembered() -> None:
    """Memory keeps no rejections."""
    real = intended.build_memory
    swap(intended, "build_memory", lambda owner, m: real(owner, replace(m, rejected={})))


@bug
def last_good_not_remembered() -> None:
    """Memory keeps no good revision."""
    real = intended.build_memory
    swap(intended, "build_memory", lambda owner, m: real(owner, replace(m, last_good=None)))


@bug
def acts_run_again() -> None:
    """An act's value that comes back after another one runs again."""
    see(lambda snapshot, found: replace(found, memory=replace(found.memory, past_acts=())))


@bug
def attempts_numbered_by_the_status_alone() -> None:
    """After a status was lost, attempts have numbers that others had."""
    real = machine.Machine._context

    def context(self: Any) -> Any:
        record = self.facts.deployment.status.rollout
        return replace(real(self), next_id=1 + ((record.id or 0) if record is not None else 0))

    swap(machine.Machine, "_context", context)


@bug
def traffic_before_ready() -> None:
    """A share is given before there are pods for it."""
    swap(split, "_carried", lambda facts, asked, present: 100)


@bug
def routers_not_waited_for() -> None:
    """Every command counts as confirmed."""
    see(lambda snapshot, found: replace(
        found, routers=replace(found.routers, confirmed=True, lagging=())
    ))  # fmt: skip


@bug
def promoted_before_it_has_all() -> None:
    """The end of the steps is the promotion."""
    real = arriving.may_promote
    swap(arriving, "may_promote", lambda facts, state, *rest, **how: real(
        replace(facts, traffic={state.attempt.revision: 100}), state, *rest, **how
    ))  # fmt: skip


@bug
def steps_without_limits() -> None:
    """A canary gets what its pods can carry, at every step."""
    swap(stage, "goal_of", lambda facts, advance: 100)


@bug
def deployment_deleted_while_routed() -> None:
    """What has no weight goes, though testers' requests or copies reach it."""
    real = split.removable

    def removable(facts: Any, keep: Any) -> Any:
        return real(replace(facts, routing=None, traffic={}), set(keep) & set(facts.traffic))

    swap(split, "removable", removable)


@bug
def superseded_without_return() -> None:
    """Another target begins at once, from the middle of the rollout before it."""
    transitions.TRANSITIONS[Forward, transitions.Supersede] = lambda *_: Idle()  # type: ignore[index]


@bug
def capacity_not_kept() -> None:
    """The arm that is left shrinks by what the other shall have, not by what it has."""
    swap(split, "_old_size", lambda facts, asked, share, pods: facts.replicas - min(
        facts.replicas, asked.pods
    ))  # fmt: skip


@bug
def promoted_without_a_ready_pod() -> None:
    """A set that has lost its pods since it got everything is promoted."""
    real = arriving.may_promote

    def may_promote(facts: Any, state: Any, *rest: Any, **how: Any) -> bool:
        name = state.attempt.revision
        arm = facts.arm(name)
        well = replace(arm, pods=tuple(replace(pod, ready=True) for pod in arm.pods))
        return real(replace(facts, arms={**facts.arms, name: well}), state, *rest, **how)

    swap(arriving, "may_promote", may_promote)


@bug
def acts_told_without_effect() -> None:
    """An act that turns out to have no effect is told as carried out."""
    swap(acts.Acts, "withdraw", lambda self, act, why: self)


@bug
def held_for_ever_by_a_rejected_revision() -> None:
    """With the status lost, a superseded undo waits for routers that are commanded nothing."""
    swap(arriving, "_leads_nowhere", lambda machine: False)
