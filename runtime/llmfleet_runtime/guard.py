"""The body guard: one strict parser, and rules on what it parsed.

The endpoint plugin parses a request's body here, checks it, and hands **the same parsed object**
to vLLM, so there is no second parser that could read the body differently (duplicate keys, unicode
escapes and UTF-16 bodies all beat a text scan). Fields are an allow-list: what a new engine
version adds stays closed until someone opens it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_SEQUENCES = 8
"""Limit of n x prompts of one generating request."""
MAX_EMBEDDING_INPUTS = 2048
MAX_STOPS = 16
MAX_LIST_ITEMS = 4096
MAX_TEXT_CONSTRAINT = 65_536
MAX_REGEX = 2_048
MAX_REPEAT = 1_000
"""Largest counted repetition in a regex or JSON schema: an automaton unrolls it."""
MAX_SCHEMA_DEPTH = 32
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
_STRUCTURED = frozenset({"json", "regex", "choice", "grammar", "json_object", "structural_tag"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})
_MEDIA_PARTS = frozenset({"image_url", "input_image", "input_audio", "audio_url", "video_url"})
_COUNTED_REPEAT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_COUNT_KEYWORDS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)


class Refused(Exception):  # noqa: N818  # an answer to the client, not a fault of ours
    """A request that is answered with a 4xx in OpenAI's error shape."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON of the answer."""
        return error_body(self.message, code=self.code, param=self.param)


