"""What of a decision about the rollout outlives the resource."""

from __future__ import annotations

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.revisions.keeping import Keeping
from llmfleet.planning.revisions.memory import Memory
from llmfleet.planning.revisions.revision import Revision
from llmfleet.planning.rollout.stage import Rollout
from llmfleet.planning.rollout.state import Undoing, Unreadable, attempt_of


def remember(facts: Facts, rollout: Rollout, history: Keeping) -> Memory:
    """The memory after a decision."""
    advance, attempt = rollout.advance, attempt_of(rollout.state)
    generation = facts.next_generation if rollout.moved else facts.generation
    if isinstance(rollout.state, Unreadable):
        generation = None  # a number that cannot be believed would outlive the status' correction
    recorded = facts.deployment.status.rollout  # it may end now, before memory knows of it
    begun = [(each.id or 0) for each in (attempt, recorded) if each is not None]
    return Memory(
        rejected=advance.rejected,
        last_good=_last_good(facts, rollout, history),
        in_judgement=rollout.target,
        handled_acts=advance.acts.handled,
        past_acts=advance.acts.past,
        rollout_id=max([facts.memory.rollout_id, *begun]),
        traffic_generation=max(generation or 0, facts.memory.traffic_generation),
    )


def _last_good(facts: Facts, rollout: Rollout, history: Keeping) -> Revision | None:
    """The served revision; while it is left for having been rejected, where that leads to."""
    stable, state = rollout.stable, rollout.state
    remembered = facts.memory.last_good
    good = history.known.get(stable or "") if stable in facts.revisions else None
    good = good or remembered
    if stable in rollout.advance.rejected:
        # What an undo goes back to was good once; what spec asks for was not.
        back = state.attempt.revision if isinstance(state, Undoing) else None
        good = facts.revisions.get(back or "") or remembered or good
    if good is None and history.made is not None and stable == history.made.hash:
        return history.made
    return good
