"""What a constraint may make of the engine's time and memory: limits by sum, not only by part."""

from __future__ import annotations

from typing import Any

import pytest

from llmfleet_runtime.constraints import (
    MAX_REPEAT,
    MAX_TEXT_CONSTRAINT,
    MAX_TEXT_TOOLS,
    MAX_UNROLLED,
    check_regex,
    check_schema,
    check_structured,
    count_repeats,
)
from llmfleet_runtime.guard import check_fields
from llmfleet_runtime.media import MediaPolicy
from llmfleet_runtime.refused import Refused

UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
NOTHING = MediaPolicy.from_entries(())


def check(**fields: Any) -> None:
    check_fields("chat", {"messages": [], **fields}, NOTHING)


def properties(count: int, **schema: Any) -> dict[str, Any]:
    each = {str(number): {"type": "string", **schema} for number in range(count)}
    return {"type": "object", "properties": each}


@pytest.mark.parametrize(
    ("regex", "copies", "product"),
    [
        ("abc", 0, 1),
        (UUID, 27, 12),
        ("a{1,1000}", 999, 1000),
        ("(a{40}){40}", 39 + 40 * 39, 1600),
        ("(a{4}|b{5})c{3}", 3 + 4 + 2, 5),
        (r"\{9999\}[{9999}]\({2}", 1, 2),
        ("a{ 3 , 7 }", 6, 7),
        ("a{,7}", 6, 7),
        ("a{x}{", 0, 1),
        ("[]{9}]b{2}", 1, 2),
        (")a{5}", 4, 5),
        ("(a{5}", 4, 5),
        ("a{999999999999}", 999_999_998, 999_999_999),
    ],
)
def test_repeats_when_counted_then_sums_beside_and_products_within_each_other(
    regex: str, copies: int, product: int
) -> None:
    assert count_repeats(regex) == (copies, product)


@pytest.mark.parametrize("regex", [UUID, f"({UUID}|x)", "(x{30}){33}"])
def test_regex_when_its_counts_stand_beside_each_other_then_passes(regex: str) -> None:
    check_regex(regex, "x")
    check(tools=[{"type": "function", "function": {"parameters": properties(8, pattern=regex)}}])


def test_regexes_when_each_is_small_and_the_sum_is_not_then_refused() -> None:
    pattern = f".{{1,{MAX_REPEAT}}}"
    few = MAX_UNROLLED // MAX_REPEAT
    check_schema(properties(few, pattern=pattern), "x")
    with pytest.raises(Refused, match=f"more than {MAX_UNROLLED} copies"):
        check_schema(properties(few + 1, pattern=pattern), "x")
    with pytest.raises(Refused, match=f"more than {MAX_UNROLLED} copies"):
        check_schema({"patternProperties": {f"{pattern}{at}": {} for at in range(few + 1)}}, "x")


@pytest.mark.parametrize("keyword", ["minProperties", "maxProperties"])
def test_properties_when_counted_then_each_is_a_state_of_each_number(keyword: str) -> None:
    check_schema({"type": "object", keyword: MAX_REPEAT}, "x")
    check_schema({**properties(90), keyword: 90}, "x")
    with pytest.raises(Refused, match="copies"):
        check_schema({**properties(100), keyword: 100}, "x")


def test_properties_when_their_number_is_below_zero_then_it_buys_nothing() -> None:
    bought = {**properties(100), "minProperties": -MAX_REPEAT}
    with pytest.raises(Refused, match="copies"):
        check_schema([bought, {**properties(100), "maxProperties": 100}], "x")


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"choice": ["a" * MAX_TEXT_CONSTRAINT]}},
        {"structured_outputs": {"choice": ["abcdefgh"] * 8192}},
        {"structured_outputs": {"grammar": "a" * (MAX_TEXT_CONSTRAINT + 1)}},
        {"structured_outputs": {"json": {"enum": ["a" * MAX_TEXT_CONSTRAINT]}}},
        {"response_format": {"const": "a" * MAX_TEXT_CONSTRAINT}},
        {"response_format": {"enum": [7] * MAX_TEXT_CONSTRAINT}},
        {"response_format": {"properties": {"a" * MAX_TEXT_CONSTRAINT: {}}}},
        {"tools": [{"type": "function", "function": {"name": "a" * MAX_TEXT_TOOLS}}]},
    ],
    ids=lambda fields: str(fields)[:50],
)
def test_constraint_when_its_text_is_long_then_refused_naming_the_field(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(Refused, match="holds too much text") as caught:
        check(**fields)
    assert caught.value.param is not None
    assert caught.value.param.startswith(next(iter(fields)))


def test_structured_when_a_schema_is_text_then_checked_as_one() -> None:
    check_structured({"json": '{"pattern": "a{9}"}', "choice": ["a", "b"], "grammar": "x"})
    with pytest.raises(Refused, match="multiply to 9999"):
        check_structured({"structural_tag": '{"format": {"pattern": "a{9999}"}}'})
