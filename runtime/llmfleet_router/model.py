"""What shall be served, and the arithmetic of weights. Pure values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmfleet_router.routing import (
    REVISION,
    Routing,
    UnreadableTrafficError,
    parse_routing,
    routing_as_json,
)

TOTAL_WEIGHT = 100
LARGEST_INT64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """One ready engine pod."""

    address: str
    port: int
    ready_since: int = field(default=0, compare=False)
    """When it was first seen ready, in seconds since 1970; 0: it was ready before we looked."""


Endpoints = tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The operator's command: ``status.traffic``, ``.routing`` and ``.trafficGeneration``."""

    generation: int
    weights: tuple[tuple[str, int], ...]
    """(revision, percent), each > 0; the sum is 100, or the tuple is empty: nothing is served."""
    routing: Routing = field(default_factory=Routing)
    object_uid: str | None = None
    """Of the LLMDeployment that commands; None if it was not told. One that is made anew under the
    same name counts its generations from the beginning."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions named, each once: those with a weight first, in the command's order."""
        return tuple(dict.fromkeys((*(r for r, _ in self.weights), *self.routing.revisions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the API server last said."""

    command: Command | None = None
    endpoints: Mapping[str, Endpoints] = field(default_factory=dict)
    """Ready endpoints per revision, sorted; a revision without any is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """One version of the route tables."""

    command: Command
    """What they carry out."""
    available: frozenset[str]
    """Those of its revisions that had ready endpoints."""
    split: tuple[tuple[str, int], ...]
    """(revision, weight) given to Envoy."""
    effective: tuple[tuple[str, int], ...]
    """(revision, percent of requests that can really be answered), all 0 without endpoints."""
    routing: Routing = field(default_factory=Routing)
    """What of the command's routing leads to ready endpoints."""

    @property
    def generation(self) -> int:
        """Which command it is."""
        return self.command.generation

    @property
    def object_uid(self) -> str | None:
        """Of the LLMDeployment whose command it is."""
        return self.command.object_uid

    @property
    def revisions(self) -> frozenset[str]:
        """The revisions that some request may reach."""
        return frozenset((*(revision for revision, _ in self.split), *self.routing.revisions))


def parse_command(status: Mapping[str, Any], object_uid: str | None = None) -> Command | None:
    """Reads the traffic command from an LLMDeployment's status; None when there is none yet.

    Args:
        status: of the LLMDeployment.
        object_uid: its uid.

    Raises:
        UnreadableTrafficError: the fields are there and contradict docs/contract.md.
    """
    traffic, generation = status.get("traffic"), status.get("trafficGeneration")
    if traffic is None or generation is None:
        return None
    if not _is_generation(generation) or not isinstance(traffic, list):
        raise UnreadableTrafficError("status.traffic or status.trafficGeneration has a wrong type")
    weights: list[tuple[str, int]] = []
    for item in traffic:
        revision, weight = (
            (item.get("revision"), item.get("weight")) if isinstance(item, dict) else (None, None)
        )
        if not isinstance(revision, str) or not REVISION.fullmatch(revision):
            raise UnreadableTrafficError(f"status.traffic names no revision in {item!r}")
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= 100:
            raise UnreadableTrafficError(f"status.traffic has the weight {weight!r}")
        if weight:
            weights.append((revision, weight))
    if len({revision for revision, _ in weights}) != len(weights):
        raise UnreadableTrafficError("status.traffic names a revision twice")
    if weights and sum(weight for _, weight in weights) != TOTAL_WEIGHT:
        raise UnreadableTrafficError("the weights of status.traffic do not sum to 100")
    return Command(
        generation=generation,
        weights=tuple(weights),
        routing=parse_routing(status.get("routing")),
        object_uid=object_uid,
    )


def command_as_json(command: Command) -> Mapping[str, Any]:
    """What ``command_from_json`` reads back."""
    return {
        "generation": command.generation,
        "weights": [list(pair) for pair in command.weights],
        "routing": routing_as_json(command.routing),
        "objectUid": command.object_uid,
    }


def command_from_json(content: Mapping[str, Any]) -> Command:
    """The command that ``command_as_json`` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it did not.
    """
    return Command(
        generation=int(content["generation"]),
        weights=tuple((str(revision), int(weight)) for revision, weight in content["weights"]),
        routing=parse_routing(content["routing"]),
        object_uid=content["objectUid"],
    )


def _is_generation(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_INT64


def effective_weights(
    weights: tuple[tuple[str, int], ...], available: Collection[str]
) -> tuple[tuple[str, int], ...]:
    """Shares 100 % among the revisions that have ready endpoints, in proportion to their weights.

    A revision without endpoints gets 0. Whole percents by the largest-remainder method (Hamilton),
    ties in the order given; all 0 when nothing is available.

    >>> effective_weights((("a", 75), ("b", 25)), {"a"})
    (('a', 100), ('b', 0))
    """
    total = sum(weight for revision, weight in weights if revision in available)
    if total == 0:
        return tuple((revision, 0) for revision, _ in weights)
    shares = [
        divmod(weight * TOTAL_WEIGHT, total) if revision in available else (0, -1)
        for revision, weight in weights
    ]
    left = TOTAL_WEIGHT - sum(quotient for quotient, _ in shares)
    by_remainder = sorted(range(len(shares)), key=lambda i: (-shares[i][1], i))[:left]
    return tuple(
        (revision, shares[i][0] + (1 if i in by_remainder else 0))
        for i, (revision, _) in enumerate(weights)
    )


def build_routes(command: Command, available: Collection[str]) -> Routes:
    """The route tables for a command, given which revisions have ready endpoints.

    Without any endpoint the commanded split stays, so that Envoy itself answers 503 and the first
    endpoint to appear serves at once. What else leads to a revision without endpoints is left out.
    """
    effective = effective_weights(command.weights, available)
    split = tuple((revision, weight) for revision, weight in effective if weight)
    split = split or command.weights
    if command.routing.sticky:
        # Envoy lays the shares side by side in this order, and a session falls on one point: with
        # two arms in one order, an arm that grows keeps every session it had.
        split = tuple(sorted(split))
    return Routes(
        command=command,
        available=frozenset(command.revisions) & frozenset(available),
        split=split,
        effective=effective,
        routing=command.routing.among(available),
    )
