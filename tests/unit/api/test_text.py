"""Foreign text, cleaned."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet.api import clean_line, clean_text, clean_tree, parse
from tests.unit.planning.fleet import resource

HOSTILE = st.lists(
    st.sampled_from([
        "\x1b", "[", "]", "0;", "31", "m", "K", "\x07", "\\", "\x9b", "\x9d", "P", "\x00", "\x7f",
        "\x85", "\u2028", "\u202e", "\u2067", "\u200f", "\ud83d", "\ude00", "\r", "\n", "\t",
        "\ufeff", "\U000e0041", " ", "é", "模", "word",
    ]) | st.characters(),
    max_size=12,
).map("".join)  # fmt: skip
BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


@given(HOSTILE)
def test_text_when_cleaned_then_it_can_be_stored_shown_and_cleaned_again(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert clean_text(cleaned) == cleaned
    for character in cleaned:
        assert character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cs"}
        assert unicodedata.bidirectional(character) not in BIDI
        assert character not in "\u200e\u200f\u061c\u2028\u2029"


@given(HOSTILE)
def test_line_when_cleaned_then_it_is_one_line(text: str) -> None:
    line = clean_line(text)
    assert len(line.splitlines()) <= 1
    assert clean_line(line) == line


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain, with 模型 and é", "plain, with 模型 and é"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jgone", "gone"),
        ("\x1bcreset", "reset"),
        ("10%\r20%\r\n30%", "10%\n20%\n30%"),
        ("half \ud83d", "half \ufffd"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("family 👨\u200d👩", "family 👨\u200d👩"),
    ],
)
def test_text_when_cleaned_then_what_is_seen_stays(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_tree_when_cleaned_then_keys_too_and_what_is_too_deep_is_left_out() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert clean_tree({"a\x00": ["b\x1b[m", 1, None], "deep": deep})["a"] == ["b", 1, None]


def test_resource_when_parsed_then_its_status_and_annotations_are_clean_and_its_spec_as_it_is() -> (
    None
):
    env = [{"name": "PROMPT", "value": "\x1b[1m>\x1b[0m\t"}]
    raw = resource(podTemplate={"env": env})
    raw["metadata"]["annotations"] = {"llmfleet.dev/retry": "abc@\x1b[31m"}
    raw["status"] = {"message": "\u202eevil"}
    found = parse(raw)
    assert found.metadata.annotations == {"llmfleet.dev/retry": "abc@"}
    assert found.status.message == "evil"
    assert found.spec.pod_template.env[0].value == "\x1b[1m>\x1b[0m\t"
