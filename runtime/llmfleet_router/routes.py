"""Route tables, of the public port and of the preview port. Pure rendering.

A path of an engine has up to three routes, of which the first that matches is taken: for the
headers of ``routing.headerRoute``, for sessions that stick to a revision, and the ordinary one.
"""

from __future__ import annotations

from typing import Any

from llmfleet_router.model import Routes, command_as_json
from llmfleet_router.module import (
    KEY_HEADER,
    SESSION_HEADER,
    build_booking,
    build_switch,
    build_switched_off,
)
from llmfleet_router.resources import RETRIES, TYPE, arm_name, cluster_name, mirror_name
from llmfleet_router.routing import HeaderMatch, Mirror
from llmfleet_router.settings import Policy, Settings

JSON = dict[str, Any]

ROUTE_TYPE = TYPE + "envoy.config.route.v3.RouteConfiguration"

PUBLIC_TABLE = "llmfleet"
PREVIEW_TABLE = "llmfleet-preview"
POST_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MODELS_PATH = "/v1/models"
HEALTH_PATH = "/health"
COMMAND_METADATA = "llmfleet.command"
"""Under this name the public port's table says which command it carries out."""
SHADOW_HEADER = "x-llmfleet-shadow"
ELSEWHERE_HEADER = "x-envoy-ratelimited"
"""An engine's answer that another pod should be asked. Envoy finds headers of its own at once; for
any other name it indexes all headers of every answer."""
ANSWERED_BY = "%METADATA(UPSTREAM_HOST:llmfleet:revision)%"
RETRIED_BYTES = 1 << 20
"""Larger bodies are not sent twice: they would be kept until the answer begins, and a thousand of
them waiting are more than the router's memory. What a model can read as text is smaller."""

# A non-streamed answer is silent until its end, so silence alone means little.
STREAM_IDLE_TIMEOUT = "900s"
NOTHING: JSON = {"direct_response": {"status": 503}}
_UNCHECKED: JSON = {"typed_per_filter_config": build_switched_off()}
"""Of a route to no engine: the booking of its whole table would switch the module on for it."""


def build_public_table(routes: Routes | None, settings: Settings) -> JSON:
    """The table of the public port; without ``routes`` (no command yet) its API answers 503."""
    if routes is None:
        return _table(PUBLIC_TABLE, [([], NOTHING)])
    choices: list[tuple[list[JSON], JSON]] = []
    routing = routes.routing
    if routing.header_route:
        only = ((routing.header_route.revision, 100),)
        matches = [_match(header) for header in routing.header_route.headers]
        booking = build_booking(settings, routes.generation, "header")
        own = {"typed_per_filter_config": build_switch(booking)}
        choices.append((matches, _to_engines(only, settings) | own))
    if routing.sticky and len(routes.split) > 1:
        choices.append(_sticky(routes, settings))
    ordinary = _to_engines(routes.split, settings, routing.mirror) if routes.split else NOTHING
    booking = build_booking(settings, routes.generation, "split")
    table = _table(PUBLIC_TABLE, [*choices, ([], ordinary)], booking)
    # For an agent that starts later, and has to know what is served (served.py).
    told = {**command_as_json(routes.command), "available": sorted(routes.available)}
    return {**table, "metadata": {"filter_metadata": {COMMAND_METADATA: told}}}


def build_preview_table(routes: Routes | None, settings: Settings) -> JSON:
    """The table of the preview port: one revision, or 503."""
    revision = routes.routing.preview if routes else None
    if routes is None or revision is None:
        return _table(PREVIEW_TABLE, [([], NOTHING)])
    action = _to_engines(((revision, 100),), settings)
    booking = build_booking(settings, routes.generation, "preview")
    return _table(PREVIEW_TABLE, [([], action)], booking)


def _table(name: str, choices: list[tuple[list[JSON], JSON]], booking: JSON | None = None) -> JSON:
    """Exact path and method pairs, 404 and 405; the module checks what passes.

    Args:
        name: of the table.
        choices: what headers have to be, beside the method, and what is done then; the last one
            takes all the rest.
        booking: as what requests are booked (``module.build_booking``), unless their route says
            otherwise.
    """
    table: list[JSON] = []  # tried in this order, so what is asked most comes first
    for path, method in (*((path, "POST") for path in POST_PATHS), (MODELS_PATH, "GET")):
        table += [_engine_route(path, method, matches, action) for matches, action in choices]
        table.append(_not_allowed(path, method))
    table += [
        {
            "match": {"path": HEALTH_PATH, "headers": [_exact(":method", "GET")]},
            "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}'}},
            "response_headers_to_add": [_header("content-type", "application/json")],
            **_UNCHECKED,
        },
        _not_allowed(HEALTH_PATH, "GET"),
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}, **_UNCHECKED},
    ]
    return {
        "name": name,
        "virtual_hosts": [{"name": "llmfleet", "domains": ["*"], "routes": table}],
        **({"typed_per_filter_config": booking} if booking else {}),
        # What Envoy itself says about where the client is; the engine needs none of it.
        "request_headers_to_remove": ["x-envoy-external-address", "x-envoy-internal"],
        "response_headers_to_remove": [ELSEWHERE_HEADER],
    }


