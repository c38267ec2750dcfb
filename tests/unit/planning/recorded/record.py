"""Record the states with the code of November 2026.

November's operator and its modelled cluster are those of commit f870efa. Check it out beside this
tree and let it be found first; of this tree only this folder is used::

    git worktree add ../november f870efa
    PYTHONPATH=../november/operator:../november/runtime:../november \
        python tests/unit/planning/recorded/record.py

Writes ``states/``, ``foreign/`` and ``bodies.json``, the same whenever it runs. Where a fault
changed the end, a file that is there keeps its ``end``, which November cannot tell; all keep their
``open``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tests.unit.planning

# November has no such folder; everything else of the package is November's.
tests.unit.planning.__path__.append(str(Path(__file__).parent.parent))

from tests.unit.planning.fleet import hash_of, resource  # noqa: E402
from tests.unit.planning.recorded import back, faults, foreign, forward, switching  # noqa: E402
from tests.unit.planning.recorded.plain import (  # noqa: E402
    BODIES,
    FOREIGN,
    JSON,
    STATES,
    dump,
    load,
    written,
)
from tests.unit.planning.recorded.playing import Play  # noqa: E402
from tests.unit.planning.recorded.recipes import Recipe  # noqa: E402
from tests.unit.planning.test_convergence import model  # noqa: E402

RECIPES = {
    name: recipe
    for module in (forward, switching, back, faults)
    for name, recipe in module.RECIPES.found.items()
}
NAMES = {word: hash_of(resource(model=model(word))) for word in ("one", "two", "three")}
OPEN = "the right end is to be written down"


def main() -> int:
    """Record all; the exit status is 1 when November went wrong where no fault is named."""
    bodies: dict[str, JSON] = {}
    wrong = 0
    for name, recipe in RECIPES.items():
        body, faults_found = record_state(recipe, bodies)
        wrong += write_state(name, recipe, body, faults_found)
    for name, forgery in foreign.FORGERIES.items():
        path = FOREIGN / f"{name}.json"
        body = {"about": forgery.about, "expected": foreign.EXPECTED, "word": forgery.word}
        write(path, {**body, **kept(path, "open"), "fleet": dump(foreign.forge(name), bodies)})
    write(BODIES, dict(sorted(bodies.items())), depth=1)
    known = {*RECIPES, *foreign.FORGERIES}
    for path in (*STATES.glob("*.json"), *FOREIGN.glob("*.json")):
        if path.stem not in known:
            path.unlink()
    return min(wrong, 1)


def record_state(recipe: Recipe, bodies: dict[str, JSON]) -> tuple[JSON, list[str]]:
    """One file's content, November's end in it, and what must never have happened on the way."""
    fleet = dump(recipe.make(), bodies)
    play = Play(load(fleet, bodies), NAMES)
    if dump(play.world, bodies) != fleet:
        raise ValueError(f"{recipe.make.__name__} is not the same when read back")
    try:
        play.go_on(recipe.then)
        end = play.end()
    except AssertionError as error:  # the modelled cluster refused what was decided
        end = {"refused": str(error).partition("\n")[0]}
    body = {"about": recipe.about, "names": NAMES, "fleet": fleet, "continue": recipe.then}
    stops = {"stops": play.stops} if play.stops and recipe.changed_by is None else {}
    return {**body, **stops, "end": end}, play.faults


def write_state(name: str, recipe: Recipe, body: JSON, found: list[str]) -> int:
    """Write one file; 1 when something is wrong with it that no fault explains."""
    path = STATES / f"{name}.json"
    undeclared = recipe.changed_by is None and bool(found or "refused" in body["end"])
    if recipe.changed_by is not None:
        november = {**body.pop("end"), **({"faults": found} if found else {})}
        body = {
            "about": body.pop("about"),
            "changed_by": recipe.changed_by,
            **(kept(path, "open") if path.exists() else {"open": OPEN}),
            **body,
            "november_end": november,
            **(kept(path, "end") or {"end": {}}),
        }
    write(path, body)
    end = body["november_end" if recipe.changed_by else "end"]
    told = "WRONG" if undeclared else recipe.changed_by or ""
    print(f"{name:45} {end.get('phase', 'refused'):12} {told}")  # noqa: T201 - a command
    for fault in found if undeclared else ():
        print(f"    {fault}")  # noqa: T201
    return int(undeclared)


def kept(path: Path, key: str) -> JSON:
    """What a file that is there says under a key."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {key: found[key]} if key in found else {}


def write(path: Path, body: JSON, depth: int = 4) -> None:
    """Write a file, with its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(written(body, depth) + "\n")


if __name__ == "__main__":
    sys.exit(main())
