"""The planner stays one that can be read: short files and functions, and packages that say so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmfleet.planning

PLANNING = Path(llmfleet.planning.__file__).parent
LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 50
"""A screen; the docstring is not counted."""
LINES_OF_DECIDE = 120
"""The pipeline and nothing else."""
NOT_HERE = re.compile(r"\b(no|not|nothing|none|never|nobody)\b", re.IGNORECASE)
"""What a package's docstring says of what does not belong there."""


def modules() -> Iterator[tuple[str, str]]:
    for path in sorted(PLANNING.rglob("*.py")):
        yield str(path.relative_to(PLANNING)), path.read_text()


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, without decorators and docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    said = function.body[0]
    return lines - ((said.end_lineno or said.lineno) - said.lineno + 1)


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_file_when_it_is_of_the_planner_then_it_is_short() -> None:
    lines = {name: len(source.splitlines()) for name, source in modules()}
    assert {name: many for name, many in lines.items() if many > LINES_OF_A_FILE} == {}
    assert lines["decide.py"] < LINES_OF_DECIDE


def test_function_when_it_is_of_the_planner_then_it_fits_a_screen() -> None:
    lengths = {
        f"{name}: {each.name}": length(each)
        for name, source in modules()
        for each in functions(source)
    }
    assert {name: many for name, many in lengths.items() if many > LINES_OF_A_FUNCTION} == {}


def test_length_when_a_function_has_a_docstring_then_that_is_not_counted() -> None:
    source = 'def f() -> int:\n    """One.\n\n    Two.\n    """\n    return 1\n'
    assert [length(each) for each in functions(source)] == [2]


PACKAGES = sorted(
    str(path.parent.relative_to(PLANNING.parent)) for path in PLANNING.rglob("__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_when_opened_then_it_says_what_is_there_and_what_is_not(package: str) -> None:
    source = (PLANNING.parent / package / "__init__.py").read_text()
    said = ast.get_docstring(ast.parse(source)) or ""
    assert re.search(r"[.:;] ", said.replace("\n", " ")), "says in a sentence what lives there"
    assert NOT_HERE.search(said), "says what does not belong there"


def test_folder_when_it_holds_modules_then_it_is_a_package_that_is_shipped() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    folders = {path.parent for path in PLANNING.rglob("*.py")}
    names = {
        ".".join(("llmfleet", *folder.relative_to(PLANNING.parent).parts)) for folder in folders
    }
    assert {name for name in names if f'"{name}"' not in pyproject} == set()
