"""Which of Envoy's stats prove a step: without all of them it is not confirmed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from llmfleet_router.model import Command, Endpoint, build_routes
from llmfleet_router.routing import Mirror, Routing
from llmfleet_router.settings import Settings
from llmfleet_router.updates import (
    AddClusters,
    Applied,
    Clusters,
    RemoveClusters,
    SetEndpoints,
    SetRoutes,
)
from llmfleet_router.xds import XdsFiles

A = (Endpoint(address="10.0.0.1", port=8000),)
MIRRORED = Applied(endpoints={"a": A, "b": A}, mirrors=frozenset("b"))
COMMAND = Command(
    generation=1, weights=(("a", 100),), routing=Routing(mirror=Mirror(revision="b", percent=5))
)
ROUTES = build_routes(COMMAND, {"a", "b"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(namespace="team-a", name="chat", xds_dir=tmp_path)


def names(directory: Path) -> list[str]:
    content: Any = json.loads((directory / "cds.json").read_text())
    return [cluster["name"] for cluster in content["resources"]]


STEPS = {
    "routes": (SetRoutes(routes=ROUTES), {
        "http.public.rds.llmfleet.version_text", "http.preview.rds.llmfleet-preview.version_text",
    }),
    "endpoints": (SetEndpoints(revision="a", endpoints=()), {"cluster.rev-a.version_text"}),
    "endpoints of a mirror": (
        SetEndpoints(revision="b", endpoints=()),
        {"cluster.rev-b.version_text", "cluster.mirror-b.version_text"},
    ),
    "clusters": (AddClusters(endpoints={"c": A}, mirrors=frozenset("c")), {
        "cluster.rev-c.version_text", "cluster.mirror-c.version_text",
        "cluster_manager.cds.version_text", "cluster_manager.warming_clusters",
    }),
    "a mirror": (AddClusters(endpoints={}, mirrors=frozenset("a")), {
        "cluster_manager.cds.version_text", "cluster_manager.warming_clusters",
    }),
    "removal": (
        RemoveClusters(clusters=Clusters(mirrors=frozenset("b"))),
        {"cluster_manager.cds.version_text"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("step", "proof"), STEPS.values(), ids=STEPS.keys())
def test_step_when_written_then_every_file_has_to_be_shown(
    settings: Settings, step: Any, proof: set[str]
) -> None:
    assert set(XdsFiles(settings).write(step, MIRRORED)) == proof


def test_clusters_when_a_mirror_is_removed_then_only_it(settings: Settings) -> None:
    files = XdsFiles(settings)
    files.write(AddClusters(endpoints={"b": A}, mirrors=frozenset("b")), Applied(endpoints={}))
    assert names(settings.xds_dir) == ["rev-b", "mirror-b"]
    files.write(RemoveClusters(clusters=Clusters(mirrors=frozenset("b"))), MIRRORED)
    assert names(settings.xds_dir) == ["rev-a", "rev-b", "arm-a_b", "arm-b_a"]


PUBLIC = "http.public.rds.llmfleet.version_text"
PREVIEW = "http.preview.rds.llmfleet-preview.version_text"


def test_file_when_written_again_then_its_version_is_another(settings: Settings) -> None:
    files = XdsFiles(settings)
    first, second = (files.write(SetRoutes(routes=ROUTES), MIRRORED) for _ in range(2))
    assert first[PUBLIC] != second[PUBLIC]
    assert first[PREVIEW] != second[PREVIEW], "the first one was never confirmed"


def test_preview_when_confirmed_and_the_same_then_its_file_stays_and_still_counts(
    settings: Settings,
) -> None:
    files = XdsFiles(settings)
    file = settings.xds_dir / "rds-preview.json"
    first = files.write(SetRoutes(routes=ROUTES), MIRRORED)
    inode = file.stat().st_ino
    confirmed = dataclasses.replace(MIRRORED, routes=ROUTES)
    next_one = build_routes(dataclasses.replace(COMMAND, generation=2), {"a", "b"})
    second = files.write(SetRoutes(routes=next_one), confirmed)
    assert (second[PREVIEW], file.stat().st_ino) == (first[PREVIEW], inode)
    assert second[PUBLIC] != first[PUBLIC]
    with_preview = dataclasses.replace(next_one, routing=Routing(preview="b"))
    third = files.write(SetRoutes(routes=with_preview), confirmed)
    assert third[PREVIEW] != first[PREVIEW]
    # It was not confirmed, so the file that is there is not what Envoy is known to have.
    back = files.write(SetRoutes(routes=next_one), confirmed)
    assert back[PREVIEW] not in (first[PREVIEW], third[PREVIEW])
    assert "rev-b" not in file.read_text()
