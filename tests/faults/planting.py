"""How a bug is planted into the operator under test, and which plans should show it.

Each is a mistake that somebody could make, put in by replacing one function of the operator in the
process that the campaign starts. Production code knows nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from llmfleet.planning.children.engines import ENGINES, VLLM
from tests.faults.faults import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A mistake that can be planted, and the plans that are tried first.

    Attributes:
        patch: plants it.
        kinds: of faults; empty when most would show it.
        workloads: by name; empty when most would show it.
        places: what the struck call, or the kind whose watch is struck, contains one of.
    """

    patch: Callable[[], None]
    kinds: frozenset[Kind]
    workloads: frozenset[str]
    places: tuple[str, ...]

    def rank(self, kind: Kind, workload: str, place: str) -> int:
        """Order of a plan: 0 is all that the bug names, 1 its kind of fault only, 2 the rest."""
        fits = not self.kinds or kind in self.kinds
        there = not self.workloads or workload in self.workloads
        there &= not self.places or any(each in place for each in self.places)
        return 0 if fits and there else 1 if fits else 2


BUGS: dict[str, Bug] = {}


def bug(
    *kinds: Kind, workloads: Collection[str] = (), places: Collection[str] = ()
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a bug under its function's name."""

    def register(patch: Callable[[], None]) -> Callable[[], None]:
        BUGS[patch.__name__.replace("_", "-")] = Bug(
            patch=patch,
            kinds=frozenset(kinds),
            workloads=frozenset(workloads),
            places=tuple(places),
        )
        return patch

    return register


def plant(name: str) -> None:
    """Put a bug into this process.

    Raises:
        KeyError: there is none of that name.
    """
    BUGS[name].patch()


def plant_next_build() -> None:
    """Make this process another build of the operator: it renders engine pods differently."""
    render = VLLM.pod_template

    def other(*arguments: Any) -> Any:
        template = render(*arguments)
        containers = template["spec"]["containers"]
        containers[0]["env"] = [*containers[0]["env"], {"name": "NEXT_BUILD", "value": "yes"}]
        return template

    if os.environ.get("LLMFLEET_TEST_NEXT_BUILD"):
        ENGINES[VLLM.name] = replace(VLLM, pod_template=other)


def swap(target: Any, name: str, value: Any) -> None:
    """Replace one function."""
    getattr(target, name)  # a bug in what is not there any more would be none
    setattr(target, name, value)
