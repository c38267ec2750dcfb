"""Acts: annotations by which people promote, abort, retry, undo or restart; each runs once.

``llmfleet.dev/promote: HASH/STEP@TOKEN`` names the revision and the step it means, as the index
that ``status.rollout.step`` shows; ``HASH@TOKEN`` means whatever step is under way, and
``HASH/full@TOKEN`` all of them. ``abort`` may name a step as well. A value is recorded as handled
in the same status write as its effect. An act that cannot be carried out is recorded too, and the
condition ActRefused says why while it stays annotated.
``pause`` is a state, not an act: it lasts until it is removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from llmfleet.api import clean_line
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.act_problems import FULL, ActContext, current_revision, why_not
from llmfleet.planning.rollout.state import State

ACTS: Final = ("abort", "undo", "retry", "promote", "restart")
"""In the order in which they are carried out when several are annotated at once."""
MAX_PAST_ACTS: Final = 200
TOGETHER: Final = "came together with {}, which was carried out: ask again if it is still meant"
MALFORMED: Final = (
    "is not of the form HASH@TOKEN, or HASH/STEP@TOKEN: take hash and step from status.rollout, and"
    " any new token"
)
_VALUE: Final = re.compile(r"^([0-9a-f]+)(?:/(full|[0-9]{1,4}))?@(.+)$")
_LONGEST_VALUE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """What people ask for now."""

    handled: Mapping[str, str]
    """Act → its last value, those of now included."""
    past: tuple[str, ...]
    """Every value handled so far, as ``ACT VALUE``, the latest last."""
    run: Mapping[str, str]
    """Act → hash, to be carried out now."""
    full: bool = False
    """The promotion skips all steps."""
    refused: str | None = None
    """Why an act cannot be carried out, in a sentence."""
    paused: bool = False

    def withdraw(self, act: str, why: str) -> Acts:
        """The same without an act that turns out to have no effect, and the reason."""
        if act not in self.run:
            return self
        text = f"llmfleet.dev/{act}: {self.handled[act]} {why}"
        refused = text if self.refused is None else f"{self.refused}; {text}"
        return replace(
            self,
            run={name: revision for name, revision in self.run.items() if name != act},
            full=self.full and act != "promote",
            refused=refused,
        )


def decide_acts(facts: Facts, state: State, stable: str | None, held: str | None) -> Acts:
    """Read the annotations.

    Args:
        facts: what is observed.
        state: of the rollout.
        stable: the served revision.
        held: why nothing may be rolled out now, or None.
    """
    current = current_revision(state)
    metadata, status = facts.deployment.metadata, facts.deployment.status
    # Status first: it is what memory is a copy of.
    handled = {**facts.memory.handled_acts, **status.handled_acts}
    found = {
        act: clean_line(value)[:_LONGEST_VALUE]  # as memory keeps it
        for act in ACTS
        if (value := metadata.annotations.get(f"llmfleet.dev/{act}"))
    }
    pause = metadata.annotations.get("llmfleet.dev/pause")
    paused = pause is not None and pause in {"true", current or facts.spec_revision}
    if status.schema_ is None:
        # A restored backup: its annotations were carried out in another life.
        return Acts(
            handled=handled | found,
            past=_past(facts, handled | found),
            run={},
            paused=paused,
        )
    fresh = {
        act: value
        for act, value in found.items()
        if handled.get(act) != value and f"{act} {value}" not in facts.memory.past_acts
    }
    context = ActContext(facts=facts, state=state, stable=stable, held=held)
    run, full, refusals = _sort(context, fresh, paused=paused)
    now = {act: value for act, value in found.items() if act in run or _named(value, refusals)}
    return Acts(
        handled=handled | now,
        past=_past(facts, handled | now),
        run=run,
        full=full,
        refused="; ".join(refusals) or _still_refused(facts, found),
        paused=paused,
    )


def _sort(
    context: ActContext, fresh: Mapping[str, str], *, paused: bool
) -> tuple[dict[str, str], bool, list[str]]:
    """What of these is carried out, whether a promotion skips all steps, and the refusals."""
    run: dict[str, str] = {}
    refusals, full = [], False
    for act, value in fresh.items():
        before = next((each for each in ("abort", "undo") if each in run), None)
        match = _VALUE.match(value)
        if before is not None:
            # Which of them was meant last nobody can tell, and going back loses nothing.
            problem: str | None = TOGETHER.format(before)
        elif match is None:
            problem = MALFORMED
        else:
            problem = why_not(context, act, match[1], match[2], paused=paused)
        if match is None or problem is not None:
            refusals.append(f"llmfleet.dev/{act}: {value} {problem}")
            continue
        run[act] = match[1]
        full = full or (act == "promote" and match[2] == FULL)
    return run, full, refusals


def _past(facts: Facts, handled: Mapping[str, str]) -> tuple[str, ...]:
    """A value that comes back after another one must not run again either."""
    known = facts.memory.past_acts
    fresh = [each for act, value in handled.items() if (each := f"{act} {value}") not in known]
    return (*known, *fresh)[-MAX_PAST_ACTS:]


def _named(value: str, refusals: list[str]) -> bool:
    return any(f": {value} " in each for each in refusals)


def _still_refused(facts: Facts, found: Mapping[str, str]) -> str | None:
    """A refusal lasts as long as the annotation that it is about."""
    for condition in facts.deployment.status.conditions:
        if condition.type == "ActRefused" and any(
            f"llmfleet.dev/{act}: {value} " in condition.message for act, value in found.items()
        ):
            return condition.message
    return None
