"""A request that is answered with a 4xx, and OpenAI's error shape."""

from __future__ import annotations

from typing import Any, NoReturn

LONGEST_MESSAGE = 2_000
"""In characters. Validation names keys and values of the body, which may be as long as it is."""
LONGEST_PARAM = 200


class Refused(Exception):  # noqa: N818  # an answer to the client, not a fault of ours
    """A request that is answered with a 4xx in OpenAI's error shape."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message = message[:LONGEST_MESSAGE]
        self.param = param and param[:LONGEST_PARAM]
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


def refuse(message: str, *, param: str | None = None, code: str = "invalid_value") -> NoReturn:
    """Answers 400.

    Raises:
        Refused: always.
    """
    raise Refused(message, param=param, code=code)


def shown(value: Any) -> str:
    """What stands where the name of a type belongs, short enough for a message.

    >>> shown("video"), shown([["deep"]]), shown(None)
    ("'video'", 'list', 'NoneType')
    """
    return repr(value[:64]) if isinstance(value, str) else type(value).__name__
