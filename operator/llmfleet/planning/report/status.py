"""The status of an LLMDeployment as a value: no heartbeat, bounded lists, whole every time."""

from __future__ import annotations

from typing import Final

from llmfleet.api import COMPATIBLE_SCHEMA, STATUS_SCHEMA, shorten
from llmfleet.api.values import ResourceModel
from llmfleet.planning.children.naming import selector_labels
from llmfleet.planning.clock import format_time
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.report.conditions import (
    LONGEST_MESSAGE,
    build_conditions,
    decide_conditions,
)
from llmfleet.planning.report.situation import Situation
from llmfleet.planning.rollout.record import write_state
from llmfleet.planning.rollout.stage import Rollout
from llmfleet.planning.rollout.state import (
    Returning,
    State,
    Unreadable,
)
from llmfleet.planning.snapshot import JSON

PHASES: Final = {"True": "Healthy", "Unknown": "Progressing", "False": "Degraded"}


def build_status(
    situation: Situation, *, revisions: list[JSON], handled_acts: dict[str, str]
) -> JSON:
    """The complete status to record."""
    facts, rollout = situation.facts, situation.rollout
    deployment, before = facts.deployment, facts.deployment.status
    conditions = decide_conditions(situation)
    values = {each.type: each for each in conditions}
    shown = rollout.stable or rollout.target
    arm = facts.arm(shown)
    labels = selector_labels(deployment.metadata.name, "engine", shown)
    paused = "Paused" in values and values["Ready"].status == "Unknown"
    status: JSON = {
        "observedGeneration": deployment.metadata.generation,
        "schema": schema_of(rollout.state),
        "phase": "Paused" if paused else PHASES[values["Ready"].status],
        "message": shorten(values["Ready"].message, LONGEST_MESSAGE),
        "ready": f"{_ready_pods(facts, rollout)}/{facts.replicas}",
        "specRevision": facts.spec_revision,
        "replicas": len(arm.live),
        "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        "conditions": build_conditions(
            conditions, before.conditions, deployment.metadata.generation, situation.now
        ),
        "revisions": revisions,
    }
    optional: JSON = {
        "url": situation.url,
        "previewUrl": situation.preview_url,
        "rollout": write_state(rollout.state),
        "handledActs": handled_acts,
        "tokenSecret": _dump(before.token_secret),
        **_traffic(facts, rollout),
        "rejectedRevisions": [
            {
                "hash": each.hash,
                "reason": each.reason,
                "at": format_time(each.at),
                **({"message": each.message} if each.message else {}),
            }
            for each in rollout.rejected_in_status
        ],
    }
    return {
        **status,
        **{key: value for key, value in optional.items() if value not in (None, [], {})},
    }


def _ready_pods(facts: Facts, rollout: Rollout) -> int:
    """Ready engine pods of every revision that gets requests, as a Deployment counts its own.

    Beside the size that is wanted they may be more, while a rollout takes its surge.
    """
    before_the_first = [rollout.stable or rollout.target]
    return sum(facts.arm(name).ready for name in [*rollout.split.traffic] or before_the_first)


def schema_of(state: State) -> int:
    """The version of a status: 2 only while November's operator could not go on with it."""
    undoing = isinstance(state, Returning) and state.undo_target is not None
    return STATUS_SCHEMA if undoing else COMPATIBLE_SCHEMA


def next_generation(facts: Facts, rollout: Rollout) -> int | None:
    """The present trafficGeneration, or the next one when this plan changes the command."""
    return facts.next_generation if rollout.moved else facts.generation


def _traffic(facts: Facts, rollout: Rollout) -> JSON:
    """What routers are commanded, and what people read of it."""
    split = sorted(rollout.split.traffic.items())
    both = rollout.target is not None and rollout.stable is not None
    return {
        "canaryWeight": rollout.share if both else None,
        "servedRevision": facts.deployment.status.served_revision
        if isinstance(rollout.state, Unreadable)
        else rollout.stable,
        "trafficGeneration": next_generation(facts, rollout),
        "routing": _dump(rollout.routing),
        "traffic": [{"revision": name, "weight": weight} for name, weight in split],
    }


def _dump(model: ResourceModel | None) -> JSON | None:
    if model is None:
        return None
    body: JSON = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body
