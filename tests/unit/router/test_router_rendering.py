"""Rendered configuration: golden files, and Envoy's own validation of random ones.

Refresh the golden files with ``LLMFLEET_UPDATE_GOLDEN=1 pytest tests/unit/router``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hack import native
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmfleet_router import resources, routes
from llmfleet_router.bootstrap import build_bootstrap
from llmfleet_router.envoy import find_envoy
from llmfleet_router.files import write_by_rename
from llmfleet_router.model import Command, Desired, Endpoint, build_routes
from llmfleet_router.routing import HeaderMatch, HeaderRoute, Mirror, Routing
from llmfleet_router.settings import AccessLog, Policy, Settings
from llmfleet_router.store import Store
from tests.unit.router.strategies import desireds

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = Settings(namespace="team-a", name="chat", pod_name="chat-router-1")
ROUTING = Routing(
    header_route=HeaderRoute(
        revision="7c9f000001",
        headers=(
            HeaderMatch(name="x-tester", kind="exact", value="1"),
            HeaderMatch(name="user-agent", kind="prefix", value="probe/"),
        ),
    ),
    mirror=Mirror(revision="7c9f000001", percent=5),
    preview="7c9f000001",
    sticky=True,
)
COMMAND = Command(generation=17, weights=(("5d41c0ffee", 75), ("7c9f000001", 25)))


def _golden(name: str, content: Any) -> None:
    text = json.dumps(content, indent=1) + "\n"
    path = GOLDEN / name
    if os.environ.get("LLMFLEET_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_bootstrap_when_rendered_then_golden() -> None:
    _golden("bootstrap.json", build_bootstrap(SETTINGS, "s3cr%t"))


@pytest.mark.parametrize("policy", list(Policy))
def test_cluster_when_rendered_then_golden(policy: Policy) -> None:
    chosen = dataclasses.replace(SETTINGS, policy=policy)
    _golden(f"cluster-{policy}.json", resources.build_cluster("5d41c0ffee", chosen))


def test_routes_when_rendered_then_golden() -> None:
    served = build_routes(COMMAND, {"5d41c0ffee", "7c9f000001"})
    _golden("routes.json", routes.build_public_table(served, SETTINGS))


def test_routing_when_rendered_then_golden() -> None:
    command = dataclasses.replace(COMMAND, routing=ROUTING)
    served = build_routes(command, {"5d41c0ffee", "7c9f000001"})
    _golden("routes-routing.json", routes.build_public_table(served, SETTINGS))
    _golden("routes-preview.json", routes.build_preview_table(served, SETTINGS))
    _golden("cluster-mirror.json", resources.build_mirror("7c9f000001", SETTINGS))


def test_token_when_absent_then_the_module_is_told_none() -> None:
    assert "\\ntoken " not in json.dumps(build_bootstrap(SETTINGS, None))
    assert "\\ntoken " in json.dumps(build_bootstrap(SETTINGS, "secret"))


def _write(directory: Path, desired: Desired, chosen: Settings, token: str | None) -> None:
    """Everything Envoy would be given for this wish."""
    assert desired.command is not None
    revisions = desired.command.revisions
    served = build_routes(desired.command, {r for r in revisions if desired.endpoints.get(r)})
    clusters = resources.build_clusters(revisions, desired.command.routing.mirrors, chosen)
    files = {
        "bootstrap.json": build_bootstrap(chosen, token),
        "cds.json": resources.discovery(resources.CLUSTER_TYPE, "1", clusters),
        "rds.json": resources.discovery(
            routes.ROUTE_TYPE, "1", [routes.build_public_table(served, chosen)]
        ),
        "rds-preview.json": resources.discovery(
            routes.ROUTE_TYPE, "1", [routes.build_preview_table(served, chosen)]
        ),
    }
    for revision in revisions:
        assignment = resources.build_endpoints(revision, desired.endpoints.get(revision, ()))
        path = resources.endpoints_file(directory, revision)
        write_by_rename(path, resources.discovery(resources.ENDPOINT_TYPE, "1", [assignment]))
    for name, content in files.items():
        write_by_rename(directory / name, content)


def _static(directory: Path) -> Path:
    """One file with clusters and routes inlined: Envoy's validation does not read xDS files."""
    bootstrap = json.loads((directory / "bootstrap.json").read_text())
    clusters = json.loads((directory / "cds.json").read_text())["resources"]
    for cluster in clusters:
        if cluster["name"].startswith("arm-"):  # of others, so without endpoints
            del cluster["@type"]
            continue
        revision = cluster["name"].removeprefix("rev-").removeprefix("mirror-")
        eds = json.loads(resources.endpoints_file(directory, revision).read_text())
        (assignment,) = eds["resources"]
        del assignment["@type"], cluster["@type"], cluster["eds_cluster_config"]
        cluster |= {"type": "STATIC", "load_assignment": assignment}
    bootstrap.pop("dynamic_resources")
    bootstrap["static_resources"]["clusters"] = clusters
    for listener in bootstrap["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        source = manager.pop("rds")["config_source"]["path_config_source"]["path"]
        (table,) = json.loads(Path(source).read_text())["resources"]
        del table["@type"]
        manager["route_config"] = table | {"validate_clusters": True}
    path = directory / "static.json"
    path.write_text(json.dumps(bootstrap))
    return path


@given(
    desired=desireds,
    policy=st.sampled_from(Policy),
    access_log=st.sampled_from(AccessLog),
    token=st.none() | st.text("abcXYZ09%-_=+/", min_size=1, max_size=40),
    prefix_bytes=st.integers(1, 65536),
    body_limit_bytes=st.integers(1024, 1 << 30),
)
@settings(
    max_examples=int(os.environ.get("LLMFLEET_VALIDATE_EXAMPLES", "12")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_configuration_when_rendered_from_any_valid_input_then_envoy_accepts_it(
    tmp_path: Path, desired: Desired, token: str | None, **chosen: Any
) -> None:
    settings_ = dataclasses.replace(
        SETTINGS, xds_dir=tmp_path, module_file=native.module_file(), **chosen
    )
    _write(tmp_path, desired, settings_, token)
    command = [find_envoy(), "--mode", "validate", "-l", "error", "-c", str(_static(tmp_path))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr + result.stdout


def test_file_when_written_then_by_rename_and_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "rds.json"
    write_by_rename(path, {"a": 1})
    first = path.stat()
    write_by_rename(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert path.stat().st_ino != first.st_ino
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["rds.json"]


async def test_store_when_nothing_changes_then_nobody_is_woken() -> None:
    store = Store()
    endpoint = Endpoint(address="10.0.0.1", port=8000)
    store.set_endpoints({"a": (endpoint,)})
    await store.wait(1)
    store.set_endpoints({"a": (endpoint, endpoint), "b": ()})
    waiting = asyncio.create_task(store.wait(None))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    store.set_endpoints({})
    await asyncio.wait_for(waiting, 1)
