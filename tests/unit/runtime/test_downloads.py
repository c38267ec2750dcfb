"""Downloads that break off go on, and how far they are is measured on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmfleet.cluster.inspecting import read_download
from llmfleet_runtime.config import Weights
from llmfleet_runtime.downloads import DownloadMeter, bytes_below
from llmfleet_runtime.errors import Failure
from llmfleet_runtime.sources import RETRY_SECONDS, cache_folder, fetch

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ERRORS = (
    "GatedRepoError", "RevisionNotFoundError", "RepositoryNotFoundError", "HfHubHTTPError",
    "HFValidationError",
)  # fmt: skip


class Hub:
    """The hub's client, played: each call to download does the next thing that was asked for."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.script: list[Callable[[], None]] = []
        self.calls = 0
        self.size: int | None = 100

    def snapshot_download(self, *_: object, **__: object) -> str:
        self.calls += 1
        self.script.pop(0)()
        model = self.cache / "snapshot"
        model.mkdir(parents=True, exist_ok=True)
        (model / "config.json").write_text("{}")
        return str(model)

    def model_info(self, *_: object, **__: object) -> object:
        if self.size is None:
            raise OSError("the hub does not say")
        files = [("model.safetensors", self.size), ("original/consolidated.pth", 10**6)]
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files]
        )

    def put(self, count: int) -> None:
        """So many bytes are there now."""
        blobs = self.cache / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / "file.incomplete").write_bytes(b"x" * count)

    def breaks_off(self, count: int) -> Callable[[], None]:
        def act() -> None:
            self.put(count)
            raise OSError("connection reset")

        return act


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HF_HOME": str(tmp_path)}


@pytest.fixture
def hub(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Hub:
    played = Hub(cache_folder(environment))
    errors = ModuleType("huggingface_hub.errors")
    for name in ERRORS:
        setattr(errors, name, type(name, (Exception,), {"response": None}))
    module: Any = ModuleType("huggingface_hub")
    module.errors, module.snapshot_download = errors, played.snapshot_download
    module.HfApi = lambda: played
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return played


def run(
    environment: dict[str, str], slept: list[float], meter: DownloadMeter | None = None
) -> Path:
    weights = Weights(source="hf://org/name", revision="0e9e39f")
    return fetch(
        weights, models_root=Path("/none"), environment=environment, meter=meter,
        sleep=slept.append,
    )  # fmt: skip


def test_download_when_it_breaks_off_then_it_goes_on_in_the_same_container(
    hub: Hub, environment: dict[str, str]
) -> None:
    slept: list[float] = []
    hub.script = [hub.breaks_off(4096 * n) for n in range(1, 9)] + [lambda: None]
    assert run(environment, slept) == hub.cache / "snapshot"
    assert slept == [RETRY_SECONDS[0]] * 8, "bytes came each time"


def test_download_when_nothing_comes_then_it_is_tried_a_few_times_and_told(
    hub: Hub, environment: dict[str, str]
) -> None:
    slept: list[float] = []
    hub.script = [hub.breaks_off(4096) for _ in range(9)]
    with pytest.raises(Failure) as raised:
        run(environment, slept)
    assert (raised.value.reason, raised.value.retriable) == ("DownloadFailed", True)
    assert slept == [*RETRY_SECONDS]


def test_download_when_a_file_begins_anew_each_time_then_that_is_no_progress(
    hub: Hub, environment: dict[str, str]
) -> None:
    slept: list[float] = []
    hub.script = [hub.breaks_off(4096 * (9 - n)) for n in range(9)]
    with pytest.raises(Failure):
        run(environment, slept)
    assert slept == [*RETRY_SECONDS]


def test_download_when_it_is_refused_then_it_is_not_tried_again(
    hub: Hub, environment: dict[str, str]
) -> None:
    def gated() -> None:
        raise sys.modules["huggingface_hub.errors"].GatedRepoError("no")

    slept: list[float] = []
    hub.script = [gated]
    with pytest.raises(Failure) as raised:
        run(environment, slept)
    assert raised.value.reason == "Unauthorized"
    assert (hub.calls, slept) == (1, [])


@pytest.mark.parametrize(("size", "total"), [(8192, 8192), (None, None)])
def test_meter_when_bytes_come_then_the_operator_reads_how_many_of_what_and_since_when(
    hub: Hub, environment: dict[str, str], size: int | None, total: int | None
) -> None:
    clock = [1000.0]
    meter = DownloadMeter(hub.cache, clock=lambda: clock[0])
    assert meter.report() is None
    assert read_download({"phase": "Loading", "engine": "Up"}, NOW) is None

    def comes() -> None:
        hub.put(4096)
        clock[0] += 60
        meter.sample()
        clock[0] += 90

    hub.size, hub.script = size, [comes]
    run(environment, [], meter)
    (hub.cache / "snapshot" / "config.json").unlink()
    told = {"phase": "Fetching", "engine": "Unreachable", "download": meter.report()}
    found = read_download(told, NOW)
    assert found is not None
    assert (found.bytes_done, found.bytes_total) == (4096, total)
    assert found.moved_at == NOW - timedelta(seconds=90)
    assert not found.ended
    ended = read_download({**told, "phase": "Loading"}, NOW)
    assert ended is not None
    assert ended.ended


def test_bytes_when_files_are_holes_or_links_then_only_what_is_there_counts(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    with (tmp_path / "hole").open("wb") as hole:
        os.truncate(hole.fileno(), 10**9)
    assert bytes_below(tmp_path) == 5000
    assert bytes_below(tmp_path / "absent") == 0


MALFORMED: list[Any] = [
    {"bytes": -1, "totalBytes": 1, "idleSeconds": 0},
    {"bytes": 1 << 63, "totalBytes": 1, "idleSeconds": 0},
    {"bytes": 1, "totalBytes": "many", "idleSeconds": 0},
    {"bytes": True, "totalBytes": None, "idleSeconds": 0},
    {"bytes": 1, "totalBytes": None, "idleSeconds": float("nan")},
    {"bytes": 1, "totalBytes": None, "idleSeconds": -5},
    {"bytes": 1},
    [],
]


@pytest.mark.parametrize("said", MALFORMED, ids=str)
def test_answer_when_it_is_malformed_then_it_is_refused(said: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_download({"phase": "Fetching", "download": said}, NOW)
