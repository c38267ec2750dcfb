"""Constraints on the answer: JSON schemas, regexes, grammars, lists of choices.

The engine makes an automaton of each, in one go and beside every other request. How large that
becomes is decided by the text it is made of and by what a count unrolls, so both have limits: each
by itself, and together for all of a constraint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmfleet_runtime.body import parse_body
from llmfleet_runtime.refused import refuse

MAX_TEXT_CONSTRAINT = 65_536
"""Characters of a constraint, names included."""
MAX_TEXT_TOOLS = 262_144
"""The same for all tools of a request, whose descriptions the model reads as well."""
MAX_REGEX = 2_048
MAX_REPEAT = 1_000
"""Largest counted repetition in a regex or JSON schema: an automaton unrolls it."""
MAX_UNROLLED = 8_192
"""What all counts of a constraint may unroll to, in copies of what they repeat."""
MAX_SCHEMA_DEPTH = 32

_STRUCTURED = frozenset({"json", "regex", "choice", "grammar", "json_object", "structural_tag"})
_PIECE = re.compile(
    r"(?P<repeat>\{\s*+(\d*+)\s*+,?+\s*+(\d*+)\s*+\})"
    r"|\\.|\[\^?+\]?+(?:\\.|[^\]\\])*+\]?+|.",
    re.DOTALL,
)
"""A count, an escape, a class or a character. Possessive (``*+``), and whatever stands there is a
piece: no character is looked at more than twice."""
_COUNT_KEYWORDS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)


def check_structured(value: Any) -> None:
    """Checks vLLM's ``structured_outputs``.

    Raises:
        Refused: a field that is not accepted, or a constraint that is too large.
    """
    if value is None:
        return
    if not isinstance(value, dict):
        refuse("structured_outputs must be an object.", param="structured_outputs")
    for name in value:
        if name not in _STRUCTURED:
            refuse(
                f"structured_outputs.{name[:64]} is not accepted: remove it.",
                param="structured_outputs",
                code="forbidden_field",
            )
    if (regex := value.get("regex")) is not None:
        check_regex(regex, "structured_outputs.regex")
    for name in ("json", "grammar", "structural_tag", "choice"):
        constraint, field = value.get(name), f"structured_outputs.{name}"
        check_schema(constraint, field)
        if isinstance(constraint, str) and name in {"json", "structural_tag"}:
            check_schema(parse_body(constraint.encode("utf-8")), field)


def check_regex(regex: Any, field: str) -> int:
    """How many copies the counted repetitions of a regex make, of whatever they repeat.

    Raises:
        Refused: not a string, too long, or repetitions within each other that multiply to more
            than MAX_REPEAT.
    """
    if not isinstance(regex, str) or len(regex) > MAX_REGEX:
        refuse(f"{field} must be a string of at most {MAX_REGEX} characters.", param=field)
    copies, product = count_repeats(regex)
    if product > MAX_REPEAT:
        refuse(
            f"{field}: its counted repetitions multiply to {product}, the limit is {MAX_REPEAT}.",
            param=field,
        )
    return copies


def count_repeats(regex: str) -> tuple[int, int]:
    r"""Copies that all counts of a regex make together, and the largest product of nested ones.

    >>> count_repeats(r"[0-9a-f]{8}-[0-9a-f]{4}"), count_repeats("((ab){30}c){1,2}")
    ((10, 8), (119, 60))
    """
    groups = [_Group()]
    size, product = 0, 1  # of the piece before
    for match in _PIECE.finditer(regex):
        if match["repeat"]:
            count = max(1, *(int(digits[:9] or 0) for digits in match.groups()[1:]))
            groups[-1].size += size * (count - 1)
            groups[-1].copies += size * (count - 1)
            size, product = size * count, product * count
        elif match[0] == "(":
            groups.append(_Group())
            size, product = 0, 1
        elif match[0] == ")" and len(groups) > 1:
            ended = groups.pop()
            size, product = ended.size, ended.product
            groups[-1].size += size
            groups[-1].copies += ended.copies
        else:
            size, product = 1, 1
            groups[-1].size += 1
        groups[-1].product = max(groups[-1].product, product)
    return sum(each.copies for each in groups), max(each.product for each in groups)


@dataclass(slots=True)
class _Group:
    """A group of a regex, as far as it has been read."""

    size: int = 0
    """Pieces, those of inner groups included, each as often as it is repeated."""
    copies: int = 0
    product: int = 1
    """The largest of nested counts."""


def check_schema(value: Any, field: str, characters: int = MAX_TEXT_CONSTRAINT) -> None:
    """Refuses JSON schemas too large, too deep, with unbounded counts or references to elsewhere.

    Args:
        value: a schema, or whatever holds schemas somewhere.
        field: its name, for the answer.
        characters: that it may hold.

    Raises:
        Refused: naming the field.
    """
    _Reader(field=field, characters=characters).read(value, 0)


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Reads a schema to its end or to the first limit, whichever comes first."""

    field: str
    characters: int
    """How many more it may hold."""
    copies: int = MAX_UNROLLED
    """How many more its counts may make."""

    def read(self, value: Any, depth: int) -> None:
        if isinstance(value, str):
            self._hold(len(value))
            return
        if not isinstance(value, (list, dict)):
            return
        if depth > MAX_SCHEMA_DEPTH:
            refuse(
                f"{self.field} is nested deeper than {MAX_SCHEMA_DEPTH} levels.", param=self.field
            )
        self._hold(len(value))
        if isinstance(value, dict):
            for name, item in value.items():
                self._hold(len(name))
                self._check_keyword(name, item, value)
        for item in value.values() if isinstance(value, dict) else value:
            self.read(item, depth + 1)

    def _hold(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            refuse(f"{self.field} holds too much text: send a smaller one.", param=self.field)

    def _unroll(self, copies: int) -> None:
        self.copies -= copies
        if self.copies < 0:
            refuse(
                f"{self.field}: its counts make more than {MAX_UNROLLED} copies of what they"
                " repeat: lower or remove some.",
                param=self.field,
            )

    def _check_regex(self, regex: str) -> None:
        self._hold(len(regex))  # before it is read, which costs more than to copy it
        self._unroll(check_regex(regex, self.field))

    def _check_keyword(self, name: str, item: Any, schema: Mapping[str, Any]) -> None:
        field = self.field
        if name in {"pattern", "regex"} and isinstance(item, str):
            self._check_regex(item)
        elif name == "patternProperties" and isinstance(item, dict):
            for pattern in item:
                self._check_regex(pattern)
        elif name in _COUNT_KEYWORDS and isinstance(item, (int, float)):
            if item > MAX_REPEAT:
                refuse(f"{field}: {name} {item} is above the limit {MAX_REPEAT}.", param=field)
            if name.endswith("Properties") and isinstance(schema.get("properties"), dict):
                # A state for each of the properties and each number of them.
                self._unroll(max(0, int(item)) * len(schema["properties"]))
        elif name == "$ref" and not (isinstance(item, str) and item.startswith("#")):
            refuse(f"{field}: $ref may only point into the schema itself (#/…).", param=field)
