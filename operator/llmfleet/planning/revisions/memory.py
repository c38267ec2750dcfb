"""What outlives the resource: a ConfigMap without owner, so that a re-created object remembers.

Whoever may write ConfigMaps may have written it. Every key is read by itself: what cannot be read
is dropped, and said. Where not knowing it could bring back what was rejected, nothing is rolled out
until it can be read again, and the ConfigMap is left as it is for whoever mends it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llmfleet.api import LLMDeployment, clean_line
from llmfleet.planning.children.naming import (
    DEPLOYMENT_LABEL,
    canonical_json,
    make_child,
    memory_key,
)
from llmfleet.planning.plan import Child
from llmfleet.planning.revisions.once import join_template, split_template
from llmfleet.planning.revisions.revision import Revision, revision_body
from llmfleet.planning.revisions.shapes import show
from llmfleet.planning.revisions.stored import UnusableError, is_count, read_revision
from llmfleet.planning.snapshot import JSON, ObservedObject

MAX_REJECTED: Final = 1000
MAX_PAST_ACTS: Final = 200
MEMORY_SCHEMA: Final = 1
MAX_ACTS: Final = 8
LONGEST_ACT: Final = 16
LONGEST_VALUE: Final = 256
"""Of an act, in characters, as ``rollout.acts`` records it."""
UNKNOWN_REASON: Final = "Rejected"
_KEY_SUFFIX: Final = memory_key("").name
_NAME: Final = re.compile("[!-~]{1,64}")
"""A hash, which is shorter today."""
_WORD: Final = re.compile("[A-Za-z]{1,64}")
"""A reason."""
_ACT: Final = re.compile(f"[a-z]{{1,{LONGEST_ACT}}}")

HOLDING: Final = frozenset({"schema", "rejected"})
"""Keys without which nothing may be rolled out."""
HOLDING_WITHOUT_STATUS: Final = HOLDING | {"lastGood", "inJudgement"}
"""The same for a resource without a status, which memory alone tells from a new one."""


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
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Key of the ConfigMap → what is wrong with it, for each that was not read in full."""

    @property
    def problem(self) -> str | None:
        """What could not be read, as part of a sentence; None when all could."""
        return "; ".join(f"{key}: {text}" for key, text in self.unreadable.items()) or None

    def holds(self, *, without_status: bool) -> bool:
        """Whether too little is known for anything to be rolled out."""
        needed = HOLDING_WITHOUT_STATUS if without_status else HOLDING
        return not needed.isdisjoint(self.unreadable)


