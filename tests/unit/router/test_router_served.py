"""What an agent reads back of the files that another one wrote, wherever that one was killed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmfleet_router import served, xds
from llmfleet_router.files import write_by_rename
from llmfleet_router.model import Command, Desired, Endpoint, command_as_json, command_from_json
from llmfleet_router.routing import Routing
from llmfleet_router.served import Served, read_served
from llmfleet_router.settings import Settings
from llmfleet_router.updates import Applied, Clusters, Step, after, next_step
from llmfleet_router.xds import XdsFiles
from tests.unit.router.strategies import desireds

ALL = Clusters(
    revisions=frozenset("abcdef") | {"5d41c0ffee", "7c9f000001"}, mirrors=frozenset("abcdef")
)


class KilledError(Exception):
    """The agent that was writing is gone."""


def _settings(directory: str | Path) -> Settings:
    return Settings(namespace="team-a", name="chat", xds_dir=Path(directory))


def _steps(applied: Applied, desired: Desired) -> Iterator[tuple[Step, Applied]]:
    """Each step with what was applied before it, as if Envoy confirmed all."""
    for _ in range(100):
        step = next_step(applied, desired, ALL)
        if step is None:
            return
        yield step, applied
        applied = after(applied, step)
    raise AssertionError("it never ends")


def _begin(where: Settings) -> XdsFiles:
    files = XdsFiles(where)
    files.write_initial()
    return files


def _read(where: Settings) -> Served:
    found = read_served(where)
    assert found is not None
    return found


POD = (Endpoint(address="10.0.0.1", port=8000),)
PREVIEWED = Desired(
    command=Command(generation=1, weights=(("a", 100),), routing=Routing(preview="b")),
    endpoints={"a": POD, "b": POD},
)
NEXT = dataclasses.replace(
    PREVIEWED, command=Command(generation=2, weights=(("b", 100),), routing=Routing(preview="b"))
)


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(first=desireds, second=desireds)
@example(first=PREVIEWED, second=NEXT)
def test_served_when_read_back_after_any_step_then_it_is_what_was_applied(
    first: Desired, second: Desired
) -> None:
    with TemporaryDirectory() as directory:
        where = _settings(directory)
        files, applied = _begin(where), Applied()
        assert _read(where).applied == applied
        for desired in (first, second):
            for step, before in _steps(applied, desired):
                proof = files.write(step, before)
                applied = after(before, step)
                found = _read(where)
                assert found.applied == applied
                assert proof.items() <= found.proof.items()
            assert found.command == desired.command
            assert next_step(found.applied, found.desired, Clusters()) is None


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(first=desireds, second=desireds, files_written=st.integers(0, 8))
def test_served_when_the_agent_was_killed_between_two_files_then_nothing_is_made_up(
    first: Desired, second: Desired, files_written: int
) -> None:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        where = _settings(directory)
        files, applied = _begin(where), Applied()
        for step, before in _steps(applied, first):
            files.write(step, before)
            applied = after(before, step)
        left = itertools.count(files_written, -1)

        def write(path: Path, content: Any) -> None:
            if not next(left):
                raise KilledError
            write_by_rename(path, content)

        patch.setattr(xds, "write_by_rename", write)
        last: Step | None = None
        try:
            for step, before in _steps(applied, second):
                last, applied = step, before
                files.write(step, before)
                last, applied = None, after(before, step)
        except KilledError:
            pass
        patch.setattr(xds, "write_by_rename", write_by_rename)
        found = _read(where)
        ends = applied if last is None else after(applied, last)
        assert found.applied.endpoints.keys() in (applied.endpoints.keys(), ends.endpoints.keys())
        assert found.applied.mirrors in (applied.mirrors, ends.mirrors)
        assert found.applied.routes in (applied.routes, ends.routes, None)
        assert found.command in (first.command, second.command, None)
        # The next agent's first files change nothing, and it gets where this one was going.
        content = {path.name: path.read_bytes() for path in where.xds_dir.iterdir()}
        again = _begin(where)
        assert content == {path.name: path.read_bytes() for path in where.xds_dir.iterdir()}
        applied = found.applied
        for step, before in _steps(applied, second):
            again.write(step, before)
            applied = after(before, step)
        assert _read(where).applied == applied
        assert applied.routes is not None
        assert applied.routes.command == second.command


def test_served_when_another_version_would_write_the_table_otherwise_then_it_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = _settings(tmp_path)
    files = _begin(where)
    command = Command(generation=3, weights=(("a", 100),), object_uid="c0")
    desired = Desired(command=command, endpoints={"a": (Endpoint(address="10.0.0.1", port=1),)})
    for step, before in _steps(Applied(), desired):
        files.write(step, before)
    table = served.routes.build_preview_table
    monkeypatch.setattr(
        served.routes, "build_preview_table", lambda *of: {**table(*of), "most_specific": True}
    )
    found = _read(where)
    assert found.command == command
    assert found.applied.routes is None
    steps = list(_steps(found.applied, found.desired))
    assert [type(step).__name__ for step, _ in steps] == ["SetRoutes"]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"version_info": "1", "resources": [1]}'])
@pytest.mark.parametrize("name", ["cds.json", "rds.json"])
def test_served_when_a_file_is_damaged_then_it_is_left_and_not_believed(
    tmp_path: Path, name: str, damage: str
) -> None:
    where = _settings(tmp_path)
    _begin(where)
    (tmp_path / name).write_text(damage)
    assert read_served(where) is None
    _begin(where)
    assert (tmp_path / name).read_text() == damage


def test_versions_when_two_agents_write_then_they_never_meet(tmp_path: Path) -> None:
    """What Envoy still shows of the one before must not prove what this one has written."""
    where = _settings(tmp_path)
    first, second = _begin(where), XdsFiles(where)
    found = _read(where)
    shown = {first.write_again(found)["cluster_manager.cds.version_text"] for _ in range(5)}
    shown |= {second.write_again(found)["cluster_manager.cds.version_text"] for _ in range(5)}
    assert len(shown) == 10
    assert _read(where).proof["cluster_manager.cds.version_text"] in shown


@pytest.mark.long
@given(desired=desireds, uid=st.none() | st.text())
def test_command_when_written_then_it_is_read_back(desired: Desired, uid: str | None) -> None:
    assert desired.command is not None
    command = dataclasses.replace(desired.command, object_uid=uid)
    assert command_from_json(json.loads(json.dumps(command_as_json(command)))) == command
