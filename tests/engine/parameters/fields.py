"""The parameters of the served API, and the values they are tried with.

Values are those of the engine that the tests start: 2,048 tokens of vocabulary, a context of 1,024.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 2048
CONTEXT = 1024
INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter of one operation."""

    served: tuple[Any, ...] = ()
    """What is answered 200: the bounds, and what clients send. In pairs too, if ``engine``."""
    refused: tuple[Any, ...] = ()
    """Just outside the bounds, or malformed inside: answered 4xx."""
    alone: tuple[Any, ...] = ()
    """Served as well, but too slow for pairs."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """Other fields without which it is refused; a body gets them where it has not set them."""
    engine: bool = False
    """It reaches sampler, grammar or scheduler, so it is tried in pairs."""


def sampling(*served: Any, refused: tuple[Any, ...] = (), **more: Any) -> Field:
    """A field that reaches the engine."""
    return Field(served=served, refused=refused, engine=True, **more)


def plain(*served: Any, refused: tuple[Any, ...] = ("x",), **more: Any) -> Field:
    """A field that ends in the API server."""
    return Field(served=served, refused=refused, **more)


WRONG: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**64, -(2**63) - 1, 0.5, 1e308, "", "x", "9" * 30, "x" * 100_000,
    [], [0], [None], {}, {"x": 1},
)  # fmt: skip
"""Given to every field, whatever its type: some fit, most do not, none may hurt."""
WRONG_IN_PAIRS: tuple[Any, ...] = (-1, 2**64, "x", [0], {"x": 1})

SCHEMA = {
    "type": "object",
    "properties": {"key": {"type": "string", "maxLength": 5}, "size": {"type": "integer"}},
    "required": ["key"],
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}
FUNCTION = {"name": "look_up", "description": "Looks a key up.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
FLAT_TOOLS = [{"type": "function", "strict": True, **FUNCTION}]
NAMED = {"type": "function", "function": {"name": "look_up"}}
TAG = {"type": "tag", "begin": "<a>", "content": {"type": "any_text"}, "end": "</a>"}
TEXT = "Where is the token? " * 8
QUESTION = [{"role": "user", "content": "Where is the token?"}]

_PENALTY = sampling(-2, 0.5, 2, refused=(-2.1, 2.1))
_SWITCH = plain(True, False, refused=("x", [0]))
_ENGINE_SWITCH = sampling(True, False, refused=("x", [0]))
_IGNORED = plain("x", None, 5, {"a": "b"}, refused=())
_FORMAT = sampling(
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
    {"type": "structural_tag", "format": TAG},
    refused=(
        {"type": "x"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}},
        {"type": "structural_tag", "format": {"type": "nothing"}},
        {"type": "structural_tag"},
    ),
)
_STRUCTURED = sampling(
    {"choice": ["yes", "no"]},
    {"choice": [f"choice {i}" for i in range(500)]},
    {"regex": "[ab]{1,3}"},
    {"regex": "(a|b)*c"},
    {"grammar": 'root ::= "a" root | "b"'},
    {"json": SCHEMA},
    {"json": json.dumps(TREE)},
    {"json_object": True},
    {"structural_tag": json.dumps({"type": "structural_tag", "format": TAG})},
    refused=(
        {},
        {"choice": []},
        {"choice": [5]},
        {"regex": "("},
        {"regex": "(?=a)b"},
        {"grammar": "root ::="},
        {"grammar": "start: nothing"},
        {"json": {"type": "nothing"}},
        {"json": "{"},
        {"json": SCHEMA, "regex": "a"},
        {"structural_tag": "{}"},
    ),
)

_COMMON: Mapping[str, Field] = {
    "model": plain("tiny", "alias", None, refused=("other", 5)),
    "user": plain("x", "x" * 100_000, refused=(5,)),
    **dict.fromkeys(("metadata", "prompt_cache_key", "safety_identifier"), plain()),
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "temperature": sampling(0, 1e-9, 0.7, 2, refused=(-0.1, 2.1, 1e308)),
    "top_p": sampling(1e-9, 0.5, 1, refused=(0, 1.1)),
    "top_k": sampling(-1, 1, 50, INT64, refused=(-2, 2**63, 2**64, str(2**64))),
    "min_p": sampling(0, 0.5, 1, refused=(-0.1, 1.1)),
    "logit_bias": sampling(
        {"5": 1},
        {"0": 100, str(VOCABULARY - 1): -100, "7": 1e308},
        {str(i): -100 for i in range(VOCABULARY)},
        refused=({str(VOCABULARY): 1}, {"-1": 1}, {"x": 1}, {"5": "x"}, {str(2**64): 1}),
    ),
    "skip_special_tokens": _ENGINE_SWITCH,
    "include_stop_str_in_output": _ENGINE_SWITCH,
    "stream": sampling(True, False, refused=("x", 5)),
}  # fmt: skip

_GENERATING: Mapping[str, Field] = {
    **_COMMON,
    **dict.fromkeys(("metadata", "store", "service_tier", "safety_identifier"), _IGNORED),
    "prompt_cache_key": _IGNORED,
    "repetition_penalty": sampling(1e-9, 1.1, 1e308, refused=(0, -1)),
    "max_tokens": sampling(1, 40, alone=(None,), refused=(-1, CONTEXT * 10, 2**64)),
    "n": sampling(1, 2, 8, refused=(0, -1, 9, 2**64)),
    "seed": sampling(-(2**63), 0, INT64, refused=(2**63, 2**64)),
    "stop": sampling(
        "e", ["a", "e", " ", "o" * 1000], alone=([],), refused=("", ["a"] * 17, [""], [5])
    ),
    "stream_options": sampling(
        {"include_usage": True},
        {"include_usage": True, "continuous_usage_stats": True},
        refused=({"include_usage": "x"},),
        needs={"stream": True},
    ),
    "stop_token_ids": sampling(
        [5], list(range(VOCABULARY)), alone=([],), refused=([VOCABULARY], [-1], ["x"], [2**64])
    ),
    "ignore_eos": _ENGINE_SWITCH,
    "min_tokens": sampling(1, 4, refused=(-1, CONTEXT, 2**64)),
    "spaces_between_special_tokens": _ENGINE_SWITCH,
    "truncate_prompt_tokens": sampling(-1, 1, 900, refused=(-2, CONTEXT + 1, 2**64)),
    "allowed_token_ids": sampling(
        [5], [0, VOCABULARY - 1], list(range(VOCABULARY)),
        refused=([], [VOCABULARY], [-1], ["x"], [2**64]),
    ),
    "bad_words": sampling(
        ["the"], ["e", "the token is", "ä" * 50], alone=([],), refused=([""], [5], ["x"] * 5000)
    ),
    "response_format": _FORMAT,
    "structured_outputs": _STRUCTURED,
    "use_beam_search": sampling(True, refused=("x",), alone=(False,)),
    "length_penalty": sampling(-16, 0, 1, 16, refused=(-16.1, 16.1, 1e308, "x")),
    "add_special_tokens": _SWITCH,
    "return_token_ids": _ENGINE_SWITCH,
    "return_tokens_as_token_ids": _ENGINE_SWITCH,
}  # fmt: skip

_CHAT: Mapping[str, Field] = {
    **_GENERATING,
    "messages": sampling(
        QUESTION,
        [{"role": "system", "content": TEXT}, *QUESTION],
        [{"role": "user", "content": TEXT * 15}],
        alone=(
            [*QUESTION, {"role": "assistant", "content": "Here."}, *QUESTION],
            [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
            [{"role": "assistant", "content": None}],
            [{"role": "tool", "content": "x", "tool_call_id": "1"}],
        ),
        refused=([], [{}], [5], "x", [{"role": 5, "content": "x"}],
                 [{"role": "user", "content": TEXT * 1000}]),
    ),
    "max_completion_tokens": sampling(1, 40, alone=(None,), refused=(-1, CONTEXT * 10, 2**64)),
    "logprobs": sampling(True, False, refused=("x", 5)),
    "top_logprobs": sampling(0, 1, 20, refused=(-2, 21, "x", 2**64), needs={"logprobs": True}),
    "echo": _ENGINE_SWITCH,
    "tools": sampling(
        TOOLS,
        [{"type": "function", "function": {**FUNCTION, "name": f"f{i}"}} for i in range(20)],
        alone=([{"type": "function", "function": {"name": "bare"}}],),
        refused=([], [{}], [5], [{"type": "function"}], "x"),
    ),
    "tool_choice": sampling(
        "none", "auto", "required", NAMED,
        refused=("x", {"type": "function", "function": {"name": "other"}}, {"type": "function"}),
        needs={"tools": TOOLS},
    ),
    "parallel_tool_calls": _ENGINE_SWITCH,
    "reasoning_effort": sampling("none", "low", "high", refused=("x", 5)),
    "include_reasoning": _ENGINE_SWITCH,
    "chat_template_kwargs": sampling(
        {"enable_thinking": True}, {"enable_thinking": False}, {}, refused=({"x": 1}, "x")
    ),
    "add_generation_prompt": _SWITCH,
    "continue_final_message": plain(
        False, True, refused=("x",), needs={"add_generation_prompt": False}
    ),
    "documents": plain([{"title": "a", "text": "b"}], [], refused=([5], "x")),
    "verbosity": _IGNORED,
}  # fmt: skip

_COMPLETION: Mapping[str, Field] = {
    **_GENERATING,
    "prompt": sampling(
        TEXT,
        [5],
        [0] + [VOCABULARY - 1] * 900,
        ["a", "b"],
        [[5, 6], [7]],
        refused=("", [], [[]], [VOCABULARY], [-1], [2**64], ["a"] * 9, {"a": 1}, None,
                 [5] * CONTEXT),
    ),
    "max_tokens": sampling(1, 40, alone=(None,), refused=(0, -1, CONTEXT * 10, 2**64)),
    "logprobs": sampling(0, 1, 20, refused=(-2, 21, "x", 2**64)),
    "echo": _ENGINE_SWITCH,
    "suffix": plain(None, refused=("x", 5)),
}  # fmt: skip

_RESPONSES: Mapping[str, Field] = {
    **_COMMON,
    "metadata": plain({"a": "b"}, None, refused=(5, "x")),
    "prompt_cache_key": plain("x", refused=(5,)),
    "safety_identifier": _IGNORED,
    "input": sampling(
        "Where is the token?",
        TEXT * 15,
        [{"role": "user", "content": "a"}],
        alone=([{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],),
        refused=([5], [{}], 5),
    ),
    "instructions": sampling("Be brief.", TEXT, refused=(5,)),
    "max_output_tokens": sampling(1, 40, alone=(None,), refused=(-1, 0)),
    "max_tool_calls": plain(1, 0, refused=("x",)),
    "parallel_tool_calls": _ENGINE_SWITCH,
    "reasoning": sampling(
        {"effort": "low"}, {"effort": "none", "summary": "auto"}, refused=("x", {"effort": 5})
    ),
    "include": sampling(["message.output_text.logprobs"], alone=([],), refused=(["x"], "x")),
    "include_reasoning": _ENGINE_SWITCH,
    "service_tier": plain("auto", "flex", refused=("x", 5)),
    "store": plain(True, False, refused=("x",)),
    "stream_options": _IGNORED,
    "text": sampling(
        {"format": {"type": "json_object"}},
        {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
        alone=({"format": {"type": "text"}}, {"verbosity": "low"}),
        refused=("x", {"format": {"type": "x"}}, {"format": {"type": "json_schema"}},
                 {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nothing"}}}),
    ),
    "tools": sampling(FLAT_TOOLS, alone=([],), refused=([{}], [5], [{"type": "web_search"}], "x")),
    "tool_choice": sampling(
        "none", "auto", "required", {"type": "function", "name": "look_up"},
        refused=("x", {"type": "function", "name": "other"}),
        needs={"tools": FLAT_TOOLS},
    ),
    "top_logprobs": sampling(
        0, 1, 20, refused=("x", 2**64), needs={"include": ["message.output_text.logprobs"]}
    ),
    "truncation": sampling("auto", "disabled", refused=("x",)),
}  # fmt: skip

_EMBEDDING: Mapping[str, Field] = {
    "model": _COMMON["model"],
    "user": _COMMON["user"],
    "input": sampling(
        TEXT, [5], [VOCABULARY - 1] * 1000, ["a"] * 50, [[5, 6], [7]],
        refused=([], [VOCABULARY], [-1], [2**64], {"a": 1}, ["a"] * 3000, [5] * (CONTEXT + 1)),
    ),
    "encoding_format": sampling("float", "base64", refused=("x", 5)),
    "dimensions": sampling(None, refused=(0, -1, 5, 2**64)),
    "truncate_prompt_tokens": sampling(-1, 1, CONTEXT, refused=(-2, CONTEXT + 1, 2**64)),
}  # fmt: skip

FIELDS: Mapping[str, Mapping[str, Field]] = {
    "chat": _CHAT,
    "completion": _COMPLETION,
    "responses": _RESPONSES,
    "embedding": _EMBEDDING,
}
"""Operation → name → field; as many names as ``guard.ALLOWED_FIELDS``, a unit test holds them."""

PATHS = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "responses": "/v1/responses",
    "embedding": "/v1/embeddings",
}
BODIES: Mapping[str, Mapping[str, Any]] = {
    "chat": {"model": "tiny", "messages": QUESTION, "max_tokens": 4},
    "completion": {"model": "tiny", "prompt": "Where is the token?", "max_tokens": 4},
    "responses": {"model": "tiny", "input": "Where is the token?", "max_output_tokens": 4},
    "embedding": {"model": "tiny", "input": "Where is the token?"},
}
"""What a request is made of, apart from the fields that are tried."""
