# ruff: noqa: E501  # lines of an engine's log are as long as they are
"""The real cause, found in what an engine wrote before it died."""

from __future__ import annotations

import json

import pytest

from llmfleet_runtime.errors import Failure, Reason
from llmfleet_runtime.termination import (
    LIMIT_BYTES,
    describe_termination,
    find_cause,
    termination_json,
)

CORE = "(EngineCore pid=77) ERROR 11-21 02:54:06 [core.py:1174] "
API = "(APIServer pid=76) "
GENERIC = (
    API
    + "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)


def traceback(*causes: str) -> list[str]:
    lines = ["INFO 11-21 02:54:01 [core.py:133] Initializing a V1 LLM engine"]
    for cause in causes:
        lines += [
            CORE + "Traceback (most recent call last):",
            CORE + '  File "x.py", line 1, in f',
            CORE + cause,
        ]
    return [*lines, API + "Traceback (most recent call last):", GENERIC]


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            Reason.OUT_OF_MEMORY,
        ),
        ("ValueError: No available memory for the cache blocks.", Reason.OUT_OF_MEMORY),
        (
            "ValueError: To serve at least one request with the models's max seq len (8192), 1.0 GiB KV cache is needed",
            Reason.OUT_OF_MEMORY,
        ),
        (
            "ValueError: Available memory on node 0 (1.0/24.0 GiB) on kv cache allocation is less than requested memory for kv (8.0 GiB).",
            Reason.OUT_OF_MEMORY,
        ),
        (
            "OSError: Can't load the model: x does not appear to have a file named config.json",
            Reason.MODEL_NOT_FOUND,
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/models/c/m/model.safetensors'",
            Reason.MODEL_NOT_FOUND,
        ),
        ("RuntimeError: Cannot find any model weights with `/models/c/m`", Reason.MODEL_NOT_FOUND),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooSmall",
            Reason.MODEL_UNREADABLE,
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/models/c/m/config.json'",
            Reason.MODEL_UNREADABLE,
        ),
        ("NotImplementedError: fp8 is not implemented", Reason.UNSUPPORTED_OPTION),
        (
            "ValueError: Model architectures ['X'] are not supported for now.",
            Reason.UNSUPPORTED_OPTION,
        ),
        ("RuntimeError: something odd", Reason.ENGINE_ERROR),
    ],
    ids=lambda value: str(value)[:40],
)
def test_end_when_engine_core_failed_then_its_own_cause_and_reason(
    cause: str, reason: Reason
) -> None:
    failure = describe_termination(traceback(cause), 1, oom_killed=False, was_ready=False)
    assert failure.reason is reason
    assert failure.message == f"the engine ended with code 1: {cause}"
    assert not failure.retriable


def test_cause_when_chained_then_the_last_one() -> None:
    lines = traceback("KeyError: 'a'", "ValueError: the real one")
    assert find_cause(lines) == "ValueError: the real one"


def test_cause_when_pydantic_then_continuation_joined() -> None:
    lines = [
        API + "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        API
        + "  Value error, User-specified max_model_len (9) is greater than the derived max_model_len (4)",
        API + "    For further information visit the documentation",
    ]
    failure = describe_termination(lines, 1, oom_killed=False, was_ready=False)
    assert "max_model_len (9) is greater" in failure.message
    assert "further information" not in failure.message
    assert failure.reason is Reason.UNSUPPORTED_OPTION


def test_cause_when_argument_refused_then_usage_line() -> None:
    lines = [
        "usage: api_server.py [-h]",
        "api_server.py: error: argument --dtype: invalid choice: 'x'",
    ]
    failure = describe_termination(lines, 2, oom_killed=False, was_ready=False)
    assert failure.reason is Reason.UNSUPPORTED_OPTION
    assert failure.message == "the engine ended with code 2: argument --dtype: invalid choice: 'x'"


def test_end_when_killed_by_kernel_for_memory_then_out_of_memory_with_fix() -> None:
    failure = describe_termination([], -9, oom_killed=True, was_ready=True)
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert "raise podTemplate.resources.limits.memory" in failure.message


def test_end_when_core_died_while_serving_then_engine_error_and_retriable() -> None:
    lines = [
        "(APIServer pid=1) WARNING 11-21 02:54:06 [core_client.py:817] [shutdown] MPClient: engine core exited unexpectedly; starting cleanup",
        "(APIServer pid=1) ERROR 11-21 02:54:06 [x.py:1] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
    ]
    failure = describe_termination(lines, 0, oom_killed=False, was_ready=True)
    assert failure.reason is Reason.ENGINE_ERROR
    assert failure.message == "the engine ended with code 0: engine core exited unexpectedly"
    assert failure.retriable


def test_end_when_nothing_written_then_signal_named() -> None:
    failure = describe_termination([], -11, oom_killed=False, was_ready=False)
    assert failure.message == "the engine was killed by SIGSEGV; its last line: no output"


@pytest.mark.parametrize(
    "text",
    ["x" * 20_000, "ö" * 9000, '"\\' * 4000, "\ud800" * 5000],
    ids=["ascii", "utf8", "escapes", "surrogates"],
)
def test_json_when_message_is_long_then_cut_to_the_limit_and_still_json(text: str) -> None:
    written = termination_json(Failure(Reason.ENGINE_ERROR, text))
    assert len(written.encode("utf-8", errors="replace")) <= LIMIT_BYTES
    assert json.loads(written)["reason"] == "EngineError"
    assert json.loads(written)["message"].endswith("…")
