"""Envoy's bootstrap: admin, listener and filters, and where the xDS files lie. Pure rendering.

The listener is static because nothing in it changes while Envoy runs (policy and limits come from
the pod's environment); clusters, endpoints and routes come from files.
"""

from __future__ import annotations

from typing import Any

from llmfleet_router.errors import build_local_reply_config
from llmfleet_router.module import build_filter
from llmfleet_router.resources import ROUTE_CONFIG_NAME, STREAM_IDLE_TIMEOUT, TYPE
from llmfleet_router.settings import AccessLog, Settings

JSON = dict[str, Any]

STAT_PREFIX = "public"
MAX_HEADERS_KIB = 32
MAX_HEADERS = 100
MAX_CONNECTIONS = 50_000
REQUEST_HEADERS_TIMEOUT = "10s"
REQUEST_TIMEOUT = "120s"
DOWNSTREAM_IDLE_TIMEOUT = "600s"


def build_bootstrap(settings: Settings, token: str | None) -> JSON:
    """The whole bootstrap as JSON; the engine's ``token`` is in it."""
    return {
        "node": {"id": settings.pod_name, "cluster": f"{settings.namespace}/{settings.name}"},
        "admin": {"address": _address("127.0.0.1", settings.admin_port)},
        "dynamic_resources": {
            "cds_config": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(settings.xds_dir / "cds.json")},
            }
        },
        "static_resources": {"listeners": [_listener(settings, token)]},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPE + "envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": MAX_CONNECTIONS,
                    },
                }
            ]
        },
        "application_log_config": {
            "log_format": {
                "json_format": {
                    "time": "%Y-%m-%dT%T.%eZ",
                    "level": "%l",
                    "logger": "envoy.%n",
                    "event": "%j",
                }
            }
        },
    }


def _listener(settings: Settings, token: str | None) -> JSON:
    return {
        "name": "public",
        "address": _address(settings.bind_address, settings.http_port),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "http",
                        "typed_config": _connection_manager(settings, token),
                    }
                ]
            }
        ],
    }


def _connection_manager(settings: Settings, token: str | None) -> JSON:
    return {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "rds": {
            "route_config_name": ROUTE_CONFIG_NAME,
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(settings.xds_dir / "rds.json")},
            },
        },
        "http_filters": _http_filters(settings, token),
        "local_reply_config": build_local_reply_config(),
        "access_log": _access_log(settings.access_log),
        # Edge without internal clients: their request ids and x-envoy-* are not believed.
        "use_remote_address": True,
        "skip_xff_append": True,
        # No client is internal. An empty list would mean RFC 1918, so: an address of TEST-NET-1.
        "internal_address_config": {
            "cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]
        },
        "request_id_extension": {
            "typed_config": {
                "@type": TYPE + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
                "use_request_id_for_trace_sampling": False,
            }
        },
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "request_headers_timeout": REQUEST_HEADERS_TIMEOUT,
        "request_timeout": REQUEST_TIMEOUT,
        "stream_idle_timeout": STREAM_IDLE_TIMEOUT,
        "common_http_protocol_options": {
            "idle_timeout": DOWNSTREAM_IDLE_TIMEOUT,
            "max_headers_count": MAX_HEADERS,
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 1000,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 4 << 20,
        },
    }


def _http_filters(settings: Settings, token: str | None) -> list[JSON]:
    return [
        build_filter(settings, token),
        {
            "name": "router",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": True,
                # Answers by status and their times, per cluster: 2 µs a request, and the same is
                # counted per listener. Attempts and their errors are counted all the same.
                "dynamic_stats": False,
                "upstream_log": [_attempt_errors()],
            },
        },
    ]


def _access_log(which: AccessLog) -> list[JSON]:
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
                    "cluster": "%UPSTREAM_CLUSTER%",
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


def _attempt_errors() -> JSON:
    """Counts failed attempts per revision, at the end of each attempt.

    Failed: a connection refused or lost, an answer reset or cut, a 5xx of the engine, a client
    that went away before any answer. Not failed: 4xx and the engine's own 503, which is a refusal
    (queue full, draining).
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
                        "tags": [{"name": "cluster", "value_format": "%UPSTREAM_CLUSTER%"}],
                    },
                    "value_fixed": 1,
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


def _address(host: str, port: int) -> JSON:
    return {"socket_address": {"address": host, "port_value": port}}
