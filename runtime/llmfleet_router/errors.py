"""Error bodies in OpenAI's shape for every answer Envoy makes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalError:
    """How one status code is told to the client."""

    status: int
    code: str
    message: str

    @property
    def type(self) -> str:
        """OpenAI's error type: the client's mistake or ours."""
        return "invalid_request_error" if self.status < 500 else "server_error"


LOCAL_ERRORS = (
    LocalError(status=400, code="bad_request", message="The request is not valid HTTP."),
    LocalError(
        status=403, code="upgrade_refused", message="Upgrading the connection is not offered here."
    ),
    LocalError(
        status=404,
        code="path_not_found",
        message="There is no such path. Paths are exact: /v1/chat/completions, /v1/completions,"
        " /v1/embeddings, /v1/responses, /v1/models.",
    ),
    LocalError(
        status=405,
        code="method_not_allowed",
        message="This path does not take this method; see the Allow header.",
    ),
    LocalError(
        status=408,
        code="request_timeout",
        message="The request was not received in time. Send it without pauses.",
    ),
    LocalError(
        status=413,
        code="request_too_large",
        message="The request body is larger than this deployment accepts (spec.router.bodyLimit).",
    ),
    LocalError(
        status=415,
        code="unsupported_media_type",
        message="Send the body as content-type application/json in UTF-8, without"
        " content-encoding.",
    ),
    LocalError(
        status=426, code="upgrade_required", message="HTTP/1.1 is the oldest version spoken here."
    ),
    LocalError(
        status=431,
        code="headers_too_large",
        message="The request headers are too large or too many.",
    ),
    LocalError(status=500, code="router_error", message="The router failed on this request."),
    LocalError(status=501, code="not_implemented", message="The router cannot serve this request."),
    LocalError(
        status=502,
        code="bad_engine_answer",
        message="The engine's answer was not valid HTTP. Try again.",
    ),
    LocalError(
        status=503,
        code="no_engine_available",
        message="No engine can take this request now. Try again after the time in Retry-After.",
    ),
    LocalError(status=504, code="engine_timeout", message="The engine did not answer in time."),
)


def build_local_reply_config() -> JSON:
    """HCM ``local_reply_config``: one mapper per status code of ``LOCAL_ERRORS``.

    The ``Retry-After`` header comes with 503 only.
    """
    return {"mappers": [_mapper(error) for error in LOCAL_ERRORS]}


def _mapper(error: LocalError) -> JSON:
    mapper: JSON = {
        "filter": {
            "status_code_filter": {
                "comparison": {
                    "op": "EQ",
                    "value": {
                        "default_value": error.status,
                        "runtime_key": f"llmfleet.local_reply.{error.status}",
                    },
                }
            }
        },
        "body_format_override": {
            "json_format": {
                "error": {
                    "message": error.message,
                    "type": error.type,
                    "param": None,
                    "code": error.code,
                }
            },
            "content_type": "application/json",
        },
    }
    if error.status == 503:
        mapper["headers_to_add"] = [
            {
                "header": {"key": "retry-after", "value": str(RETRY_AFTER_SECONDS)},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
    return mapper
