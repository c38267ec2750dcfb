"""The rollout's stage: where it is, the split that follows, and what is told of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llmfleet.api import RejectedRevision, RolloutSpec, Routing
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.advance import decide_advance
from llmfleet.planning.rollout.attempt import freeze, tick
from llmfleet.planning.rollout.capacity import pods_for
from llmfleet.planning.rollout.diagnosis import GRACE, diagnose_arm, diagnosis_times
from llmfleet.planning.rollout.downloads import is_downloading
from llmfleet.planning.rollout.ends import Diagnosis
from llmfleet.planning.rollout.failures import ends_before, is_troubled
from llmfleet.planning.rollout.machine import Advance
from llmfleet.planning.rollout.restarting import next_pod, wanted_replicas
from llmfleet.planning.rollout.routing import decide_routing
from llmfleet.planning.rollout.split import Move, Split, move, stay, steady
from llmfleet.planning.rollout.state import (
    BackingOff,
    Forward,
    Going,
    Restarting,
    Returning,
    State,
    Undoing,
    Unreadable,
    attempt_of,
)
from llmfleet.planning.rollout.steps.following import allowance_at, describe_step_wait
from llmfleet.planning.rollout.steps.kind import Allowance
from llmfleet.planning.rollout.transitions import leaves_at_once

MAX_REJECTED_IN_STATUS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Everything decided about the rollout."""

    advance: Advance
    state: State
    """After this decision, its clocks included."""
    policy: RolloutSpec
    """Settings of the rollout under way, frozen when it began; outside one, spec's."""
    split: Split
    pods: int
    """Pods that the revision on its way up shall have, as far as the surge allows."""
    routing: Routing | None
    rejected_in_status: tuple[RejectedRevision, ...]
    moved: bool
    """Routers are commanded anything else than what is recorded."""

    @property
    def stable(self) -> str | None:
        """The served revision."""
        return self.advance.stable

    @property
    def target(self) -> str | None:
        """The revision on its way up, or back; None outside a rollout."""
        return self.advance.target

    @property
    def share(self) -> int:
        """Percent of the traffic of the revision of the rollout."""
        return self.split.traffic.get(self.target or "", 0)


def decide_rollout(
    facts: Facts, blocked: str | None, now: datetime, *, no_room: bool
) -> tuple[Facts, Rollout]:
    """Decide state, split and routing.

    Args:
        facts: what is observed.
        blocked: why no revision may be rolled out at all, or None.
        now: the time of the decision.
        no_room: engine pods wait for room, so the progress deadline stands still.

    Returns:
        The facts with routers given up that a rollout on its way back waits for no longer, and
        the decision.
    """
    facts, advance = decide_advance(facts, blocked, now)
    policy = policy_of(facts, advance.state)
    split = _decide_split(facts, advance, policy, now)
    routing = _decide_routing(facts, advance, policy, split)
    moved = dict(split.traffic) != dict(facts.traffic) or routing != facts.routing
    moved = moved or (bool(split.traffic) and facts.generation is None)
    rollout = Rollout(
        advance=advance,
        state=_tick(facts, advance, split, now, no_room=no_room),
        policy=policy,
        split=split,
        pods=pods_of(facts, advance),
        routing=routing,
        rejected_in_status=_in_status(facts, advance, now),
        moved=moved,
    )
    return facts, rollout


def policy_of(facts: Facts, state: State) -> RolloutSpec:
    """The settings that a rollout in this state goes by."""
    attempt = None if isinstance(state, BackingOff) else attempt_of(state)
    return facts.deployment.spec.rollout if attempt is None else attempt.policy


def allowance_of(facts: Facts, advance: Advance) -> Allowance:
    """What the revision on its way up may have at its step; without steps, everything."""
    state = advance.state
    if not isinstance(state, Forward) or state.position is None or advance.stable is None:
        return Allowance(weight=100)
    if advance.by_annotation and advance.started is not None:
        return Allowance()
    return allowance_at(state.attempt.policy.effective_steps, state.position.step, facts.replicas)