def _engine_route(path: str, method: str, matches: list[JSON], action: JSON) -> JSON:
    return {
        "match": {"path": path, "headers": [_exact(":method", method), *matches]},
        "typed_per_filter_config": build_switch(),
        **action,
    }


def _not_allowed(path: str, allow: str) -> JSON:
    return {
        "match": {"path": path},
        "direct_response": {"status": 405},
        "response_headers_to_add": [_header("allow", allow)],
        **_UNCHECKED,
    }


def _sticky(routes: Routes, settings: Settings) -> tuple[list[JSON], JSON]:
    """For requests that name a session: its hash, not chance, picks the revision.

    Envoy hashes twice by one policy: for the revision when the request comes, for the pod once the
    module has added the key. The key comes first in the policy, so the pod is the same as without
    stickiness.
    """
    matches: list[JSON] = [{"name": SESSION_HEADER, "present_match": True}]
    by: list[JSON] = [{"header": {"header_name": SESSION_HEADER}}]
    if settings.policy is Policy.PREFIX_HASH:
        by.insert(0, {"header": {"header_name": KEY_HEADER}, "terminal": True})
    action = _to_engines(routes.split, settings, routes.routing.mirror)
    action["route"]["weighted_clusters"]["use_hash_policy"] = True
    action["route"]["hash_policy"] = by
    return matches, action


def _to_engines(
    split: tuple[tuple[str, int], ...], settings: Settings, mirror: Mirror | None = None
) -> JSON:
    arms = [_weighted(revision, weight, _cluster_of(revision, split)) for revision, weight in split]
    action: JSON = {
        "weighted_clusters": {"clusters": arms},
        "timeout": "0s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request,envoy-ratelimited",
            "num_retries": RETRIES,
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
            # Envoy's own balancers draw again as often as this until they meet a pod that was not
            # tried; the module's asks which were.
            "host_selection_retry_max_attempts": 100,
        },
    }
    if settings.policy is Policy.PREFIX_HASH:
        action["hash_policy"] = [{"header": {"header_name": KEY_HEADER}}]
    elif settings.policy is Policy.SESSION:
        action["hash_policy"] = [{"header": {"header_name": SESSION_HEADER}}]
    if mirror:
        action["request_mirror_policies"] = [_mirror(mirror)]
    # What a retry or a mirror can send again, kept until the answer begins.
    kept = settings.body_limit_bytes if mirror else min(RETRIED_BYTES, settings.body_limit_bytes)
    return {"route": action, "request_body_buffer_limit": kept}


def _mirror(mirror: Mirror) -> JSON:
    return {
        "cluster": mirror_name(mirror.revision),
        "runtime_fraction": {
            "default_value": {"numerator": mirror.percent, "denominator": "HUNDRED"}
        },
        "disable_shadow_host_suffix_append": True,
        "trace_sampled": False,
        "request_headers_mutations": [
            {"append": _header(SHADOW_HEADER, "true")},
            # An engine takes the id for its own: one that got both requests would mix them up.
            {"append": _header("x-request-id", "%REQ(x-request-id)%-shadow")},
        ],
    }


def _cluster_of(revision: str, split: tuple[tuple[str, int], ...]) -> str:
    """With another arm beside it, that is its last resort: the one with the largest share."""
    others = [(weight, name) for name, weight in split if name != revision]
    return arm_name(revision, max(others)[1]) if others else cluster_name(revision)


def _weighted(revision: str, weight: int, cluster: str) -> JSON:
    # With a last resort another revision's pod may have answered.
    who = revision if cluster == cluster_name(revision) else ANSWERED_BY
    # Engines send no such header, and adding is cheaper than looking for one to replace.
    named = _header("x-llmfleet-revision", who) | {"append_action": "APPEND_IF_EXISTS_OR_ADD"}
    return {
        "name": cluster,
        "weight": weight,
        "response_headers_to_add": [named],
    }


def _match(header: HeaderMatch) -> JSON:
    if header.kind == "exact":
        return _exact(header.name, header.value)
    if not header.value:  # every value begins with nothing
        return {"name": header.name, "present_match": True}
    return {"name": header.name, "string_match": {"prefix": header.value}}


def _exact(name: str, value: str) -> JSON:
    return {"name": name, "string_match": {"exact": value}}


def _header(key: str, value: str) -> JSON:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
