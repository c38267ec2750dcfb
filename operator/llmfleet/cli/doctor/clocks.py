"""Whose clock is not the API server's.

The API server notes its own time with every write (``managedFields``), and who renews a Lease
writes his into it: so one look at a Lease tells both, whenever it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from llmfleet.cli.doctor.asking import JSON
from llmfleet.cli.doctor.finding import Finding, UnknownError, missing, ok
from llmfleet.cli.doctor.operators import Installation, holder_pod
from llmfleet.cli.leading import parse_time, written_at

TOLERATED_SECONDS: Final = 5.0
"""Times are cut to the second, and a renewal may be three on its way."""
NODE_LEASES: Final = "kube-node-lease"
RENEWED_WITHIN: Final = timedelta(minutes=2)
"""The clock of a node that says nothing any more matters to nobody."""
MOST_TOLD: Final = 5
SYNCHRONISE: Final = "synchronise it (chrony, systemd-timesyncd)"


def clock_ahead(lease: JSON) -> float | None:
    """Seconds that the clock of who renewed a Lease last is ahead of the API server's.

    None when the Lease does not tell.
    """
    written, renewed = written_at(lease), parse_time((lease.get("spec") or {}).get("renewTime"))
    if written is None or renewed is None:
        return None
    return (renewed - written).total_seconds()


def check_operator_clock(installation: Installation) -> Iterator[Finding]:
    """By it steps last as long as they should."""
    held = [each for each in installation.leases if (each.get("spec") or {}).get("holderIdentity")]
    for lease in held:
        ahead = clock_ahead(lease)
        if ahead is None:
            raise UnknownError("the operator's Lease does not say when it was written")
        if abs(ahead) <= TOLERATED_SECONDS:
            yield ok("operator-clock", "the operator's clock is the API server's")
            continue
        pod = holder_pod(installation, lease)
        node = ((pod or {}).get("spec") or {}).get("nodeName") or "it runs on"
        yield missing(
            "operator-clock",
            f"the operator's clock is {describe_ahead(ahead)} the API server's: steps and"
            " deadlines are counted by it, and facts of another time are not believed",
            f"the clock of the node {node}: {SYNCHRONISE}",
        )


def check_node_clocks(installation: Installation) -> Iterator[Finding]:
    """By them the kubelet says when pods began, and routers when requests came."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NODE_LEASES}/leases"
    leases = installation.api.list(f"list Leases in {NODE_LEASES}", path) or []
    now = installation.api.now()
    found = {
        str(each["metadata"].get("name")): ahead
        for each in leases
        if _is_recent(written_at(each), now) and (ahead := clock_ahead(each)) is not None
    }
    wrong = {name: ahead for name, ahead in found.items() if abs(ahead) > TOLERATED_SECONDS}
    if not found:
        raise UnknownError("no node has renewed its Lease lately")
    if not wrong:
        yield ok("node-clocks", f"the clocks of {len(found)} nodes are the API server's")
        return
    shown = [f"{name} is {describe_ahead(ahead)} it" for name, ahead in sorted(wrong.items())]
    yield missing(
        "node-clocks",
        f"of {len(found)} nodes {len(wrong)} have another time than the API server:"
        f" {', '.join(shown[:MOST_TOLD])}",
        f"the clock of each of these nodes: {SYNCHRONISE}",
    )


def check_your_clock(installation: Installation) -> Iterator[Finding]:
    """By it this program says how long ago something was."""
    ahead = installation.api.ahead_seconds
    if ahead is None:
        raise UnknownError("the API server does not say what time it is")
    if abs(ahead) <= TOLERATED_SECONDS:
        yield ok("your-clock", "this machine's clock is the API server's")
    else:
        yield missing(
            "your-clock",
            f"this machine's clock is {describe_ahead(ahead)} the API server's: ages shown here"
            " are wrong by that",
            f"the clock of this machine: {SYNCHRONISE}",
        )


def describe_ahead(seconds: float) -> str:
    """How far one clock is from another.

    >>> describe_ahead(42.4), describe_ahead(-90)
    ('42 s ahead of', '90 s behind')
    """
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


def _is_recent(written: datetime | None, now: datetime) -> bool:
    return written is not None and now - written < RENEWED_WITHIN
