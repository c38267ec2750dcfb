"""Random valid inputs of the router."""

from __future__ import annotations

from hypothesis import strategies as st

from llmfleet_router.model import Command, Desired, Endpoint
from llmfleet_router.routing import HeaderMatch, HeaderRoute, Mirror, Routing

REVISIONS = ("5d41c0ffee", "7c9f000001", "123456e789", "0123456789")

header_matches = st.builds(
    HeaderMatch,
    name=st.sampled_from(["x-tester", "user-agent", "host", "!#$%&'*+-.^_`|~", "x-session-id"]),
    kind=st.sampled_from(["exact", "prefix"]),
    value=st.text().filter(str.isprintable),
)
routings = st.builds(
    Routing,
    header_route=st.none()
    | st.builds(
        HeaderRoute,
        revision=st.sampled_from(REVISIONS),
        headers=st.lists(header_matches, min_size=1, max_size=3).map(tuple),
    ),
    mirror=st.none()
    | st.builds(Mirror, revision=st.sampled_from(REVISIONS), percent=st.integers(1, 100)),
    preview=st.none() | st.sampled_from(REVISIONS),
    sticky=st.booleans(),
)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Commands with 0 … 4 revisions; also ids that YAML would read as numbers."""
    revisions = draw(st.lists(st.sampled_from(REVISIONS), unique=True, max_size=4))
    routing = draw(st.just(Routing()) | routings)
    if not revisions:
        return Command(generation=draw(st.integers(0, 1 << 53)), weights=(), routing=routing)
    count = len(revisions) - 1
    cuts = sorted(draw(st.lists(st.integers(1, 99), unique=True, min_size=count, max_size=count)))
    edges = [0, *cuts, 100]
    weights = tuple((r, edges[i + 1] - edges[i]) for i, r in enumerate(revisions))
    return Command(generation=draw(st.integers(0, 1 << 53)), weights=weights, routing=routing)


endpoints = st.lists(
    st.builds(
        Endpoint,
        address=st.ip_addresses().map(str),
        port=st.integers(1, 65535),
    ),
    unique=True,
    max_size=4,
).map(lambda found: tuple(sorted(found)))


def _filled(found: dict[str, tuple[Endpoint, ...]]) -> dict[str, tuple[Endpoint, ...]]:
    return {revision: some for revision, some in found.items() if some}


desireds = st.builds(
    Desired,
    command=commands(),
    endpoints=st.dictionaries(st.sampled_from(REVISIONS), endpoints).map(_filled),
)
