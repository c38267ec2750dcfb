"""Clusters and endpoints, which change while Envoy runs. Pure rendering; routes.py has the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from llmfleet_router.model import Endpoint, Endpoints
from llmfleet_router.module import build_balancer
from llmfleet_router.settings import Policy, Settings

JSON = dict[str, Any]

TYPE = "type.googleapis.com/"
CLUSTER_TYPE = TYPE + "envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE = TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment"

CONNECT_TIMEOUT = "1s"
# Shorter than uvicorn's keep-alive of 5 s: a connection the engine closes while a request is on
# its way would be a failure that must not be retried.
UPSTREAM_IDLE_TIMEOUT = "3s"
SILENT_SECONDS = 30
"""So long an engine's machine may confirm nothing before its connections are given up."""
IPPROTO_TCP, TCP_USER_TIMEOUT = 6, 18
"""As Linux numbers them; Python names the second on Linux only."""
UNLIMITED = 1 << 24
MOST_SHADOWS = 128
"""Shadow requests at once, per revision; one more is dropped, so that no engine collects them."""
RETRIES = 5
"""Of what no engine has worked on. A node takes several pods along, and a request may meet each of
them before one that is there."""
RETRY_BUDGET_PERCENT = 20.0
RETRIES_ALWAYS = 100
"""Retries at once that need no budget. Half of a small fleet's requests meet the pod that has just
gone, and none of them was worked on, so trying them again costs no engine anything."""


def cluster_name(revision: str) -> str:
    """Envoy's name for a revision's cluster; the revision label of Envoy's own metrics."""
    return f"rev-{revision}"


def arm_name(revision: str, other: str) -> str:
    """Of the cluster of a revision's share of a split, whose last resort is the other one."""
    return f"arm-{revision}_{other}"


def mirror_name(revision: str) -> str:
    """Its second cluster, for shadow requests: they are not among the revision's own."""
    return f"mirror-{revision}"


def endpoints_file(xds_dir: Path, revision: str) -> Path:
    """One file per revision: Envoy's file-based EDS takes exactly one resource per file."""
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
        "endpoints": [{"lb_endpoints": [_endpoint(revision, each) for each in endpoints]}],
    }


def _endpoint(revision: str, endpoint: Endpoint) -> JSON:
    socket = {"address": endpoint.address, "port_value": endpoint.port}
    # For the module: whose pod answered, and what one fails that is just warm says little of it.
    known: JSON = {"revision": revision}
    if endpoint.ready_since:
        known["ready_since"] = endpoint.ready_since
    return {"endpoint": {"address": {"socket_address": socket}}, **_metadata(known)}


def _metadata(known: JSON) -> JSON:
    return {"metadata": {"filter_metadata": {"llmfleet": known}}}


def build_cluster(revision: str, settings: Settings) -> JSON:
    """The cluster of one revision: balancing, outlier detection, limits and connection handling."""
    return {
        "name": cluster_name(revision),
        **_metadata({"cluster": cluster_name(revision)}),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _endpoints_source(revision, settings)},
        "connect_timeout": CONNECT_TIMEOUT,
        **_balancing(settings),
        "common_lb_config": _whole_pods(),
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": _circuit_breakers(),
        **_connections(),
    }


def _circuit_breakers() -> JSON:
    return {
        "thresholds": [
            {
                "max_connections": UNLIMITED,
                "max_pending_requests": UNLIMITED,
                "max_requests": UNLIMITED,
                "retry_budget": {
                    "budget_percent": {"value": RETRY_BUDGET_PERCENT},
                    "min_retry_concurrency": RETRIES_ALWAYS,
                },
            }
        ]
    }


def build_mirror(revision: str, settings: Settings) -> JSON:
    """The cluster of one revision's shadow requests: the same pods, few at a time, no retries.

    Envoy gives shadow requests no hash to balance by, so they go where few requests are.
    """
    return {
        "name": mirror_name(revision),
        "type": "EDS",
        "eds_cluster_config": {
            "service_name": cluster_name(revision),
            "eds_config": _endpoints_source(revision, settings),
        },
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": _whole_pods(),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MOST_SHADOWS,
                    "max_pending_requests": MOST_SHADOWS,
                    "max_requests": MOST_SHADOWS,
                    "max_retries": 0,
                }
            ]
        },
        **_connections(),
    }


def build_arm(revision: str, beside: str) -> JSON:
    """A revision's share of a split: its own pods, and in the end those of the other one as well.

    A request may meet an arm whose only pod was on a node that has just vanished. Envoy draws the
    arm once for a request, and not anew for its retries.
    """
    own, other = ({"name": cluster_name(each)} for each in (revision, beside))
    return {
        "name": arm_name(revision, beside),
        **_metadata({"cluster": cluster_name(revision)}),
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": [own, own, other, other, own, other],  # by attempt
            },
        },
        "circuit_breakers": _circuit_breakers(),
    }


def _endpoints_source(revision: str, settings: Settings) -> JSON:
    path = str(endpoints_file(settings.xds_dir, revision))
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}


def _whole_pods() -> JSON:
    return {
        # At most half the pods are ejected, but the others may leave: ejected ones are used when
        # there is nothing else.
        "healthy_panic_threshold": {"value": 1},
        "update_merge_window": "0s",
    }


def _connections() -> JSON:
    return {
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 10, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        "upstream_bind_config": {"socket_options": [_user_timeout()]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE_TIMEOUT},
            }
        },
    }


def _user_timeout() -> JSON:
    """A vanished node is noticed after ``SILENT_SECONDS``, whatever its connection waits for.

    Keep-alive probes are sent while nothing else is under way. What was sent and never confirmed
    (a request on an idle connection, just after the node went) the kernel else repeats for some 15
    minutes.
    """
    return {
        "description": "TCP_USER_TIMEOUT",
        "level": IPPROTO_TCP,
        "name": TCP_USER_TIMEOUT,
        "int_value": SILENT_SECONDS * 1000,
        "state": "STATE_PREBIND",
    }


def _balancing(settings: Settings) -> JSON:
    match settings.policy:
        case Policy.PREFIX_HASH | Policy.SESSION:
            return {"load_balancing_policy": {"policies": [build_balancer(settings)]}}
        case Policy.LEAST_REQUEST:
            return {"lb_policy": "LEAST_REQUEST"}
        case Policy.ROUND_ROBIN:
            return {"lb_policy": "ROUND_ROBIN"}


def _outlier_detection() -> JSON:
    """A pod that cannot be connected to rests for 1 s, then 2 s, then 3 s each time.

    So one that is back has its share again in less than 5 s; one that stays away delays a few
    requests each time, which a retry answers.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_time": "3s",
        "max_ejection_percent": 50,
        "always_eject_one_host": False,
    }


def build_clusters(
    revisions: Collection[str], mirrors: Collection[str], settings: Settings
) -> list[JSON]:
    """The clusters of ``revisions`` and those of shadow requests, in a stable order."""
    return [
        *(build_cluster(revision, settings) for revision in sorted(revisions)),
        *(build_mirror(revision, settings) for revision in sorted(mirrors)),
        *(build_arm(*pair) for pair in permutations(sorted(revisions), 2)),
    ]
