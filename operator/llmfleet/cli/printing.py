"""How commands print: as text for a terminal or a pipe, or as JSON."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.console import Console, RenderableType

WIDEST: Final = 4096
"""Characters of a line where no terminal breaks it: whoever reads it there cuts words himself."""

console: Final = Console(markup=False, emoji=False)
complaints: Final = Console(stderr=True, markup=False, emoji=False)
"""Words of the cluster are in what both print: nothing in a string is markup."""


class Output(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


Print = Annotated[Output, typer.Option("-o", "--output", help="text or json.")]


def draw(table: RenderableType, *, whole: bool = False) -> None:
    """A table: as wide as the terminal, and where there is none, or with ``whole``, as it needs."""
    if whole or not console.is_terminal:
        console.width = max(console.width, WIDEST)
    console.print(table)


def say(text: RenderableType) -> None:
    """Lines are broken by the terminal alone: a command among them can be copied, or piped."""
    console.print(text, soft_wrap=True)


def complain(text: str) -> None:
    """A sentence on stderr, in red."""
    complaints.print(text, style="red", highlight=False, soft_wrap=True)


def print_json(value: Any, indent: int | None = 2) -> None:
    """What a program reads."""
    typer.echo(json.dumps(value, indent=indent))
