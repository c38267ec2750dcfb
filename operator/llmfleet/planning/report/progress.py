"""What a rollout waits for and what follows, in one sentence with the numbers."""

from __future__ import annotations

from datetime import UTC

from llmfleet.api import describe_step
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.intent import Intent
from llmfleet.planning.rollout.steps import Course


def describe_wait(facts: Facts, intent: Intent) -> tuple[str, str, str] | None:
    """Status, reason and message of Progressing while a rollout waits; None when it does not."""
    if intent.backing_off and intent.current is None and intent.wanted == intent.stable:
        return _between_attempts(facts, intent)
    going_on = intent.aborted is None and intent.wanted not in (None, intent.stable)
    if not going_on or not stands_still(intent):
        return None
    where = f"canary {intent.wanted} at {facts.traffic.get(intent.wanted or '', 0)} %"
    preview = facts.deployment.preview_url
    if facts.policy.strategy == "BlueGreen" and preview is not None:
        where = f"{intent.wanted} is reached at {preview}, {intent.stable} is served"
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
        if course.lacks_requests:
            until = f"{until}, and until it has had {_requests(course)}"
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
    if position.step >= len(course.steps):
        return False
    step = course.steps[position.step]
    return step.pause is not None or step.analysis is not None


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
    return f"; then {describe_step(course.steps[following])}"


def _requests(course: Course) -> str:
    had = course.judgement.requests
    so_far = "unknown" if had is None else had
    return f"{course.needed_requests} requests there ({so_far} so far)"


def _between_attempts(facts: Facts, intent: Intent) -> tuple[str, str, str]:
    rollout = facts.deployment.status.rollout
    what = rollout.revision if rollout is not None else "the revision"
    text = f"revision {what} was aborted {intent.aborts} times, last for {intent.aborted}"
    if intent.retry_at is None:
        act = f"annotate llmfleet.dev/retry: {what}@TOKEN, or change spec"
        return "False", "RetriesExhausted", f"{text}; {intent.stable} is served: {act}"
    when = f"{intent.retry_at.astimezone(UTC):%H:%M:%SZ}"
    return "True", "WaitingForRetry", f"{text}; {intent.stable} is served, tried again at {when}"
