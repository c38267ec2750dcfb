"""Why a pod ends: a reason the operator knows, a sentence for people, an exit code."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """Reasons of the termination log (docs/contract.md, termination message)."""

    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_UNREADABLE = "ModelUnreadable"
    DOWNLOAD_FAILED = "DownloadFailed"
    UNAUTHORIZED = "Unauthorized"
    OUT_OF_MEMORY = "OutOfMemory"
    UNSUPPORTED_OPTION = "UnsupportedOption"
    ENGINE_ERROR = "EngineError"
    BAD_CONFIG = "BadConfig"


class ExitCode(IntEnum):
    """Exit codes of the contract."""

    OK = 0
    ENGINE = 1
    CONFIG = 2
    SOURCE = 3


class Failure(Exception):  # noqa: N818  # it is the pod's failure, raised once, at its end
    """The pod cannot serve.

    Attributes:
        reason: the operator's word for it.
        message: one sentence, with the fix where there is one.
        exit_code: the process's exit code; None = derived from the reason.
        retriable: whether the same configuration may work at the next start.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        exit_code: ExitCode | None = None,
        retriable: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.exit_code = exit_code or (
            ExitCode.CONFIG if reason is Reason.BAD_CONFIG else ExitCode.ENGINE
        )
        self.retriable = retriable