def build_memory(deployment: LLMDeployment, memory: Memory) -> Child:
    """The ConfigMap; only labels of ours, nothing copied from the parent."""
    data = {
        "schema": str(MEMORY_SCHEMA),
        "rejected": canonical_json(list(memory.rejected.items())[-MAX_REJECTED:]),
        "lastGood": canonical_json(_last_good_body(memory.last_good)),
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
    """Read the ConfigMap back; never raises.

    What is missing is as if never written; what cannot be read stands in ``unreadable``.
    """
    data: Any = found.body.get("data") if found else None
    if found is None or data is None:
        return Memory()
    if not isinstance(data, dict):
        return Memory(unreadable={"schema": f"{show(data)} is no data"})
    name = found.key.name.removesuffix(_KEY_SUFFIX)
    values, unreadable = {}, {}
    for key, attribute, read in _KEYS:
        value, problem = _read(data, key, read, name)
        if problem is not None:
            # What could be read of lastGood is enough, of the rejected it is not.
            unreadable[key if value is None or key in HOLDING else f"{key}, in part"] = problem
        if value is not None and attribute is not None:
            values[attribute] = value
    return Memory(**values, unreadable=unreadable)


Read = tuple[Any, str | None]
"""A value, None when there is none, and what could not be read."""


def _read(data: Mapping[str, Any], key: str, read: Callable[[Any, str], Read], name: str) -> Read:
    text = data.get(key)
    if text is None:
        return None, None
    try:
        value = _DECODER.decode(text)
    except (ValueError, TypeError, RecursionError):
        return None, f"{show(text)} is no JSON that can be read"
    return (None, None) if value is None else read(value, name)


def _nothing(_: str) -> None:
    """NaN and Infinity, which are no JSON."""


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_DECODER: Final = json.JSONDecoder(parse_constant=_nothing, parse_float=_finite)


def _schema(value: Any, _: str) -> Read:
    if type(value) is not int:
        return None, f"{show(value)} is no number"
    if value > MEMORY_SCHEMA:
        return None, f"it is {value}, this operator reads {MEMORY_SCHEMA}: upgrade the operator"
    return None, None


def _rejected(value: Any, _: str) -> Read:
    """Every hash that can be made out; what beside it is no reason is as good as none."""
    if not isinstance(value, list):
        return None, f"{show(value)} is no list"
    kept, odd = {}, []
    for each in value:
        revision, reason = each if isinstance(each, list) and len(each) == 2 else (each, None)
        if isinstance(revision, str) and _NAME.fullmatch(revision):
            known = isinstance(reason, str) and _WORD.fullmatch(reason)
            kept[revision] = reason if known else UNKNOWN_REASON
        else:
            odd.append(each)
    return kept, f"{len(odd)} of {len(value)} entries name no revision" if odd else None


def _last_good(value: Any, name: str) -> Read:
    if not isinstance(value, dict):
        return None, f"{show(value)} is no object"
    number = value.get("number")
    known = number if is_count(number) else 0
    try:
        body = {**value, "template": join_template(value)} if "rest" in value else value
        revision = read_revision(body, name=name, revision=value.get("hash"), number=known)
    except UnusableError as error:
        return None, str(error)
    return revision, None if is_count(number) else f"its number is {show(number)}"


def _in_judgement(value: Any, _: str) -> Read:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        return None, f"{show(value)} is no revision's hash"
    return value, None


def _handled_acts(value: Any, _: str) -> Read:
    if not isinstance(value, dict):
        return None, f"{show(value)} is no object"
    kept = {
        act: clean_line(text)[:LONGEST_VALUE]
        for act, text in value.items()
        if isinstance(text, str) and _ACT.fullmatch(act)
    }
    # Not more than status can hold beside its own.
    few = dict(list(kept.items())[:MAX_ACTS])
    return few, None if len(few) == len(value) else "some entries are no acts"


def _past_acts(value: Any, _: str) -> Read:
    if not isinstance(value, list):
        return None, f"{show(value)} is no list"
    longest = LONGEST_ACT + 1 + LONGEST_VALUE
    kept = [clean_line(each)[:longest] for each in value if isinstance(each, str)]
    problem = None if len(kept) == len(value) else "some entries are no text"
    return tuple(kept)[-MAX_PAST_ACTS:], problem


def _generation(value: Any, _: str) -> Read:
    return (value, None) if is_count(value) else (None, f"{show(value)} is no trafficGeneration")


def _rollout_id(value: Any, _: str) -> Read:
    return (value, None) if is_count(value) else (None, f"{show(value)} is no number of a rollout")


_KEYS: Final[tuple[tuple[str, str | None, Callable[[Any, str], Read]], ...]] = (
    ("schema", None, _schema),
    ("rejected", "rejected", _rejected),
    ("lastGood", "last_good", _last_good),
    ("inJudgement", "in_judgement", _in_judgement),
    ("handledActs", "handled_acts", _handled_acts),
    ("pastActs", "past_acts", _past_acts),
    ("rolloutId", "rollout_id", _rollout_id),
    ("trafficGeneration", "traffic_generation", _generation),
)
"""Key of the ConfigMap, attribute of ``Memory``, and how the one becomes the other."""


def _last_good_body(revision: Revision | None) -> JSON | None:
    if revision is None:
        return None
    body = {"hash": revision.hash, "number": revision.number, **revision_body(revision)}
    return split_template(body)
