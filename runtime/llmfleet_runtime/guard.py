"""The body guard: rules on a parsed body (``body``), before and after vLLM's own validation.

Fields are an allow-list: what a new engine version adds stays closed until someone opens it here.
Every check takes time in proportion to the body: it runs in the engine's own process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmfleet_runtime.constraints import MAX_TEXT_TOOLS, check_schema, check_structured
from llmfleet_runtime.content import check_content
from llmfleet_runtime.media import MediaPolicy
from llmfleet_runtime.refused import refuse, shown

MAX_SEQUENCES = 8
"""Limit of n x prompts of one generating request."""
MAX_EMBEDDING_INPUTS = 2048
MAX_STOPS = 16
MAX_WORD = 1_024
"""Characters of one of ``stop`` and ``bad_words``: the engine makes tokens of the latter at once,
between two tokens of everybody else's answers."""
MAX_LIST_ITEMS = 4096
MAX_LENGTH_PENALTY = 16
"""Beam search divides by length**penalty, which must neither overflow nor become 0."""
MAX_INTEGER = 2**63 - 1
"""The engine's processes send each other numbers of 64 bits; a longer one breaks the answer off."""

_SAMPLING = frozenset(
    {
        "model", "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias",
        "logprobs", "max_tokens", "n", "seed", "stop", "stream", "stream_options", "temperature",
        "top_p", "top_k", "min_p", "user", "stop_token_ids", "include_stop_str_in_output",
        "ignore_eos", "min_tokens", "skip_special_tokens", "spaces_between_special_tokens",
        "truncate_prompt_tokens", "allowed_token_ids", "bad_words", "response_format",
        "structured_outputs", "use_beam_search", "length_penalty", "add_special_tokens", "echo",
        "return_token_ids", "return_tokens_as_token_ids", "metadata", "store", "service_tier",
        "safety_identifier", "prompt_cache_key",
    }
)  # fmt: skip
ALLOWED_FIELDS: Mapping[str, frozenset[str]] = {
    "chat": _SAMPLING
    | {
        "messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice",
        "parallel_tool_calls", "reasoning_effort", "include_reasoning", "chat_template_kwargs",
        "add_generation_prompt", "continue_final_message", "documents", "verbosity",
    },
    "completion": _SAMPLING | {"prompt", "suffix"},
    "embedding": frozenset(
        {"model", "input", "encoding_format", "dimensions", "user", "truncate_prompt_tokens"}
    ),
    "responses": frozenset(
        {
            "model", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata",
            "parallel_tool_calls", "reasoning", "include", "include_reasoning", "service_tier",
            "store", "stream", "temperature", "text", "tool_choice", "tools", "top_logprobs",
            "top_p", "top_k", "min_p", "truncation", "user", "skip_special_tokens", "logit_bias",
            "include_stop_str_in_output", "presence_penalty", "frequency_penalty",
            "prompt_cache_key", "safety_identifier", "stream_options",
        }
    ),
}  # fmt: skip
"""Top-level fields that clients may send, per operation."""

_CHAT_TEMPLATE_SWITCHES = frozenset({"enable_thinking", "thinking", "preserve_thinking"})
_CONTENT = ("messages", "input", "prompt")
"""Fields that hold what the model reads: their length has limits of its own."""


def check_fields(operation: str, data: Mapping[str, Any], media: MediaPolicy) -> None:
    """Checks names and nested content of a parsed body; ``limit`` checks amounts afterwards.

    Args:
        operation: ``chat``, ``completion``, ``embedding`` or ``responses``.
        data: what ``parse_body`` returned.
        media: from where the engine may fetch media.

    Raises:
        Refused: status 400, naming the field.
    """
    for name in data:
        if name not in ALLOWED_FIELDS[operation]:
            refuse(
                f"The field {name[:64]!r} is not accepted here: remove it.",
                param=name[:64],
                code="forbidden_field",
            )
    _check_chat_template_kwargs(data.get("chat_template_kwargs"))
    check_structured(data.get("structured_outputs"))
    for field in ("response_format", "text"):
        check_schema(data.get(field), field)
    check_schema(data.get("tools"), "tools", MAX_TEXT_TOOLS)
    _check_lists(data)
    for field in ("messages", "input"):
        if not is_plain_prompt(data.get(field)):
            check_content(data.get(field), field, media)
    if operation == "responses":
        _check_tools(data.get("tools"))