def goal_of(facts: Facts, advance: Advance) -> int:
    """Percent that the revision on its way up may have at most.

    A pause, or what holds the rollout, stops it where it is; the fleet's size is obeyed.
    """
    weight = allowance_of(facts, advance).weight
    present = facts.traffic.get(advance.target or "", 0)
    stopped = advance.by_annotation or advance.held is not None
    return min(weight, present) if stopped else weight


def pods_of(facts: Facts, advance: Advance) -> int:
    """Pods that the revision on its way up shall have; without steps, all.

    What is held keeps what it has, and what its share needs when the fleet's size changes.
    """
    asked = allowance_of(facts, advance).pods(facts.replicas)
    if advance.held is None:
        return asked
    share = facts.traffic.get(advance.target or "", 0)
    return min(asked, max(pods_for(facts.replicas, share), facts.arm(advance.target).wanted or 0))


def settings_changed(facts: Facts, rollout: Rollout) -> bool:
    """Whether spec's settings of rollouts are no longer those of the one under way."""
    state = rollout.state
    if not isinstance(state, Going) or rollout.advance.started or state.attempt.plan is None:
        return False
    steps = isinstance(state, Forward)
    # Both read by today's models: one frozen before a field existed is not another for that.
    frozen, spec = state.attempt.policy, facts.deployment.spec.rollout
    return freeze(frozen, steps=steps) != freeze(spec, steps=steps)


def stands_still(rollout: Rollout, until: str = "") -> tuple[str, str] | None:
    """Reason and words while the rollout waits for time or samples; None when it does not."""
    advance, state = rollout.advance, rollout.advance.state
    if advance.steps is None or not isinstance(state, Forward) or state.position is None:
        return None
    return describe_step_wait(advance.steps, state.position, until)


def deadline(facts: Facts, rollout: Rollout) -> datetime | None:
    """When the rollout counts as failed; None while its clock stands still."""
    state = rollout.state
    if not isinstance(state, Going | Returning) or facts.replicas == 0:
        return None
    if rollout.advance.held is not None or state.attempt.waiting_since is not None:
        return None
    return state.attempt.progressed_at + timedelta(seconds=rollout.policy.progress_deadline_seconds)


def find_trouble(
    facts: Facts, rollout: Rollout, revision: str | None, now: datetime
) -> Diagnosis | None:
    """A revision's worst pod."""
    attempt, deadline_seconds = attempt_of(rollout.state), rollout.policy.progress_deadline_seconds
    before = attempt.ended_before if attempt is not None and revision == rollout.target else {}
    return diagnose_arm(facts.arm(revision), now, deadline_seconds, before)


def due_times(facts: Facts, rollout: Rollout) -> tuple[datetime, ...]:
    """When time alone may change what the rollout does."""
    advance, state = rollout.advance, rollout.state
    delay = timedelta(seconds=facts.deployment.spec.rollout.scale_down_delay_seconds)
    times = [advance.due, deadline(facts, rollout), facts.routers.give_up_at]
    times += [since + delay for since in rollout.split.warm.values()]
    for arm in facts.arms.values():
        times += diagnosis_times(arm, rollout.policy.progress_deadline_seconds)
    if isinstance(state, Going) and state.attempt.trouble_since is not None:
        times.append(state.attempt.trouble_since + GRACE)
        times += [pod.created_at + GRACE for pod in facts.arm(state.attempt.revision).live]
    return tuple(each for each in times if each is not None)


def _decide_split(facts: Facts, advance: Advance, policy: RolloutSpec, now: datetime) -> Split:
    state, stable, rejected = advance.state, advance.stable, advance.rejected
    surge = policy.surge_replicas(facts.replicas)
    match state:
        case Unreadable():
            return stay(facts, state.revision, now)
        case Forward() | Undoing():
            asked = Move(
                old=stable, new=state.attempt.revision, back=False, surge=surge,
                whole=policy.strategy == "BlueGreen",
                goal=goal_of(facts, advance), pods=pods_of(facts, advance),
            )  # fmt: skip
            return move(facts, asked, rejected)
        case Returning() if stable is not None:
            asked = Move(
                old=state.attempt.revision, new=stable, back=True, surge=surge,
                at_once=leaves_at_once(state), pods=facts.replicas,
            )  # fmt: skip
            return move(facts, asked, rejected)
    if isinstance(state, Restarting):
        split = steady(facts, stable, now, discarded=rejected, rejected=rejected)
        return _restart_split(facts, state, split)
    discarded = set(rejected)
    if isinstance(state, BackingOff):
        discarded.add(state.attempt.revision)
    return steady(facts, stable, now, discarded=discarded, rejected=rejected)


