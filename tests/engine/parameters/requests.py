"""Requests made of the table: each value alone, every pair of values, rows that cover all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tests.engine.parameters.fields import BODIES, FIELDS, PATHS, WRONG, WRONG_IN_PAIRS

Choice = tuple[str, int]
"""A field and the number of one of its values."""
Pair = tuple[Choice, Choice]
Factors = Mapping[str, Sequence[Any]]
"""Fields and the values that are combined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One body, and what must come of it."""

    operation: str
    tried: tuple[tuple[str, Any], ...]
    served: bool | None = None
    """Whether it must be answered 200 or must not; None: either."""

    @property
    def path(self) -> str:
        """Where it is sent."""
        return PATHS[self.operation]

    @property
    def body(self) -> dict[str, Any]:
        """A small ordinary body, what the tried fields need, and the tried fields."""
        fields = FIELDS[self.operation]
        body = dict(BODIES[self.operation])
        for name, _ in self.tried:
            body.update(fields[name].needs)
        return {**body, **dict(self.tried)}

    def __str__(self) -> str:
        tried = ", ".join(f"{name}={str(value)[:60]}" for name, value in self.tried)
        return f"{self.operation} {tried}"


def alone(operation: str) -> Iterator[Request]:
    """Every field with every value of its own and every wrong one, streamed and not."""
    for name, field in FIELDS[operation].items():
        cases = [
            *((value, True) for value in (*field.served, *field.alone)),
            *((value, False) for value in field.refused),
            *((value, None) for value in WRONG),
        ]
        for value, served in cases:
            yield Request(operation=operation, tried=((name, value),), served=served)
            if name != "stream" and "stream" in FIELDS[operation]:
                yield Request(operation=operation, tried=(("stream", True), (name, value)))


def factors(operation: str, *, wrong: bool = False) -> dict[str, tuple[Any, ...]]:
    """The fields that reach the engine and their values, on request some wrong ones too."""
    more = WRONG_IN_PAIRS if wrong else ()
    return {
        name: (*field.served, *more) for name, field in FIELDS[operation].items() if field.engine
    }


def all_pairs(values: Factors) -> list[Pair]:
    """Every value of every field with every value of every other field.

    >>> all_pairs({"a": "xy", "b": "z"})
    [(('a', 0), ('b', 0)), (('a', 1), ('b', 0))]
    """
    choices = {name: [(name, i) for i in range(len(listed))] for name, listed in values.items()}
    return [
        (one, other)
        for first, second in combinations(choices, 2)
        for one in choices[first]
        for other in choices[second]
    ]


def in_pairs(operation: str, values: Factors, pairs: Sequence[Pair]) -> Iterator[Request]:
    """A request for each pair."""
    for pair in pairs:
        yield Request(operation=operation, tried=tuple((name, values[name][i]) for name, i in pair))


def rows(operation: str) -> list[Request]:
    """Few requests that together hold every pair of values that reach the engine."""
    values = factors(operation)
    return [
        Request(
            operation=operation, tried=tuple((name, values[name][i]) for name, i in row.items())
        )
        for row in covering_rows(values, all_pairs(values))
    ]


def covering_rows(values: Factors, pairs: Sequence[Pair]) -> list[dict[str, int]]:
    """Rows of choices that together hold every one of these pairs, each row as many as it can.

    The greedy choice of AETG (Cohen et al., IEEE Transactions on Software Engineering 23(7), 1997),
    without its randomness: a row starts with a pair that is missing, and each further field takes
    the value that adds most missing pairs; a field that adds none stays out.

    >>> covering_rows({"a": "xy", "b": "zw"}, all_pairs({"a": "xy", "b": "zw"}))
    [{'a': 0, 'b': 0}, {'a': 0, 'b': 1}, {'a': 1, 'b': 0}, {'a': 1, 'b': 1}]
    """
    missing = dict.fromkeys(frozenset(pair) for pair in pairs)
    rows = []
    while missing:
        row = dict(next(iter(missing)))
        for name, listed in values.items():
            if name not in row:
                gains = [
                    sum(frozenset(((name, i), chosen)) in missing for chosen in row.items())
                    for i in range(len(listed))
                ]
                if (most := max(gains)) > 0:
                    row[name] = gains.index(most)
        rows.append(row)
        for pair in combinations(row.items(), 2):
            missing.pop(frozenset(pair), None)
    return rows
