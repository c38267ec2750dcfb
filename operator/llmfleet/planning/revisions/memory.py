"""What outlives the resource: a ConfigMap without owner, so that a re-created object remembers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.naming import (
    DEPLOYMENT_LABEL,
    canonical_json,
    make_child,
    memory_key,
)
from llmfleet.planning.plan import Child
from llmfleet.planning.revisions.revision import Revision, parse_revision, revision_body
from llmfleet.planning.snapshot import ObservedObject

MAX_REJECTED: Final = 1000
MEMORY_SCHEMA: Final = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered about an object of this name."""

    rejected: Mapping[str, str] = field(default_factory=dict)
    """Rejected hash → reason, in the order of rejection."""
    last_good: Revision | None = None
    """The revision promoted last and not rejected."""
    in_judgement: str | None = None
    """Hash of the revision being rolled out."""
    handled_acts: Mapping[str, str] = field(default_factory=dict)
    past_acts: tuple[str, ...] = ()
    """Every value of an act handled so far, as ``ACT VALUE``, the latest last."""
    rollout_id: int = 0
    """Number of the latest rollout."""
    traffic_generation: int = 0
    """The latest one commanded, or the one before if the operator ended just then."""


def build_memory(deployment: LLMDeployment, memory: Memory) -> Child:
    """The ConfigMap; only labels of ours, nothing copied from the parent."""
    last_good = memory.last_good
    data = {
        "schema": MEMORY_SCHEMA,
        "rejected": canonical_json(list(memory.rejected.items())[-MAX_REJECTED:]),
        "lastGood": canonical_json(
            {"hash": last_good.hash, "number": last_good.number, **revision_body(last_good)}
            if last_good
            else None
        ),
        "inJudgement": canonical_json(memory.in_judgement),
        "handledActs": canonical_json(dict(memory.handled_acts)),
        "pastActs": canonical_json(list(memory.past_acts)),
        "rolloutId": canonical_json(memory.rollout_id),
        "trafficGeneration": canonical_json(memory.traffic_generation),
    }
    name = deployment.metadata.name
    return make_child(
        deployment, memory_key(name), {DEPLOYMENT_LABEL: name}, {"data": data}, owned=False
    )


def parse_memory(found: ObservedObject | None) -> Memory:
    """Read the ConfigMap back; what is missing or unreadable is as if never written."""
    data: Any = (found.body.get("data") if found else None) or {}
    rejected = _load(data, "rejected", list)
    good = _load(data, "lastGood", dict)
    judged = _load(data, "inJudgement", str)
    acts = _load(data, "handledActs", dict)
    return Memory(
        rejected={
            str(pair[0]): str(pair[1])
            for pair in rejected or []
            if isinstance(pair, list) and len(pair) == 2
        },
        last_good=parse_revision(str(good.get("hash") or ""), good, int(good.get("number") or 0))
        if good
        else None,
        in_judgement=judged or None,
        handled_acts={str(act): str(value) for act, value in (acts or {}).items()},
        past_acts=tuple(map(str, _load(data, "pastActs", list) or ())),
        rollout_id=_load(data, "rolloutId", int) or 0,
        traffic_generation=_load(data, "trafficGeneration", int) or 0,
    )


def _load(data: Any, key: str, kind: type) -> Any:
    try:
        value = json.loads(data.get(key) or "null")
    except ValueError:
        return None
    return value if isinstance(value, kind) else None
