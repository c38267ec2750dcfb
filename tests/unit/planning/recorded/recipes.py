"""How states are made: a recipe drives November's modelled cluster to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from tests.unit.planning.fleet import Fleet, counted

Continuation = Sequence[Sequence[Any]]
Make = Callable[[], Fleet]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One state and what follows."""

    about: str
    """What the state is, and what then happens, in a sentence."""
    make: Make
    then: Continuation
    """What is done from there on (see ``playing``)."""
    changed_by: str | None
    """The fault by which November went on wrongly, and what is right."""


@dataclass(frozen=True)
class Recipes:
    """The recipes of one module, by the name of their file."""

    found: dict[str, Recipe] = field(default_factory=dict)

    def state(
        self, about: str, then: Continuation = (), *, changed_by: str | None = None
    ) -> Callable[[Make], Make]:
        """Register a function that makes a state; the file has its name."""

        def register(make: Make) -> Make:
            name = make.__name__.replace("_", "-")
            assert name not in self.found, f"two states are called {name}"
            self.found[name] = Recipe(about=about, make=make, then=then, changed_by=changed_by)
            return make

        return register


def decided(world: Fleet, reached: Callable[[], bool], turns: int = 80) -> Fleet:
    """Turn until a decision brings it about, which nobody has acted on yet."""
    for _ in range(turns):
        world.reconcile()
        if reached():
            return world
        world.kubelet()
        world.routers()
        world.wait(1)
    raise AssertionError(f"never there: {world.status()['message']}")


def count(world: Fleet, counts: dict[str, tuple[int, int]], *, age_seconds: float = 0) -> Fleet:
    """Revision hash → requests, and failures among them, as of now or of a while ago."""
    world.requests = {name: counted(*each) for name, each in counts.items()}
    world.requests_as_of = world.now - timedelta(seconds=age_seconds) if age_seconds else None
    return world


def restarted(world: Fleet, revision: str, times: int) -> Fleet:
    """All present pods of a revision have ended so often, and are well now."""
    world.pods = {
        name: replace(pod, restarts=times) if pod.revision == revision else pod
        for name, pod in world.pods.items()
    }
    return world
