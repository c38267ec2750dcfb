"""A list of distinct random cases, the same at every run with the same seed."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.xds.cases import Case, cases


def draw_cases(count: int, number: int = 0) -> list[Case]:
    """``count`` cases from the seed ``number``."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found
