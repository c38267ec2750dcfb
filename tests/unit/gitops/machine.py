"""Argo CD's Lua machine as closely as Lua 5.1 can play it.

Argo CD 3.1 opens Lua's base and table libraries and lets scripts ``require("os")`` for time and
date alone; there is no string library, so not even ``("x"):upper()``. JSON null is nil, and an
empty table that comes back is an empty list unless the object had a map in that place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hack.argocd.customizations import FOLDER
from lupa import lua51

JSON = dict[str, Any]
_ABSENT = (
    "string", "io", "os", "math", "debug", "coroutine", "bit", "package", "module", "python",
)  # fmt: skip


class Machine:
    """Runs the scripts of argocd/resource_customizations."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def health(self, body: JSON) -> JSON:
        """What health.lua says of an object."""
        found = self._run("health.lua", body)
        assert isinstance(found, dict), found
        return found

    def enabled(self, body: JSON) -> set[str]:
        """The names of the actions that discovery.lua offers."""
        found: dict[str, JSON] = self._run("actions/discovery.lua", body)
        assert found.keys() == action_names(self._folder)
        return {name for name, action in found.items() if not action["disabled"]}

    def act(self, name: str, body: JSON) -> JSON:
        """The object as an action leaves it.

        Raises:
            lua51.LuaError: the script refuses; the text is what a person is shown.
        """
        found = self._run(f"actions/{name}/action.lua", body)
        assert isinstance(found, dict), found
        return found

    def _run(self, script: str, body: JSON) -> Any:
        lua = lua51.LuaRuntime(register_eval=False, unpack_returned_tuples=True)
        lua.execute('getmetatable("").__index = nil')
        names = lua.globals()
        names["obj"] = _to_lua(lua, body)
        for absent in _ABSENT:
            names[absent] = None
        return _from_lua(lua.execute((self._folder / script).read_text()), body)


def action_names(folder: Path = FOLDER) -> set[str]:
    """The actions that have a script."""
    return {path.parent.name for path in folder.glob("actions/*/action.lua")}


def _to_lua(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to_lua(lua, each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return lua.table_from([_to_lua(lua, each) for each in value])
    return value


def _from_lua(value: Any, original: Any) -> Any:
    if lua51.lua_type(value) != "table":
        return value
    keys = list(value.keys())
    if not keys:
        return {} if isinstance(original, dict) else []
    if all(isinstance(key, int) for key in keys):
        before = original if isinstance(original, list) else []
        padded = [*before, *[None] * len(keys)]
        return [_from_lua(value[key], padded[key - 1]) for key in sorted(keys)]
    old = original if isinstance(original, dict) else {}
    return {key: _from_lua(value[key], old.get(key)) for key in keys}
