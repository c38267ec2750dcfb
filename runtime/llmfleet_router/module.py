"""Envoy's dynamic module (``native/``), and what its configuration looks like.

Every request for an engine passes its filter. It refuses media types and announced lengths that may
not pass (415, 413), removes headers that only the router may say, collects the body, and adds the
engine's token and, with PrefixHash, the affinity key. It is C because each request pays for it.

The key is a hash of the session's name, or of the beginning of the prompt, so requests that can
share a prefix cache meet the same pod, in every revision. The beginning ends with the first user
message, if that is short enough: what follows grows with every turn of a chat, which would move to
another pod as long as it is shorter than the prefix. The module's balancer turns the key into a
pod, with bounded load. Envoy's own balancers with bounded load take no account of which pods a
retry has tried, and send it back to the one that has just refused, because that is the idlest.
"""

from __future__ import annotations

from typing import Any

from llmfleet_router.settings import Policy, Settings

JSON = dict[str, Any]

FILTER_NAME = "request"
BALANCER_NAME = "affinity"
KEY_HEADER = "x-envoy-downstream-service-node"
"""Carries the key to Envoy's balancer and to the engine. Envoy finds this name, one of few, without
indexing all headers, and removes it from what clients send before it looks for a route. Nothing
else here uses it."""
SESSION_HEADER = "x-session-id"
_TYPE = "type.googleapis.com/"


def build_filter(settings: Settings, token: str | None) -> JSON:
    """The HTTP filter, which is off but for the routes that ``build_switch`` marks."""
    return {
        "name": FILTER_NAME,
        "disabled": True,
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": _module(settings),
            "filter_name": FILTER_NAME,
            "filter_config": {
                "@type": _TYPE + "google.protobuf.StringValue",
                "value": configuration(settings, token),
            },
        },
    }


def build_balancer(settings: Settings) -> JSON:
    """The load-balancing policy of a cluster whose requests have keys."""
    return {
        "typed_extension_config": {
            "name": "envoy.load_balancing_policies.dynamic_modules",
            "typed_config": {
                "@type": _TYPE + "envoy.extensions.load_balancing_policies.dynamic_modules.v3"
                ".DynamicModulesLoadBalancerConfig",
                "dynamic_module_config": _module(settings),
                "lb_policy_name": BALANCER_NAME,
            },
        }
    }


def _module(settings: Settings) -> JSON:
    return {"module": {"local": {"filename": str(settings.module_file)}}, "do_not_close": True}


def build_switch(booking: JSON | None = None) -> JSON:
    """A route's ``typed_per_filter_config`` that lets its requests pass the module.

    Args:
        booking: of this route alone (``build_booking``).
    """
    config = booking[FILTER_NAME] if booking else {}
    on = {"@type": _TYPE + "envoy.config.route.v3.FilterConfig", "config": config}
    return {FILTER_NAME: on}


def build_switched_off() -> JSON:
    """A route's ``typed_per_filter_config`` that keeps the module out of its requests."""
    off = {"@type": _TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
    return {FILTER_NAME: off}


def build_booking(settings: Settings, generation: int, kind: str) -> JSON:
    """The ``typed_per_filter_config`` of a table or route: as what its requests are booked.

    Envoy loads the module for each of these at every change, so there is one a table, and one for
    each route that differs.

    Args:
        settings: name the module.
        generation: the trafficGeneration of the routes.
        kind: one of ``ledger.CLASSES`` that a route can know.
    """
    return {
        FILTER_NAME: {
            "@type": _TYPE
            + "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
            "dynamic_module_config": _module(settings),
            "filter_config": {
                "@type": _TYPE + "google.protobuf.StringValue",
                "value": f"{generation} {kind}",
            },
        }
    }


def configuration(settings: Settings, token: str | None) -> str:
    """What the module is told: lines of a name, a space and a value.

    >>> print(configuration(Settings(namespace="a", name="b"), "t0ken"), end="")
    prefix_bytes 4096
    body_limit_bytes 8388608
    first_token_timeout_ms 60000
    ledger /var/run/llmfleet/xds/ledger
    token t0ken
    """
    prefix_bytes = settings.prefix_bytes if settings.policy is Policy.PREFIX_HASH else 0
    lines = [
        f"prefix_bytes {prefix_bytes}",
        f"body_limit_bytes {settings.body_limit_bytes}",
        f"first_token_timeout_ms {round(1000 * settings.first_token_timeout_seconds)}",
        f"ledger {settings.ledger_file}",
    ]
    if token is not None:
        lines.append(f"token {token}")
    return "".join(f"{line}\n" for line in lines)
