"""Mistakes put into a rendered configuration, each of which Envoy must refuse.

They show that the harness sees: every part that varies (bootstrap, clusters, endpoints, routes,
Envoy's module) is really judged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from tests.xds.cases import Case
from tests.xds.rendering import Rendered

JSON = dict[str, Any]

CASE: Final = Case(
    name="chat",
    namespace="team-a",
    router={"policy": "PrefixHash"},
    status={
        "traffic": [{"revision": "5d41c0ffee", "weight": 75}, {"revision": "7c9f", "weight": 25}],
        "trafficGeneration": 17,
        "routing": {
            "headerRoute": {
                "revision": "7c9f",
                "headers": [{"name": "x-tester", "exact": "1"}, {"name": "cookie", "prefix": "t"}],
            },
            "mirror": {"revision": "7c9f", "percent": 5},
            "preview": "7c9f",
            "stickiness": "Session",
        },
    },
    slices=tuple(
        {
            "metadata": {"labels": {"llmfleet.dev/revision": revision}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8000}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        }
        for revision in ("5d41c0ffee", "7c9f")
    ),
    token="t0ken",
    access_log="errors",
)
"""A case without any mistake."""


def _routes(rendered: Rendered) -> list[JSON]:
    routes: list[JSON] = rendered.routes["virtual_hosts"][0]["routes"]
    return [route for route in routes if "weighted_clusters" in route.get("route", {})]


def _manager(rendered: Rendered) -> JSON:
    listener = rendered.bootstrap["static_resources"]["listeners"][0]
    manager: JSON = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _unknown_mirror(rendered: Rendered) -> None:
    _routes(rendered)[-1]["route"]["request_mirror_policies"][0]["cluster"] = "mirror-other"


def _mirror_of_nothing(rendered: Rendered) -> None:
    rendered.clusters[:] = [c for c in rendered.clusters if not c["name"].startswith("mirror-")]


def _mirror_without_requests(rendered: Rendered) -> None:
    (mirror,) = (c for c in rendered.clusters if c["name"].startswith("mirror-"))
    mirror["circuit_breakers"]["thresholds"][0]["max_requests"] = -1


def _unknown_preview(rendered: Rendered) -> None:
    routes = rendered.preview["virtual_hosts"][0]["routes"]
    first = next(route for route in routes if "route" in route)
    first["route"]["weighted_clusters"]["clusters"][0]["name"] = "rev-other"


def _empty_prefix(rendered: Rendered) -> None:
    _routes(rendered)[0]["match"]["headers"][2]["string_match"]["prefix"] = ""


def _header_with_line_break(rendered: Rendered) -> None:
    _routes(rendered)[0]["match"]["headers"][1]["name"] = "x-tester\n"


def _hash_of_nothing(rendered: Rendered) -> None:
    _routes(rendered)[1]["route"]["hash_policy"][-1]["header"]["header_name"] = ""


def _ports_the_same(rendered: Rendered) -> None:
    public, preview = rendered.bootstrap["static_resources"]["listeners"]
    preview["address"] = copy.deepcopy(public["address"])


def _unknown_cluster(rendered: Rendered) -> None:
    _routes(rendered)[0]["route"]["weighted_clusters"]["clusters"][0]["name"] = "rev-other"


def _no_weight(rendered: Rendered) -> None:
    for share in _routes(rendered)[0]["route"]["weighted_clusters"]["clusters"]:
        share["weight"] = 0


def _token_with_newline(rendered: Rendered) -> None:
    module = _module(rendered)
    module["filter_config"]["value"] += "token a\nb\n"


def _token_twice(rendered: Rendered) -> None:
    module = _module(rendered)
    module["filter_config"]["value"] += "token another\n"


def _address_as_name(rendered: Rendered) -> None:
    _endpoint(rendered)["address"] = "engine.example"


def _legacy_address(rendered: Rendered) -> None:
    _endpoint(rendered)["address"] = "010.000.000.001x"


def _no_port(rendered: Rendered) -> None:
    _endpoint(rendered)["port_value"] = None


def _large_port(rendered: Rendered) -> None:
    _endpoint(rendered)["port_value"] = 65536


def _endpoint(rendered: Rendered) -> JSON:
    first = rendered.endpoints[0]["endpoints"][0]["lb_endpoints"][0]
    address: JSON = first["endpoint"]["address"]["socket_address"]
    return address


def _unknown_policy(rendered: Rendered) -> None:
    rendered.clusters[0]["lb_policy"] = "NEAREST"


def _unknown_balancer(rendered: Rendered) -> None:
    (policy,) = rendered.clusters[0]["load_balancing_policy"]["policies"]
    policy["typed_extension_config"]["typed_config"]["lb_policy_name"] = "nearest"


def _cluster_twice(rendered: Rendered) -> None:
    rendered.clusters.append(copy.deepcopy(rendered.clusters[0]))


def _unknown_field(rendered: Rendered) -> None:
    rendered.clusters[0]["conect_timeout"] = "1s"


def _module(rendered: Rendered) -> JSON:
    module: JSON = _manager(rendered)["http_filters"][0]["typed_config"]
    return module


def _module_elsewhere(rendered: Rendered) -> None:
    _module(rendered)["dynamic_module_config"]["module"]["local"]["filename"] = "/nowhere.so"


def _module_without_limit(rendered: Rendered) -> None:
    _module(rendered)["filter_config"]["value"] = "prefix_bytes 4096\n"


def _large_prefix(rendered: Rendered) -> None:
    module = _module(rendered)
    module["filter_config"]["value"] += "prefix_bytes 65537\n"


def _number_for_text(rendered: Rendered) -> None:
    _manager(rendered)["stat_prefix"] = 17


def _no_router_filter(rendered: Rendered) -> None:
    _manager(rendered)["http_filters"].pop()


def _body_limit_as_text(rendered: Rendered) -> None:
    _module(rendered)["filter_config"]["value"] = "prefix_bytes 4096\nbody_limit_bytes 8Mi\n"


MISTAKES: Final[tuple[Callable[[Rendered], None], ...]] = (
    _unknown_cluster,
    _unknown_mirror,
    _mirror_of_nothing,
    _mirror_without_requests,
    _unknown_preview,
    _empty_prefix,
    _header_with_line_break,
    _hash_of_nothing,
    _ports_the_same,
    _no_weight,
    _token_with_newline,
    _token_twice,
    _address_as_name,
    _legacy_address,
    _no_port,
    _large_port,
    _unknown_policy,
    _unknown_balancer,
    _cluster_twice,
    _unknown_field,
    _module_elsewhere,
    _module_without_limit,
    _large_prefix,
    _number_for_text,
    _no_router_filter,
    _body_limit_as_text,
)


def with_mistake(rendered: Rendered, mistake: Callable[[Rendered], None]) -> Rendered:
    """A copy of a rendering with one mistake in it."""
    copied = replace(
        rendered,
        bootstrap=copy.deepcopy(rendered.bootstrap),
        clusters=copy.deepcopy(rendered.clusters),
        endpoints=copy.deepcopy(rendered.endpoints),
        routes=copy.deepcopy(rendered.routes),
        preview=copy.deepcopy(rendered.preview),
    )
    mistake(copied)
    return copied
