"""Finds the real cause of a dead engine in the last lines it wrote, and says it in one sentence.

vLLM ends its output with generic errors ("Engine core initialization failed. See root cause
above."); the cause stands above them, in another process's traceback.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from llmfleet_runtime.errors import Failure, Reason

LIMIT_BYTES = 3000
"""Size of the termination log's JSON; the kubelet keeps 4,096 bytes."""

_PREFIX = re.compile(
    r"^(?:\((?:[^()]|\([^()]*\))*\) ?)*"  # (EngineCore pid=12) (Worker pid=13)
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\s+)?"
    r"(?:\[[^\]]*:\d+\]\s?)?"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w]*\.)*(?P<type>[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Invalid\w*|NotFound\w*))"
    r"(?:: (?P<text>.*))?$"
)
_USAGE = re.compile(r"^\S+\.py: error: (?P<text>.*)$")
_GENERIC = re.compile(
    r"Engine core initialization failed|See root cause above|EngineCore encountered an issue"
    r"|EngineDeadError|check the stack trace above|WorkerProc initialization failed"
    r"|Failed core proc|KeyboardInterrupt|SystemExit|CancelledError|ProcessLookupError"
    r"|resource_tracker|BrokenPipeError|Executor failed"
)
_DIED = re.compile(r"[\w ]*(?:died|exited) unexpectedly")
_CLASSES: tuple[tuple[Reason, re.Pattern[str]], ...] = (
    (
        Reason.OUT_OF_MEMORY,
        re.compile(
            r"OutOfMemoryError|out of memory|MemoryError|[Cc]annot allocate memory|can't allocate"
            r"|No available memory for the cache|is less than desired|is less than requested"
            r"|larger than the available KV cache|KV cache is needed"
            r"|larger than the maximum number of tokens that can be stored",
        ),
    ),
    (
        Reason.MODEL_UNREADABLE,
        re.compile(
            r"PermissionError|Permission denied|SafetensorError|deserializing header"
            r"|InvalidHeader|HeaderTooSmall|JSONDecodeError|not a valid JSON file"
        ),
    ),
    (
        Reason.MODEL_NOT_FOUND,
        re.compile(
            r"FileNotFoundError|No such file|not a valid model identifier|RepositoryNotFound"
            r"|does not appear to have a file|Cannot find any model weights|LocalEntryNotFound"
            r"|not the path to a directory|No adapter found"
        ),
    ),
    (
        Reason.UNSUPPORTED_OPTION,
        re.compile(
            r"not supported|unsupported|Unsupported|NotImplementedError|unrecognized arguments"
            r"|invalid choice|invalid .* value|expected .* argument|divisible"
            r"|Unknown .*quantization|does not match the quantization"
            r"|greater than the derived max_model_len"
            r"|Cannot find the config file for|invalid tool call parser|invalid reasoning parser"
            r"|ValidationError|incompatible|must be (?:greater|less|one of|a multiple)"
        ),
    ),
)


def strip_prefix(line: str) -> str:
    """A log line without colours, process name, level, time and place."""
    return _PREFIX.sub("", _ANSI.sub("", line.rstrip()), count=1)


def find_cause(lines: Sequence[str]) -> str | None:
    """The last error that is a cause rather than a consequence; None if there is none.

    Continuation lines of a multi-line message (pydantic's) are joined to it.
    """
    stripped = [strip_prefix(line) for line in lines]
    died = next((found for line in reversed(stripped) if (found := _DIED.search(line))), None)
    fallback = died.group().strip() if died else None
    for index in range(len(stripped) - 1, -1, -1):
        line = stripped[index]
        if usage := _USAGE.match(line):
            return usage["text"].strip()
        if not _EXCEPTION.match(line):
            continue
        text = _with_continuation(stripped, index)
        if _GENERIC.search(line):
            fallback = fallback or text
            continue
        return text
    return fallback


def _with_continuation(lines: Sequence[str], index: int) -> str:
    parts = [lines[index].strip()]
    for line in lines[index + 1 : index + 6]:
        if not line.startswith("  ") or line.lstrip().startswith(("File ", "For further")):
            break
        parts.append(line.strip())
    return " ".join(parts)


def classify(cause: str) -> Reason:
    """The contract's reason for an engine's error message."""
    for reason, pattern in _CLASSES:
        if pattern.search(cause):
            return reason
    return Reason.ENGINE_ERROR


def describe_termination(
    lines: Sequence[str], return_code: int, *, oom_killed: bool, was_ready: bool
) -> Failure:
    """The failure of an engine that ended by itself, code 0 included.

    Args:
        lines: the last lines it wrote, stdout and stderr together.
        return_code: its exit code, negative for a signal.
        oom_killed: whether the kernel killed a process of the container for memory meanwhile.
        was_ready: whether it had served; such an end may not come again, so it is retriable.
    """
    cause = find_cause(lines)
    if return_code < 0:
        ending = f"the engine was killed by {signal.Signals(-return_code).name}"
    else:
        ending = f"the engine ended with code {return_code}"
    if oom_killed:
        return Failure(
            Reason.OUT_OF_MEMORY,
            "the kernel killed the engine for exceeding the container's memory limit: raise"
            " podTemplate.resources.limits.memory, or lower engine.kvCache.gpuMemoryUtilization"
            + (f" ({cause})" if cause else ""),
        )
    if cause is None:
        last = next((strip_prefix(line) for line in reversed(lines) if line.strip()), "no output")
        return Failure(Reason.ENGINE_ERROR, f"{ending}; its last line: {last}", retriable=was_ready)
    reason = classify(cause)
    if was_ready and reason is not Reason.OUT_OF_MEMORY:
        reason = Reason.ENGINE_ERROR
    return Failure(reason, f"{ending}: {cause}", retriable=was_ready)


def termination_json(failure: Failure) -> str:
    """The termination log's JSON, at most LIMIT_BYTES long in UTF-8."""
    message = failure.message
    while True:
        text = json.dumps(
            {
                "reason": failure.reason.value,
                "message": message,
                "retriable": failure.retriable,
            },
            ensure_ascii=False,
        )
        excess = len(text.encode("utf-8", errors="replace")) - LIMIT_BYTES
        if excess <= 0:
            return text
        message = message[: max(0, len(message) - max(16, excess // 4 + 2))] + "…"


def write(failure: Failure, path: Path) -> None:
    """Writes the termination message where the kubelet reads it.

    Outside a pod the path may not be writable; the log line says the same.
    """
    with contextlib.suppress(OSError):
        path.write_text(termination_json(failure), encoding="utf-8", errors="replace")
