"""Shapes of JSON values, as tables: whatever a shape does not name is not allowed.

A shape is asked for the first thing in a value that it does not allow, as a sentence that begins
with the path. Nothing is ever raised, whatever the value is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson
from pydantic import BaseModel, ValidationError

from llmfleet.api import unknown_keys
from llmfleet.api.text import clean_line

LONGEST_TEXT: Final = 1 << 20
_SHOWN: Final = 80


class Shape(Protocol):
    """What a value may be."""

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed in a value found at ``path``; None when all is."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these values; true is not 1."""

    values: tuple[Any, ...]

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        same = any(type(value) is type(each) and value == each for each in self.values)
        return None if same else f"{path} is {show(value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A whole number within bounds."""

    least: int = 0
    most: int = 1 << 31

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        allowed = type(value) is int and self.least <= value <= self.most
        return None if allowed else f"{path} is {show(value)}"


@dataclass(frozen=True, slots=True)
class Text:
    """A string, as long as it may be."""

    longest: int = LONGEST_TEXT

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        allowed = isinstance(value, str) and len(value) <= self.longest
        return None if allowed else f"{path} is {show(value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMap:
    """Strings by name; of the names that begin with ``reserved`` only those that are known."""

    reserved: str | None = None
    known: frozenset[str] = frozenset()

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        if not isinstance(value, dict):
            return f"{path} is {show(value)}"
        for name, text in value.items():
            own = self.reserved is not None and name.startswith(self.reserved)
            if not isinstance(text, str) or (own and name not in self.known):
                return f"{path}[{show(name)}] is {show(text)}"
        return None


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of these fields, of which some must be there."""

    known: Mapping[str, Shape]
    required: tuple[str, ...] = ()

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        if not isinstance(value, dict):
            return f"{path} is {show(value)}"
        for name in self.required:
            if name not in value:
                return f"{path}.{name} is missing"
        for name, each in value.items():
            shape = self.known.get(name)
            if shape is None:
                return f"{path}.{show(name)} is set"
            found = shape.forbidden(each, f"{path}.{name}")
            if found is not None:
                return found
        return None


@dataclass(frozen=True, slots=True)
class Items:
    """A list of values of one shape."""

    shape: Shape
    most: int = 256
    least: int = 0

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        if not isinstance(value, list):
            return f"{path} is {show(value)}"
        if not self.least <= len(value) <= self.most:
            return f"{path} has {len(value)} entries"
        found = (self.shape.forbidden(each, f"{path}[{at}]") for at, each in enumerate(value))
        return next((each for each in found if each is not None), None)


@dataclass(frozen=True, slots=True)
class Choice:
    """An object whose shape follows from its name."""

    shape_of: Callable[[str], Shape | None]
    """The shape of the object of a name; None = the name is not allowed."""

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        name = value.get("name") if isinstance(value, dict) else None
        shape = self.shape_of(name) if isinstance(name, str) else None
        return f"{path} is {show(value)}" if shape is None else shape.forbidden(value, path)


@dataclass(frozen=True, slots=True)
class All:
    """Several shapes at once."""

    shapes: Iterable[Shape]

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        found = (shape.forbidden(value, path) for shape in self.shapes)
        return next((each for each in found if each is not None), None)


@dataclass(frozen=True, slots=True)
class Where:
    """A value for which a sentence is true."""

    holds: Callable[[Any], bool]

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        return None if self.holds(value) else f"{path} is {show(value)}"


@dataclass(frozen=True, slots=True)
class As:
    """What a model of the resource reads, without a key that it does not know."""

    model: type[BaseModel]

    def forbidden(self, value: Any, path: str) -> str | None:
        """What is not allowed."""
        try:
            text = orjson.dumps(value)
        except (TypeError, RecursionError):  # orjson's own error is a TypeError
            return f"{path} is no JSON"
        read = _misread if len(text) <= _REMEMBERED_BYTES else _misread.__wrapped__
        found = read(self.model, text)
        return None if found is None else f"{path}{found}"


_REMEMBERED_BYTES: Final = 512
"""Variables, volumes and mounts of a fleet are mostly the same few."""


@lru_cache(maxsize=4096)
def _misread(model: type[BaseModel], text: bytes) -> str | None:
    """What a model does not take of a JSON text, to be put behind the text's path."""
    try:
        model.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "".join(f".{part}" for part in first["loc"])
        return f"{clean_line(where)}: {clean_line(first['msg'])}"
    unknown = unknown_keys(model, orjson.loads(text))
    return f"{clean_line(unknown[0])} is set" if unknown else None


def show(value: Any) -> str:
    """A value in a sentence: cleaned, and cut where it is long."""
    try:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
    except (TypeError, RecursionError):
        text = type(value).__name__
    text = clean_line(text[: 4 * _SHOWN])
    return (text or '""') if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
