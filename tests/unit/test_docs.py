"""The pages promise nothing that is not there: links, sections, fields of the resource."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmfleet.api.crd import build_crd

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
FIELD = re.compile(r"`spec\.([A-Za-z][A-Za-z.\[\]]*)`")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The sections of a page, as GitHub names them in addresses."""
    prose = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


def broken_links(page: Path) -> Iterator[str]:
    for file, section in LINK.findall(FENCE.sub("", page.read_text())):
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            yield file
        elif section and section not in anchors(target):
            yield f"{file}#{section}"


def is_field(schema: dict[str, Any], path: str) -> bool:
    for name in path.split("."):
        schema = schema.get("items", schema)
        known = schema.get("properties", {})
        if "x-kubernetes-preserve-unknown-fields" in schema or "additionalProperties" in schema:
            return True
        if name.removesuffix("[]") not in known:
            return False
        schema = known[name.removesuffix("[]")]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_when_it_links_then_the_page_and_the_section_are_there(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_when_it_names_a_field_of_spec_then_the_resource_has_it(page: Path) -> None:
    version = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = version["properties"]["spec"]
    assert [path for path in FIELD.findall(page.read_text()) if not is_field(spec, path)] == []
