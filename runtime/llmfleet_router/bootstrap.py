"""Envoy's bootstrap: admin, listeners and filters, and where the xDS files lie. Pure rendering.

The listeners are static because nothing in them changes while Envoy runs (policy and limits come
from the pod's environment); clusters, endpoints and routes come from files. The preview port has
the same checks and filters as the public one, and a route table of its own.
"""

from __future__ import annotations

from typing import Any

from llmfleet_router.errors import build_local_reply_config
from llmfleet_router.logs import build_access_log, build_attempt_errors
from llmfleet_router.module import build_filter
from llmfleet_router.resources import TYPE
from llmfleet_router.routes import PREVIEW_TABLE, PUBLIC_TABLE, STREAM_IDLE_TIMEOUT
from llmfleet_router.settings import Settings

JSON = dict[str, Any]

PUBLIC, PREVIEW = "public", "preview"
"""The listeners, and the prefixes of their stats."""
CLUSTER_FILE = "cds.json"
ROUTE_FILES = {PUBLIC: ("rds.json", PUBLIC_TABLE), PREVIEW: ("rds-preview.json", PREVIEW_TABLE)}
"""Where each listener's route table lies, and its name: Envoy takes one table per file."""
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
                "path_config_source": {"path": str(settings.xds_dir / CLUSTER_FILE)},
            }
        },
        "static_resources": {
            "listeners": [
                _listener(PUBLIC, settings.http_port, settings, token),
                _listener(PREVIEW, settings.preview_port, settings, token),
            ]
        },
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


def _listener(name: str, port: int, settings: Settings, token: str | None) -> JSON:
    return {
        "name": name,
        "address": _address(settings.bind_address, port),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "http",
                        "typed_config": _connection_manager(name, settings, token),
                    }
                ]
            }
        ],
    }


def _connection_manager(name: str, settings: Settings, token: str | None) -> JSON:
    file, table = ROUTE_FILES[name]
    return {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "rds": {
            "route_config_name": table,
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(settings.xds_dir / file)},
            },
        },
        "http_filters": _http_filters(settings, token),
        "local_reply_config": build_local_reply_config(),
        "access_log": [*build_access_log(settings.access_log), build_attempt_errors()],
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
            },
        },
    ]


def _address(host: str, port: int) -> JSON:
    return {"socket_address": {"address": host, "port_value": port}}