def _restart_split(facts: Facts, state: Restarting, split: Split) -> Split:
    """The steady split with a pod more and a pod less, one by one."""
    gone = next_pod(facts, state)
    sizes = {**split.replicas, state.revision: wanted_replicas(facts, state)}
    return replace(split, replicas=sizes, replaced=() if gone is None else (gone,))


def _decide_routing(
    facts: Facts, advance: Advance, policy: RolloutSpec, split: Split
) -> Routing | None:
    state = advance.state
    held = advance.held is not None and advance.target is not None
    if isinstance(state, Unreadable) or held or (facts.replicas == 0 and facts.routing is not None):
        return facts.routing
    rising = advance.target if isinstance(state, Going) and advance.stable is not None else None
    return decide_routing(
        facts,
        policy=policy,
        stable=advance.stable or advance.target,
        rising=rising,
        routes=allowance_of(facts, advance).routes if rising else (None, None),
        served=frozenset(split.traffic),
    )


def _tick(facts: Facts, advance: Advance, split: Split, now: datetime, *, no_room: bool) -> State:
    """The state with the clocks of its attempt gone on."""
    state, before = advance.state, attempt_of(advance.state_before)
    if not isinstance(state, Going | Returning):
        return state
    target = state.attempt.revision
    arm, deadline_seconds = facts.arm(target), state.attempt.policy.progress_deadline_seconds
    waits = no_room or facts.replicas == 0 or advance.paused is not None or is_downloading(arm, now)
    if isinstance(state, Forward) and state.position is not None and advance.steps is not None:
        waits = waits or describe_step_wait(advance.steps, state.position, "") is not None
    risen = split.traffic.get(target, 0) > facts.traffic.get(target, 0)
    same = before is not None and before.id == state.attempt.id
    left = same and _step(advance.state_before) != _step(state)
    ended = ends_before(arm, state.attempt.ended_before if same else None)
    attempt = tick(
        state.attempt, now, waits=waits, progress=risen or left,
        served=facts.reaches(target) and facts.routers.confirmed,
        troubled=is_troubled(arm, now, deadline_seconds, ended),
    )  # fmt: skip
    attempt = replace(attempt, ended_before=ended)
    if isinstance(state, Forward) and advance.judgement is not None:
        attempt = replace(attempt, metric_results=(advance.judgement.as_result(),))
    return replace(state, attempt=attempt)


def _step(state: State) -> int:
    position = state.position if isinstance(state, Forward | Returning) else None
    return position.step if position is not None else 0


def _in_status(facts: Facts, advance: Advance, now: datetime) -> tuple[RejectedRevision, ...]:
    """The latest rejections; an empty status takes memory's, so that no retry is read into it."""
    status, rejected = facts.deployment.status, advance.rejected
    before = [each for each in status.rejected_revisions if each.hash in rejected]
    known = {each.hash for each in before}
    message = advance.failure.message if advance.failure is not None else None
    fresh = [name for name in rejected if name not in facts.rejected]
    if status.schema_ is None:
        asked = facts.deployment.metadata.annotations.get("llmfleet.dev/retry", "").split("@")[0]
        named = [name for name in rejected if name in {facts.spec_revision, asked}]
        fresh = [name for name in rejected if name not in named] + named
    entries = [
        RejectedRevision(hash=name, reason=rejected[name], at=now, message=message)
        for name in fresh
        if name not in known
    ]
    return (*before, *entries)[-MAX_REJECTED_IN_STATUS:]
