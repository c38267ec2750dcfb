"""What Envoy writes and counts at the end of a request. Pure rendering."""

from __future__ import annotations

from typing import Any

from llmfleet_router.resources import TYPE
from llmfleet_router.settings import AccessLog

JSON = dict[str, Any]

OWN_CLUSTER = "%METADATA(CLUSTER:llmfleet:cluster)%"
"""The name of the revision's own cluster, also where its share of a split has one as well."""


def build_access_log(which: AccessLog) -> list[JSON]:
    """JSON lines on stdout: no bodies, no headers of the client, no query strings."""
    if which is AccessLog.OFF:
        return []
    log: JSON = {
        "name": "stdout",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "event": "request",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%PATH(NQ:PATH):200%",
                    "status": "%RESPONSE_CODE%",
                    "flags": "%RESPONSE_FLAGS%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "cluster": OWN_CLUSTER,
                    "engine": "%UPSTREAM_HOST%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "first_byte_ms": "%RESPONSE_DURATION%",
                    "duration_ms": "%DURATION%",
                }
            },
        },
    }
    if which is AccessLog.ERRORS:
        log["filter"] = {
            "or_filter": {
                "filters": [
                    {
                        "status_code_filter": {
                            "comparison": {
                                "op": "GE",
                                "value": {
                                    "default_value": 400,
                                    "runtime_key": "llmfleet.access_log.min_status",
                                },
                            }
                        }
                    },
                    {"response_flag_filter": {}},
                ]
            }
        }
    return [log]


def build_attempt_errors() -> JSON:
    """Counts failed attempts per revision, at the end of each request.

    Failed: a connection refused or lost, an answer reset or cut, a 5xx of the engine, a client
    that went away before any answer. Not failed: 4xx and the engine's own 503, which is a refusal
    (queue full, draining), and an attempt after which another one succeeded. Shadow requests are
    none of a client's, so they do not count. (A log of attempts would make Envoy copy the headers
    of each answer, 2 to 3 % of a small request.)
    """
    lost = {"response_flag_filter": {"flags": ["UF", "UC", "UR", "UT", "UPE", "LR"]}}
    engine_error = {"and_filter": {"filters": [_status("GE", 500), _status("NE", 503)]}}
    unanswered = _status("EQ", 0)
    return {
        "name": "attempt_errors",
        "filter": {"or_filter": {"filters": [lost, engine_error, unanswered]}},
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.stats.v3.Config",
            "stat_prefix": "llmfleet",
            "counters": [
                {
                    "stat": {
                        "name": "attempt_errors",
                        "tags": [{"name": "cluster", "value_format": OWN_CLUSTER}],
                    },
                    # 0 where no engine was asked: the client went away while it was sending.
                    "value_format": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                }
            ],
        },
    }


def _status(operator: str, code: int) -> JSON:
    value = {
        "default_value": code,
        "runtime_key": f"llmfleet.attempt_errors.{operator.lower()}_{code}",
    }
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}
