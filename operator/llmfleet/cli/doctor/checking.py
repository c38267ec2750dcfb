"""All checks, in the order in which one needs the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from llmfleet.cli.access import Cluster
from llmfleet.cli.doctor.asking import JSON, Api
from llmfleet.cli.doctor.clocks import (
    check_node_clocks,
    check_operator_clock,
    check_your_clock,
)
from llmfleet.cli.doctor.finding import Finding, State, UnknownError, unknown
from llmfleet.cli.doctor.installed import (
    check_crd,
    check_lease,
    check_operator,
    check_routers,
    check_seen,
    check_served,
)
from llmfleet.cli.doctor.monitoring import check_scrape_network, check_scraping
from llmfleet.cli.doctor.operators import Installation
from llmfleet.cli.doctor.rights import check_operator_rights, check_own_rights

EXIT_MISSING: Final = 1
EXIT_UNKNOWN: Final = 3
"""Nothing is missing, but not everything could be known."""
EXIT_NO_CLUSTER: Final = 121
"""Nothing could be asked."""

Check = Callable[[Installation], Iterator[Finding]]

CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("crd", check_crd),
    ("operator", check_operator),
    ("lease", check_lease),
    ("rights", check_operator_rights),
    ("you", check_own_rights),
    ("operator-clock", check_operator_clock),
    ("node-clocks", check_node_clocks),
    ("your-clock", check_your_clock),
    ("scrape", check_scraping),
    ("scrape-network", check_scrape_network),
)


def examine(cluster: Cluster, name: str | None) -> Iterator[Finding]:
    """Every finding, as soon as it is there.

    Args:
        cluster: which one.
        name: of an LLMDeployment in the namespace, which then is looked at as well.

    Raises:
        AccessError: the cluster does not answer, or has no such LLMDeployment.
    """
    raw = None if name is None else cluster.get(name)[0]
    installation = Installation(Api(), cluster.namespace, cluster.commands)
    for check, look in (*CHECKS, *(() if raw is None else _of_one(raw))):
        try:
            yield from look(installation)
        except UnknownError as error:
            yield unknown(check, error)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 = all that was looked for is there."""
    states = {each.state for each in findings}
    if State.MISSING in states:
        return EXIT_MISSING
    return EXIT_UNKNOWN if State.UNKNOWN in states else 0


def _of_one(raw: JSON) -> Iterator[tuple[str, Check]]:
    """The checks of one LLMDeployment."""
    namespace = raw["metadata"]["namespace"]
    yield "served", lambda installation: check_served(installation, namespace)
    yield "seen", lambda installation: check_seen(installation, raw)
    yield "routers", lambda _: check_routers(raw)
