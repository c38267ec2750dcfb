"""What a rollout waits for and what follows, in one sentence with the numbers."""

from __future__ import annotations

from datetime import UTC

from llmfleet.planning.facts import Facts
from llmfleet.planning.intent import Intent
from llmfleet.planning.steps import weight_at


def describe_wait(facts: Facts, intent: Intent) -> tuple[str, str, str] | None:
    """Status, reason and message of Progressing while a rollout waits; None when it does not."""
    if intent.backing_off and intent.current is None and intent.wanted == intent.stable:
        return _between_attempts(facts, intent)
    going_on = intent.aborted is None and intent.wanted not in (None, intent.stable)
    if not going_on or not stands_still(intent):
        return None
    where = f"canary {intent.wanted} at {facts.traffic.get(intent.wanted or '', 0)} %"
    if intent.paused is not None:
        text = f"{where} waits for a person: {intent.paused}{next_sentence(intent)}"
        return "True", "Paused", text
    return _at_step(intent, where)


def _at_step(intent: Intent, where: str) -> tuple[str, str, str] | None:
    course, position = intent.course, intent.position
    if course is None or position is None:
        return None
    until = "" if intent.due is None else f" until {intent.due.astimezone(UTC):%H:%M:%SZ}"
    step = f"step {position.step + 1} of {len(course.steps)}"
    if course.steps[position.step].pause is not None:
        return "True", "StepPause", f"{where}: {step} pauses{until}{next_sentence(intent)}"
    words = f"{step} is judged, {course.judgement.message}; at the longest{until}"
    return "True", "Analyzing", f"{where}: {words}{next_sentence(intent)}"


def stands_still(intent: Intent) -> bool:
    """Whether the rollout waits for a person, for time, or for samples."""
    if intent.paused is not None:
        return True
    course, position = intent.course, intent.position
    if course is None or position is None or position.started_at is None:
        return False
    return position.step < len(course.steps) and course.steps[position.step].set_weight is None


def next_sentence(intent: Intent) -> str:
    """What follows the step under way, as the end of a sentence.

    An empty string for rollouts without steps.
    """
    course, position = intent.course, intent.position
    if course is None or position is None or position.step >= len(course.steps):
        return ""
    following = position.step + 1
    if following >= len(course.steps):
        return "; then 100 % and promotion"
    step = course.steps[following]
    if step.set_weight is not None:
        return f"; then {weight_at(course.steps, following)} %"
    if step.analysis is not None:
        return "; then an analysis"
    lasts = step.pause.duration if step.pause is not None else None
    return f"; then a pause of {lasts}" if lasts else "; then a pause until promoted"


def _between_attempts(facts: Facts, intent: Intent) -> tuple[str, str, str]:
    rollout = facts.deployment.status.rollout
    what = rollout.revision if rollout is not None else "the revision"
    text = f"revision {what} was aborted {intent.aborts} times, last for {intent.aborted}"
    if intent.retry_at is None:
        act = f"annotate llmfleet.dev/retry: {what}@TOKEN, or change spec"
        return "False", "RetriesExhausted", f"{text}; {intent.stable} is served: {act}"
    when = f"{intent.retry_at.astimezone(UTC):%H:%M:%SZ}"
    return "True", "WaitingForRetry", f"{text}; {intent.stable} is served, tried again at {when}"
