"""The judge's questions and answers, in the words of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from llmfleet.api import (
    BlueGreen,
    CountedRequests,
    HeaderRoute,
    Mirror,
    RequestsAtStart,
    RolloutSpec,
)
from llmfleet.planning.analysis.judge import (
    Criterion,
    Judgement,
    Verdict,
    judge_requests,
    judge_since,
    keep_numbers,
    undecided,
)
from llmfleet.planning.analysis.metrics import METRICS
from llmfleet.planning.analysis.metrics.error_rate import ERROR_RATE
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.attempt import Position
from llmfleet.planning.rollout.state import (
    Forward,
    Undoing,
)
from llmfleet.planning.rollout.steps.kind import Routes, StepContext
from llmfleet.planning.snapshot import RequestCounts


def judge(facts: Facts, state: Forward | Undoing, stable: str) -> Judgement | None:
    """The judgement of all requests of the attempt; None for one that is not judged."""
    attempt = state.attempt
    if isinstance(state, Undoing) or not attempt.stepwise:
        return None
    criterion = criterion_of(attempt.policy)
    name = criterion.metric.name
    if all(each.name != name for each in attempt.policy.analysis.metrics):
        return undecided(criterion, Verdict.INCONCLUSIVE, f"spec does not judge {name}")
    return judge_requests(facts.requests, criterion, stable=stable, canary=attempt.revision)


def criterion_of(policy: RolloutSpec) -> Criterion:
    """What the settings hold a canary to: the first of their metrics that can be judged.

    Where they name none of those, what ``ErrorRate`` says by default.
    """
    analysis = policy.analysis
    chosen = next((each for each in analysis.metrics if each.name in METRICS), None)
    metric = ERROR_RATE if chosen is None else METRICS[chosen.name]
    effect = None if chosen is None else chosen.min_effect_share
    return Criterion(
        metric=metric,
        min_effect=metric.min_effect(effect, sessions=policy.stickiness == "Session"),
        min_samples=analysis.min_samples,
        alpha=analysis.alpha,
    )


def build_step_context(
    facts: Facts, state: Forward, stable: str, judgement: Judgement, now: datetime
) -> tuple[StepContext, Position]:
    """What the steps depend on, and where the rollout is among them."""
    attempt, policy = state.attempt, state.attempt.policy
    steps = policy.effective_steps
    recorded = state.position or Position()
    position = replace(recorded, step=min(recorded.step, len(steps)))
    own = judgement
    if judgement.verdict is not Verdict.INCONCLUSIVE:
        own = judge_since(
            facts.requests,
            position.counted if position.started_at is not None else None,
            criterion_of(policy),
            stable=stable,
            canary=attempt.revision,
        )
    results = {each.name: each for each in attempt.metric_results}
    context = StepContext(
        steps=steps,
        replicas=facts.replicas,
        surge=policy.surge_replicas(facts.replicas),
        share=facts.traffic.get(attempt.revision, 0),
        routes=_commanded_routes(facts, attempt.revision),
        ready=facts.arm(attempt.revision).ready,
        confirmed=facts.routers.confirmed,
        analysis=policy.analysis,
        judgement=judgement,
        own_judgement=own,
        needed_requests=_needed_requests(policy),
    )
    shown = keep_numbers(context.shown(position), results.get(judgement.metric.name), now)
    if context.shown(position) is own:
        return replace(context, own_judgement=shown), position
    return replace(context, judgement=shown), position


def count_from_start(facts: Facts, position: Position, stable: str, canary: str) -> Position:
    """The position with the counts of now, if its clock runs and nobody has counted yet.

    Counts that are lower than those noted were begun anew, and so is what is the step's own.
    """
    counts = facts.requests.value or {}
    if position.started_at is None or not {stable, canary} <= set(counts):
        return position
    now = RequestsAtStart(stable=_counted(counts[stable]), canary=_counted(counts[canary]))
    then = position.counted
    fallen = then is not None and (
        now.stable.total < then.stable.total or now.canary.total < then.canary.total
    )
    return replace(position, counted=now) if then is None or fallen else position


def describe_failed(counts: Mapping[str, RequestCounts] | None, revision: str) -> str:
    """What clients felt of a revision that goes back, as the end of a sentence.

    Example:
        >>> seen = RequestCounts(total=340, failed=12)
        >>> describe_failed({"9a0b": seen}, "9a0b")
        '; it failed 12 of the 340 requests that it got'
    """
    found = (counts or {}).get(revision)
    if found is None:
        return ""
    return f"; it failed {found.failed} of the {found.total} requests that it got"


def _counted(counts: RequestCounts) -> CountedRequests:
    return CountedRequests(total=counts.total, failed=counts.failed)


def _commanded_routes(facts: Facts, revision: str) -> Routes:
    routing = facts.routing
    route = routing.header_route if routing is not None else None
    mirror = routing.mirror if routing is not None else None
    return (
        HeaderRoute(headers=route.headers) if route and route.revision == revision else None,
        Mirror(percent=mirror.percent) if mirror and mirror.revision == revision else None,
    )


def _needed_requests(policy: RolloutSpec) -> int:
    if policy.strategy != "BlueGreen":
        return 0
    return (policy.blue_green or BlueGreen()).min_preview_requests
