"""The xDS resources that change while Envoy runs: clusters, endpoints, routes. Pure rendering."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from llmfleet_router.model import Endpoints, Routes
from llmfleet_router.module import KEY_HEADER, SESSION_HEADER, build_switch
from llmfleet_router.settings import Policy, Settings

JSON = dict[str, Any]

TYPE = "type.googleapis.com/"
CLUSTER_TYPE = TYPE + "envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE = TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTE_TYPE = TYPE + "envoy.config.route.v3.RouteConfiguration"

ROUTE_CONFIG_NAME = "llmfleet"
POST_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MODELS_PATH = "/v1/models"
HEALTH_PATH = "/health"

CONNECT_TIMEOUT = "1s"
# Shorter than uvicorn's keep-alive of 5 s: a connection the engine closes while a request is on
# its way would be a failure that must not be retried.
UPSTREAM_IDLE_TIMEOUT = "3s"
# A non-streamed answer is silent until its end, so silence alone means little.
STREAM_IDLE_TIMEOUT = "900s"
UNLIMITED = 1 << 24
HASH_BALANCE_FACTOR = 125


def cluster_name(revision: str) -> str:
    """Envoy's name for a revision's cluster; the revision label of Envoy's own metrics."""
    return f"rev-{revision}"


def endpoints_file(xds_dir: Path, revision: str) -> Path:
    """One file per cluster: Envoy's file-based EDS takes exactly one resource per file."""
    return xds_dir / f"eds-{revision}.json"


def discovery(type_url: str, version: str, resources: Sequence[JSON]) -> JSON:
    """An xDS DiscoveryResponse; ``version`` is what Envoy's stats show once it is applied."""
    return {
        "version_info": version,
        "resources": [{"@type": type_url, **resource} for resource in resources],
    }


def build_endpoints(revision: str, endpoints: Endpoints) -> JSON:
    """ClusterLoadAssignment of one revision."""
    return {
        "cluster_name": cluster_name(revision),
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {
                                "socket_address": {"address": e.address, "port_value": e.port}
                            }
                        }
                    }
                    for e in endpoints
                ]
            }
        ],
    }


def build_cluster(revision: str, settings: Settings) -> JSON:
    """The cluster of one revision: balancing, outlier detection, limits and connection handling."""
    path = str(endpoints_file(settings.xds_dir, revision))
    lb_policy, lb_config = _balancing(settings.policy)
    return {
        "name": cluster_name(revision),
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"resource_api_version": "V3", "path_config_source": {"path": path}}
        },
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": lb_policy,
        "common_lb_config": {
            # At most half the pods are ejected, so using ejected ones (panic) is never needed.
            "healthy_panic_threshold": {"value": 0},
            "update_merge_window": "0s",
            **lb_config,
        },
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": UNLIMITED,
                    "max_pending_requests": UNLIMITED,
                    "max_requests": UNLIMITED,
                    "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3},
                }
            ]
        },
        "upstream_connection_options": {
            # A node that vanished is noticed in mid-answer after about a minute.
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE_TIMEOUT},
            }
        },
    }


def build_route_configuration(routes: Routes | None, settings: Settings) -> JSON:
    """The route table: exact path and method pairs, 404 and 405; the module checks what passes.

    Without ``routes`` (no traffic command yet) the API paths answer 503.
    """
    action = _route_action(routes, settings)
    table: list[JSON] = [
        {
            "match": {"path": HEALTH_PATH, "headers": [_exact(":method", "GET")]},
            "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}'}},
            "response_headers_to_add": [_header("content-type", "application/json")],
        },
        _not_allowed(HEALTH_PATH, "GET"),
    ]
    for path in POST_PATHS:
        table += [_engine_route(path, "POST", action), _not_allowed(path, "POST")]
    table += [
        _engine_route(MODELS_PATH, "GET", action),
        _not_allowed(MODELS_PATH, "GET"),
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]
    return {
        "name": ROUTE_CONFIG_NAME,
        "virtual_hosts": [{"name": "llmfleet", "domains": ["*"], "routes": table}],
        # What Envoy itself says about where the client is; the engine needs none of it.
        "request_headers_to_remove": ["x-envoy-external-address", "x-envoy-internal"],
        "response_headers_to_remove": ["x-llmfleet-retriable"],
    }


def _engine_route(path: str, method: str, action: JSON) -> JSON:
    return {
        "match": {"path": path, "headers": [_exact(":method", method)]},
        **action,
        "typed_per_filter_config": build_switch(),
    }


def _not_allowed(path: str, allow: str) -> JSON:
    return {
        "match": {"path": path},
        "direct_response": {"status": 405},
        "response_headers_to_add": [_header("allow", allow)],
    }


def _route_action(routes: Routes | None, settings: Settings) -> JSON:
    if routes is None or not routes.split:
        return {"direct_response": {"status": 503}}
    action: JSON = {
        "weighted_clusters": {
            "clusters": [_weighted(revision, weight) for revision, weight in routes.split]
        },
        "timeout": "0s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-headers",
            "retriable_headers": [_exact("x-llmfleet-retriable", "true")],
            "num_retries": 1,
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.050s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": TYPE + "envoy.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
            # Neighbours in Maglev's table are what is tried. With 10, and two pods of which one is
            # dead, a retry met the dead one again in 0.3 % of the cases, in some tables in 7 %.
            "host_selection_retry_max_attempts": 100,
        },
    }
    if settings.policy is Policy.PREFIX_HASH:
        action["hash_policy"] = [{"header": {"header_name": KEY_HEADER}}]
    elif settings.policy is Policy.SESSION:
        action["hash_policy"] = [{"header": {"header_name": SESSION_HEADER}}]
    # What a retry can send again. The first attempt gets a copy of it, which nothing can spare: a
    # body above the limit would not be retried at all.
    return {"route": action, "request_body_buffer_limit": settings.body_limit_bytes}


def _weighted(revision: str, weight: int) -> JSON:
    return {
        "name": cluster_name(revision),
        "weight": weight,
        "response_headers_to_add": [_header("x-llmfleet-revision", revision)],
    }


def _balancing(policy: Policy) -> tuple[str, JSON]:
    match policy:
        case Policy.PREFIX_HASH | Policy.SESSION:
            bounded = {"hash_balance_factor": HASH_BALANCE_FACTOR}
            return "MAGLEV", {"consistent_hashing_lb_config": bounded}
        case Policy.LEAST_REQUEST:
            return "LEAST_REQUEST", {}
        case Policy.ROUND_ROBIN:
            return "ROUND_ROBIN", {}


def _outlier_detection() -> JSON:
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "60s",
        "max_ejection_time": "60s",
        "max_ejection_percent": 50,
        "always_eject_one_host": False,
    }


def _exact(name: str, value: str) -> JSON:
    return {"name": name, "string_match": {"exact": value}}


def _header(key: str, value: str) -> JSON:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def build_clusters(revisions: Collection[str], settings: Settings) -> list[JSON]:
    """The clusters of ``revisions``, in a stable order."""
    return [build_cluster(revision, settings) for revision in sorted(revisions)]
