"""All that conditions, messages and Events are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from llmfleet.planning.acceptance import Acceptance
from llmfleet.planning.children.intended import Intended
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.diagnosis import Diagnosis
from llmfleet.planning.rollout.stage import Rollout
from llmfleet.planning.stage import ConditionValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One decision, before it is told."""

    facts: Facts
    rollout: Rollout
    acceptance: Acceptance
    capacity: ConditionValue
    intended: Intended
    trouble: Diagnosis | None
    """The worst pod of the revision on its way up, else of the served one."""
    now: datetime

    @property
    def rejected(self) -> str | None:
        """Hash that spec asks for although it was rejected."""
        spec = self.facts.spec_revision
        return spec if spec in self.rollout.advance.rejected else None

    @property
    def foreign_sentence(self) -> str:
        """Whose names are in the way, and what to do."""
        names = ", ".join(self.intended.foreign)
        return f"{names} belongs to somebody else and is left alone: rename or delete it"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> count(1, "router"), count(2, "router")
        ('1 router', '2 routers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_traffic(traffic: Mapping[str, int]) -> str:
    """Who gets the requests, as the command says.

    Example:
        >>> describe_traffic({"5d41": 100}), describe_traffic({"7c9f": 25, "5d41": 75})
        ('5d41 is served', '5d41 has 75 % and 7c9f 25 % of the requests')
        >>> describe_traffic({})
        'nothing is served'
    """
    if not traffic:
        return "nothing is served"
    (first, most), *rest = sorted(traffic.items(), key=lambda each: (-each[1], each[0]))
    if most == 100:
        return f"{first} is served"
    shares = [f"{first} has {most} %", *(f"{name} {weight} %" for name, weight in rest)]
    return f"{' and '.join(shares)} of the requests"
