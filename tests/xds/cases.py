"""Random inputs as far as the API server admits them, with what is at the edge drawn often.

A case is what reaches a router: its LLMDeployment (spec.router, names, status.traffic, also when
somebody edited the status by hand), the EndpointSlices that carry its labels, and the engine token.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from hypothesis import strategies as st

JSON = dict[str, Any]

LOWER: Final = string.ascii_lowercase
ALNUM: Final = LOWER + string.digits
YAML_TRAPS: Final = ("0123456789", "1e10000000", "0x12345678", "null", "true", "123456e789", "0o7")
"""Revision hashes that a careless YAML reader takes for a number, a boolean or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One LLMDeployment and what its router sees around it."""

    name: str
    namespace: str
    router: JSON
    """``spec.router``, any subset of its fields."""
    status: JSON
    slices: tuple[JSON, ...]
    token: str | None
    access_log: str


def _labels(first: str, longest: int) -> st.SearchStrategy[str]:
    """DNS labels of 1 … ``longest`` characters whose first is one of ``first``."""
    middle = st.text(ALNUM + "-", max_size=longest - 2)
    long = st.builds("{}{}{}".format, st.sampled_from(first), middle, st.sampled_from(ALNUM))
    return st.sampled_from(first) | long | st.just(first[0] * longest)


hashes = (
    st.text("0123456789abcdef", min_size=10, max_size=10)
    | st.sampled_from(YAML_TRAPS)
    | _labels(ALNUM, 63)
)


@st.composite
def _traffic(draw: st.DrawFn) -> list[JSON]:
    """1 … 8 revisions whose weights sum to 100, some of them 0."""
    revisions = draw(st.lists(hashes, unique=True, min_size=1, max_size=8))
    cuts = sorted(draw(st.integers(0, 100)) for _ in revisions[1:])
    edges = [0, *cuts, 100]
    return [
        {"revision": revision, "weight": edges[index + 1] - edges[index]}
        for index, revision in enumerate(revisions)
    ]


edited = st.lists(
    st.fixed_dictionaries(
        {"revision": st.text(max_size=64) | hashes, "weight": st.integers(0, 100)}
    ),
    max_size=6,
)
"""What the CRD admits when the status is edited by hand: any text, any sum."""

traffics = st.one_of(_traffic(), _traffic(), _traffic(), st.just([]), edited)
tokens_of_http = st.text(ALNUM + string.ascii_uppercase + "!#$%&'*+-.^_`|~", min_size=1)
header_names = st.sampled_from(["x-tester", "Host", "x-session-id", "cookie"]) | tokens_of_http
header_values = st.text(max_size=40)
headers = st.one_of(
    st.fixed_dictionaries({"name": header_names, "exact": header_values}),
    st.fixed_dictionaries({"name": header_names, "prefix": header_values}),
)


@st.composite
def _routing(draw: st.DrawFn, named: tuple[str, ...]) -> JSON:
    """Any subset of what routing can say, about revisions of the traffic more often than others."""
    revision = st.sampled_from(named) | hashes if named else hashes
    header_route = st.fixed_dictionaries(
        {"revision": revision, "headers": st.lists(headers, min_size=1, max_size=4)}
    )
    mirror = st.fixed_dictionaries({"revision": revision, "percent": st.integers(1, 100)})
    stickiness = st.sampled_from(["Session", "None"])
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "headerRoute": header_route,
                "mirror": mirror,
                "preview": revision,
                "stickiness": stickiness,
            },
        )
    )


edited_routings = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "headerRoute": st.fixed_dictionaries(
            {"revision": st.text(max_size=64) | hashes},
            optional={
                "headers": st.lists(
                    st.fixed_dictionaries(
                        {"name": st.text(max_size=40)},
                        optional={"exact": header_values, "prefix": header_values},
                    ),
                    max_size=3,
                )
            },
        ),
        "mirror": st.fixed_dictionaries({"revision": hashes, "percent": st.integers()}),
        "preview": st.text(max_size=64) | hashes,
        "stickiness": st.text(max_size=10),
    },
)
"""What the CRD may admit when somebody edits the status by hand."""

generations = st.integers(0, 1 << 53) | st.sampled_from([0, (1 << 63) - 1, -(1 << 63)])
statuses = st.fixed_dictionaries(
    {}, optional={"traffic": traffics, "trafficGeneration": generations}
) | st.fixed_dictionaries({"traffic": _traffic(), "trafficGeneration": generations})

addresses_v4 = st.ip_addresses(v=4).map(str) | st.sampled_from(["0.0.0.0", "255.255.255.255"])
addresses_v6 = st.ip_addresses(v=6).map(str) | st.sampled_from(
    ["::", "::1", "::ffff:10.0.0.1", "2001:DB8:0:0:0:0:0:1", str(IPv6Address((1 << 128) - 1))]
)
legacy_v4 = st.integers(0, (1 << 32) - 1).map(
    lambda number: ".".join(f"{int(part):03d}" for part in str(IPv4Address(number)).split("."))
)
"""Leading zeros, which the API server admitted for years."""

conditions = st.fixed_dictionaries({}, optional={"ready": st.booleans() | st.none()})


@st.composite
def _slice(draw: st.DrawFn, revisions: tuple[str, ...]) -> JSON:
    family = draw(st.sampled_from(["IPv4", "IPv4", "IPv6", "FQDN"]))
    address = {
        "IPv4": addresses_v4 | legacy_v4,
        "IPv6": addresses_v6,
        "FQDN": st.just("engine.example"),
    }[family]
    endpoint = st.fixed_dictionaries(
        {"addresses": st.lists(address, min_size=1, max_size=3), "conditions": conditions}
    )
    ports = st.fixed_dictionaries(
        {"name": st.sampled_from(["http", "http", "http", "metrics", ""])},
        optional={"port": st.integers(1, 65535) | st.none(), "protocol": st.just("TCP")},
    )
    label = draw(st.sampled_from(revisions) if revisions else hashes)
    return {
        "metadata": {"labels": {"llmfleet.dev/revision": label}},
        "addressType": family,
        "ports": draw(st.lists(ports, max_size=3) | st.just([{"name": "http", "port": 8000}])),
        "endpoints": draw(st.lists(endpoint, max_size=5)),
    }


_SIZES: Final = ("1Ki", "64Ki", "1023Ki", "1Mi", "8Mi", "1023Mi", "1Gi")
_DURATIONS: Final = ("1s", "24h", "1h30m", "600s", "90m", "61s")

routers = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(1, 64),
        "policy": st.sampled_from(["PrefixHash", "LeastRequest", "RoundRobin", "Session"]),
        "prefixBytes": st.integers(64, 65536) | st.sampled_from([64, 65536]),
        "bodyLimit": st.sampled_from(_SIZES),
        "drainTimeout": st.sampled_from(_DURATIONS),
    },
)

tokens = st.none() | st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64
)
"""Any printable text: the Secret's content is not the operator's alone."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Whole cases; slices carry the revisions of the traffic more often than others."""
    status = draw(statuses)
    named = tuple(share["revision"] for share in status.get("traffic") or ())
    valid = tuple(name for name in named if name and set(name) <= set(ALNUM + "-"))
    if draw(st.booleans()):
        status = {**status, "routing": draw(_routing(valid) | _routing(valid) | edited_routings)}
    routed = [(status.get("routing") or {}).get(key) for key in ("headerRoute", "mirror")]
    named += tuple(one["revision"] for one in routed if one)
    return Case(
        name=draw(_labels(LOWER, 40)),
        namespace=draw(_labels(ALNUM, 63)),
        router=draw(routers),
        status=status,
        slices=tuple(draw(st.lists(_slice(named), max_size=6))),
        token=draw(tokens),
        access_log=draw(st.sampled_from(["off", "errors", "all"])),
    )