def error_body(
    message: str, *, code: str, param: str | None = None, kind: str = "invalid_request_error"
) -> dict[str, dict[str, str | None]]:
    """OpenAI's error shape, the same everywhere in llmfleet."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _refuse(message: str, *, param: str | None = None, code: str = "invalid_value") -> NoReturn:
    raise Refused(message, param=param, code=code)


def parse_body(body: bytes) -> dict[str, Any]:
    """Parses a request body: UTF-8, one JSON object, no key twice, no NaN, no lone surrogates.

    Raises:
        Refused: status 400, code ``invalid_json``.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            "The body is not UTF-8: send JSON encoded in UTF-8.", code="invalid_json"
        ) from error
    try:
        parsed = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except Refused:
        raise
    except RecursionError as error:
        raise Refused("The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:
        raise Refused(f"The body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(parsed, dict):
        _refuse("The body must be a JSON object.", code="invalid_json")
    if _SURROGATE.search(text):
        try:
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refused(
                "The body holds half of a surrogate pair, which is no character.",
                code="invalid_json",
            ) from error
    return parsed


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        _refuse(f"The key {twice[:64]!r} occurs twice in one object.", code="invalid_json")
    return result


def _no_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON.", code="invalid_json")


def check_fields(operation: str, data: Mapping[str, Any]) -> None:
    """Checks names and nested content of a parsed body; ``limit`` checks amounts afterwards.

    Args:
        operation: ``chat``, ``completion``, ``embedding`` or ``responses``.
        data: what ``parse_body`` returned.

    Raises:
        Refused: status 400, naming the field.
    """
    for name in data:
        if name not in ALLOWED_FIELDS[operation]:
            _refuse(
                f"The field {name[:64]!r} is not accepted here: remove it.",
                param=name[:64],
                code="forbidden_field",
            )
    _check_chat_template_kwargs(data.get("chat_template_kwargs"))
    _check_structured(data.get("structured_outputs"))
    for field in ("response_format", "tools", "text"):
        check_schema(data.get(field), field)
    _check_lists(data)
    for field in ("messages", "input"):
        check_content(data.get(field), field)
    if operation == "responses":
        _check_tools(data.get("tools"))


def _check_chat_template_kwargs(value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        _refuse("chat_template_kwargs must be an object.", param="chat_template_kwargs")
    for name, switch in value.items():
        if name not in _CHAT_TEMPLATE_SWITCHES or not isinstance(switch, bool):
            _refuse(
                f"chat_template_kwargs.{name[:64]} is not accepted: only"
                f" {', '.join(sorted(_CHAT_TEMPLATE_SWITCHES))}, each true or false.",
                param="chat_template_kwargs",
                code="forbidden_field",
            )


def _check_structured(value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        _refuse("structured_outputs must be an object.", param="structured_outputs")
    for name in value:
        if name not in _STRUCTURED:
            _refuse(
                f"structured_outputs.{name[:64]} is not accepted: remove it.",
                param="structured_outputs",
                code="forbidden_field",
            )
    if (regex := value.get("regex")) is not None:
        check_regex(regex, "structured_outputs.regex")
    for name in ("json", "grammar", "structural_tag"):
        constraint = value.get(name)
        if isinstance(constraint, str):
            if len(constraint) > MAX_TEXT_CONSTRAINT:
                _refuse(
                    f"structured_outputs.{name} is longer than {MAX_TEXT_CONSTRAINT} characters.",
                    param="structured_outputs",
                )
            if name != "grammar":
                constraint = parse_body(constraint.encode("utf-8"))
        check_schema(constraint, f"structured_outputs.{name}")


def check_regex(regex: Any, field: str) -> None:
    """Refuses regexes whose automaton could grow without bound.

    Raises:
        Refused: not a string, too long, or a counted repetition above MAX_REPEAT (the product of
            all counts included, since nested counts multiply).
    """
    if not isinstance(regex, str) or len(regex) > MAX_REGEX:
        _refuse(f"{field} must be a string of at most {MAX_REGEX} characters.", param=field)
    product = 1
    for match in _COUNTED_REPEAT.finditer(regex):
        counts = [int(digits[:9]) for digits in match.groups() if digits]
        product *= max([1, *counts])
    if product > MAX_REPEAT:
        _refuse(
            f"{field}: its counted repetitions multiply to {product}, the limit is {MAX_REPEAT}.",
            param=field,
        )


def check_schema(value: Any, field: str, depth: int = 0) -> None:
    """Refuses JSON schemas too deep, with unbounded regexes, counts or references to elsewhere.

    Raises:
        Refused: naming the field.
    """
    if depth > MAX_SCHEMA_DEPTH:
        _refuse(f"{field} is nested deeper than {MAX_SCHEMA_DEPTH} levels.", param=field)
    if isinstance(value, list):
        for item in value:
            check_schema(item, field, depth + 1)
    if not isinstance(value, dict):
        return
    for name, item in value.items():
        if name in {"pattern", "regex"} and isinstance(item, str):
            check_regex(item, field)
        elif name == "patternProperties" and isinstance(item, dict):
            for pattern in item:
                check_regex(pattern, field)
        elif name in _COUNT_KEYWORDS and isinstance(item, (int, float)) and item > MAX_REPEAT:
            _refuse(f"{field}: {name} {item} is above the limit {MAX_REPEAT}.", param=field)
        elif name == "$ref" and not (isinstance(item, str) and item.startswith("#")):
            _refuse(f"{field}: $ref may only point into the schema itself (#/…).", param=field)
        check_schema(item, field, depth + 1)


def _check_lists(data: Mapping[str, Any]) -> None:
    stop = data.get("stop")
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        _refuse(f"stop holds {len(stop)} strings, the limit is {MAX_STOPS}.", param="stop")
    for name in ("logit_bias", "bad_words", "allowed_token_ids", "stop_token_ids", "documents"):
        value = data.get(name)
        if isinstance(value, (list, dict)) and len(value) > MAX_LIST_ITEMS:
            _refuse(f"{name} holds {len(value)} items, the limit is {MAX_LIST_ITEMS}.", param=name)


def check_content(value: Any, field: str) -> None:
    """Refuses content parts that make the engine fetch an address or unpickle data.

    Raises:
        Refused: a part of an unknown type, or media that is not a ``data:`` URL.
    """
    if not isinstance(value, list):
        return
    for message in value:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            kind = part.get("type")
            if kind in _TEXT_PARTS or (kind is None and set(part) <= {"text"}):
                continue
            if kind not in _MEDIA_PARTS:
                _refuse(
                    f"{field}: content parts of type {str(kind)[:64]!r} are not accepted.",
                    param=field,
                    code="forbidden_field",
                )
            if kind != "input_audio" and not _is_data_url(
                part.get(str(kind), part.get("image_url"))
            ):
                _refuse(
                    f"{field}: media must be sent inline as a data: URL; the engine fetches"
                    " nothing.",
                    param=field,
                    code="forbidden_field",
                )


def _is_data_url(value: Any) -> bool:
    url = value.get("url") if isinstance(value, dict) else value
    return isinstance(url, str) and url.startswith("data:")


def _check_tools(tools: Any) -> None:
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") != "function":
            _refuse(
                f"tools of type {str(tool.get('type'))[:64]!r} are not accepted: only function.",
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
            _refuse(f"{name} does not fit into 64 bits.", param=name)
    if abs(getattr(request, "length_penalty", 0.0)) > MAX_LENGTH_PENALTY:
        _refuse(
            f"length_penalty must lie between -{MAX_LENGTH_PENALTY} and {MAX_LENGTH_PENALTY}.",
            param="length_penalty",
        )
    if operation == "embedding":
        inputs = count_prompts(getattr(request, "input", None))
        if inputs > MAX_EMBEDDING_INPUTS:
            _refuse(
                f"input holds {inputs} texts, the limit is {MAX_EMBEDDING_INPUTS}.", param="input"
            )
        return
    prompts = count_prompts(request.prompt) if operation == "completion" else 1
    if prompts == 0:
        _refuse("prompt is missing.", param="prompt")
    sequences = prompts * (getattr(request, "n", None) or 1)
    if sequences > MAX_SEQUENCES:
        _refuse(
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
