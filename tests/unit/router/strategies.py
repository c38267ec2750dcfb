"""Random valid inputs of the router."""

from __future__ import annotations

from hypothesis import strategies as st

from llmfleet_router.model import Command, Desired, Endpoint

REVISIONS = ("5d41c0ffee", "7c9f000001", "123456e789", "0123456789")


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Commands with 0 … 4 revisions; also ids that YAML would read as numbers."""
    revisions = draw(st.lists(st.sampled_from(REVISIONS), unique=True, max_size=4))
    if not revisions:
        return Command(generation=draw(st.integers(0, 1 << 53)), weights=())
    count = len(revisions) - 1
    cuts = sorted(draw(st.lists(st.integers(1, 99), unique=True, min_size=count, max_size=count)))
    edges = [0, *cuts, 100]
    weights = tuple((r, edges[i + 1] - edges[i]) for i, r in enumerate(revisions))
    return Command(generation=draw(st.integers(0, 1 << 53)), weights=weights)


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
