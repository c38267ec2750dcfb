"""The configuration file, and the sources it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfleet_runtime.config import Weights, load_config
from llmfleet_runtime.errors import ExitCode, Failure, Reason
from llmfleet_runtime.machine import (
    Device,
    detect_device,
    has_cxx_compiler,
    memory_limit_bytes,
    oom_kills,
)
from llmfleet_runtime.sources import fetch

CONTRACT = {
    "schema": 1,
    "deployment": "chat",
    "namespace": "team-a",
    "revision": "5d41c0ffee",
    "model": {
        "source": "pvc://models/tiny-llama",
        "servedName": "tiny",
        "aliases": [],
        "revision": None,
    },
    "engine": {},
    "accelerator": {"resource": "nvidia.com/gpu", "count": 1},
    "drainTimeoutSeconds": 300,
}


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "runtime.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_config_when_as_in_the_contract_then_read_without_unknown_keys(tmp_path: Path) -> None:
    config, unknown = load_config(written(tmp_path, CONTRACT))
    assert (config.revision, config.model.names, config.drain_timeout_seconds) == (
        "5d41c0ffee",
        ("tiny",),
        300,
    )
    assert unknown == ()


def test_config_when_operator_renders_every_field_then_all_are_known(tmp_path: Path) -> None:
    from llmfleet.api.engine import EngineSpec  # noqa: PLC0415

    engine = EngineSpec.model_validate(
        {
            "kvCache": {
                "blockSize": 32,
                "gpuMemoryUtilization": 0.5,
                "prefixCaching": True,
                "offloadGiB": 2,
            },
            "speculativeDecoding": {"method": "draft", "draftModel": {"source": "pvc://c/d"}},
            "chatTemplate": {"configMapRef": {"name": "t"}},
            "lora": {"adapters": [{"name": "a", "source": "pvc://c/a"}]},
            "toolCallParser": "hermes",
            "reasoningParser": "qwen3",
            "media": {"allowedDomains": ["a.example", "b!private"]},
            "maxModelLen": 10,
            "maxNumSeqs": 1,
            "chunkedPrefill": True,
            "extraArgs": ["--seed=1"],
        }
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
    config, unknown = load_config(written(tmp_path, {**CONTRACT, "engine": engine}))
    assert unknown == ()
    assert config.engine.kv_cache.offload_gib == 2
    assert config.engine.kv_cache.block_size == 32


def test_config_when_newer_keys_then_ignored_and_named(tmp_path: Path) -> None:
    engine = {"warp": 9, "kvCache": {"colour": "red"}}
    _, unknown = load_config(written(tmp_path, {**CONTRACT, "engine": engine, "later": 1}))
    assert set(unknown) == {"engine.warp", "engine.kvCache.colour", "later"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("{", "is not JSON", id="broken"),
        pytest.param("[]", "must hold a JSON object", id="no-object"),
        pytest.param({**CONTRACT, "schema": 2}, "has schema 2, this runtime knows 1", id="newer"),
        pytest.param({"schema": 1, "revision": "r"}, "model: Field required", id="missing"),
        pytest.param({**CONTRACT, "engine": {"maxNumSeqs": 0}}, "engine.maxNumSeqs", id="range"),
        *(
            pytest.param(
                {**CONTRACT, "engine": {"media": {"allowedDomains": [host]}}},
                "engine.media.allowedDomains.0",
                id=f"media-host-{host}",
            )
            for host in ("--model=x", "10.0.0.1", "a.example:80", "https://a.example", "A.example")
        ),
    ],
)
def test_config_when_unusable_then_bad_config_and_code_2(
    tmp_path: Path, content: object, sentence: str
) -> None:
    with pytest.raises(Failure) as caught:
        load_config(written(tmp_path, content))
    assert (caught.value.reason, caught.value.exit_code) == (Reason.BAD_CONFIG, ExitCode.CONFIG)
    assert sentence in caught.value.message


def test_config_when_missing_then_bad_config(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot read"):
        load_config(tmp_path / "nothing.json")


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    return tmp_path


def test_source_when_on_a_claim_or_a_file_then_its_folder(claim: Path) -> None:
    for source in ("pvc://models/tiny", f"file://{claim}/models/tiny"):
        path = fetch(Weights(source=source), models_root=claim, environment={})
        assert path == claim / "models" / "tiny"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        pytest.param("pvc://models/huge", "holds tiny: correct the path", id="missing-folder"),
        pytest.param("pvc://models", "holds no config.json, but tiny", id="no-model-there"),
        pytest.param("pvc://models/tiny/config.json", "is a file", id="file"),
        pytest.param("pvc://models/../../etc", "leaves its claim", id="escape"),
        pytest.param("s3://bucket/key", "s3:// sources are not supported yet", id="s3"),
    ],
)
def test_source_when_wrong_then_model_not_found_and_code_3(
    claim: Path, source: str, sentence: str
) -> None:
    with pytest.raises(Failure) as caught:
        fetch(Weights(source=source), models_root=claim, environment={})
    assert (caught.value.reason, caught.value.exit_code) == (
        Reason.MODEL_NOT_FOUND,
        ExitCode.SOURCE,
    )
    assert sentence in caught.value.message


def test_source_when_file_is_not_readable_then_model_unreadable(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root may read everything, so the operating system's answer is given here
    monkeypatch.setattr(
        "llmfleet_runtime.sources.os.access", lambda path, _: "config" not in str(path)
    )
    with pytest.raises(Failure, match=r"chmod it a\+r") as caught:
        fetch(Weights(source="pvc://models/tiny"), models_root=claim, environment={})
    assert caught.value.reason is Reason.MODEL_UNREADABLE


@pytest.mark.parametrize(
    ("environment", "device"),
    [({"LLMFLEET_DEVICE": "cpu"}, Device.CPU), ({"LLMFLEET_DEVICE": "gpu"}, Device.CUDA)],
)
def test_device_when_image_says_so_then_that(environment: dict[str, str], device: Device) -> None:
    assert detect_device(environment) is device


def test_compiler_when_looked_for_then_torchs_own_rule(tmp_path: Path) -> None:
    for name in ("g++", "my++"):
        (tmp_path / name).touch(mode=0o755)
    assert has_cxx_compiler({"PATH": str(tmp_path)})
    assert has_cxx_compiler({"PATH": str(tmp_path), "CXX": "my++"})
    assert not has_cxx_compiler({"PATH": str(tmp_path), "CXX": "other++"})
    assert not has_cxx_compiler({"PATH": str(tmp_path / "empty")})


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "5368709120\n"}, 5 * 1024**3),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "5368709120\n"}, 5 * 1024**3),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_memory_limit_when_cgroup_then_bytes(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit_bytes(tmp_path) == limit


def test_oom_kills_when_counted_by_kernel_then_number(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == 0
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert oom_kills(tmp_path) == 2