def _check_chat_template_kwargs(value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        refuse("chat_template_kwargs must be an object.", param="chat_template_kwargs")
    for name, switch in value.items():
        if name not in _CHAT_TEMPLATE_SWITCHES or not isinstance(switch, bool):
            refuse(
                f"chat_template_kwargs.{name[:64]} is not accepted: only"
                f" {', '.join(sorted(_CHAT_TEMPLATE_SWITCHES))}, each true or false.",
                param="chat_template_kwargs",
                code="forbidden_field",
            )


def _check_lists(data: Mapping[str, Any]) -> None:
    stop = data.get("stop")
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        refuse(f"stop holds {len(stop)} strings, the limit is {MAX_STOPS}.", param="stop")
    for name in ("stop", "bad_words"):
        words = data.get(name)
        for word in words if isinstance(words, list) else [words]:
            if isinstance(word, str) and len(word) > MAX_WORD:
                refuse(f"{name} holds more than {MAX_WORD} characters in one string.", param=name)
    for name, value in data.items():
        if name in _CONTENT or not isinstance(value, (list, dict)):
            continue
        if len(value) > MAX_LIST_ITEMS:
            refuse(f"{name} holds {len(value)} items, the limit is {MAX_LIST_ITEMS}.", param=name)


def _check_tools(tools: Any) -> None:
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else "function"
        if kind != "function":
            refuse(
                f"tools of type {shown(kind)} are not accepted: only function.",
                param="tools",
                code="forbidden_field",
            )


def limit(operation: str, request: Any, max_tokens: int | None) -> None:
    """Checks amounts on the engine's own validated request, and lowers its length to the cap.

    Works on the validated object because validation converts types ("9" becomes 9).

    Args:
        operation: as in ``check_fields``.
        request: the engine's request model; changed in place.
        max_tokens: the router's cap on tokens generated; None = no cap.

    Raises:
        Refused: more sequences or inputs than allowed, or a number that the engine cannot hold.
    """
    for name, value in vars(request).items():
        if isinstance(value, int) and abs(value) > MAX_INTEGER + (value < 0):
            refuse(f"{name} does not fit into 64 bits.", param=name)
    if abs(getattr(request, "length_penalty", 0.0)) > MAX_LENGTH_PENALTY:
        refuse(
            f"length_penalty must lie between -{MAX_LENGTH_PENALTY} and {MAX_LENGTH_PENALTY}.",
            param="length_penalty",
        )
    if operation == "embedding":
        inputs = count_prompts(getattr(request, "input", None))
        if inputs > MAX_EMBEDDING_INPUTS:
            refuse(
                f"input holds {inputs} texts, the limit is {MAX_EMBEDDING_INPUTS}.", param="input"
            )
        return
    prompts = count_prompts(request.prompt) if operation == "completion" else 1
    if prompts == 0:
        refuse("prompt is missing.", param="prompt")
    sequences = prompts * (getattr(request, "n", None) or 1)
    if sequences > MAX_SEQUENCES:
        refuse(
            f"n x prompts is {sequences}, the limit is {MAX_SEQUENCES}: send several requests.",
            param="n",
        )
    if max_tokens is None:
        return
    match operation:
        case "chat":
            wanted = request.max_completion_tokens or request.max_tokens
            request.max_completion_tokens = min(wanted or max_tokens, max_tokens)
        case "completion":
            request.max_tokens = min(request.max_tokens or max_tokens, max_tokens)
        case _:
            request.max_output_tokens = min(request.max_output_tokens or max_tokens, max_tokens)
    if (getattr(request, "min_tokens", 0) or 0) > max_tokens:
        request.min_tokens = max_tokens


def is_plain_prompt(value: Any) -> bool:
    """Whether it is text or token ids, one or several, and nothing else.

    >>> [is_plain_prompt(p) for p in ("a", ["a", "b"], [1, 2], [[1], [2]], None)]
    [True, True, True, True, True]
    >>> [is_plain_prompt(p) for p in ([{"role": "user"}], [[{}]], [1, {}], [True])]
    [False, False, False, False]
    """
    if not isinstance(value, list):
        return not isinstance(value, dict)
    kinds = set(map(type, value))
    if kinds == {list}:
        kinds = set().union(*(map(type, inner) for inner in value))
        return kinds <= {int}
    return kinds <= {int} or kinds == {str}


def count_prompts(prompt: Any) -> int:
    """How many prompts a ``prompt`` or ``input`` holds; token ids are one prompt.

    >>> [count_prompts(p) for p in ("a", ["a", "b"], [1, 2], [[1], [2]], None, [])]
    [1, 2, 1, 2, 0, 0]
    """
    if prompt is None or prompt == []:
        return 0
    if isinstance(prompt, list) and not isinstance(prompt[0], int):
        return len(prompt)
    return 1
