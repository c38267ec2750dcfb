"""Further nodes of the local cluster: their names, addresses, records and shared images."""

from __future__ import annotations

import ipaddress
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from hack.cluster import components, configs, image_sharing
from hack.cluster.__main__ import change_nodes
from hack.cluster.errors import ClusterError
from hack.cluster.further_nodes import FurtherNodes
from hack.cluster.local import LocalCluster
from hack.cluster.node import (
    MOST,
    added_nodes,
    claim_node,
    find_node,
    first_node,
    further_node,
)
from hack.cluster.settings import CLUSTER_CIDR, REPOSITORY, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(repository=REPOSITORY, cache=tmp_path)


def test_addresses_when_there_are_nine_further_nodes_then_none_meet(settings: Settings) -> None:
    nodes = [first_node(settings), *(further_node(settings, f"n{n}", n) for n in range(1, 10))]
    subnet = ipaddress.ip_network(settings.node_subnet)
    assert all(ipaddress.ip_address(node.ip) in subnet for node in nodes)
    pods = [ipaddress.ip_network(node.pod_cidr) for node in nodes]
    assert all(each.subnet_of(ipaddress.ip_network(CLUSTER_CIDR)) for each in pods)
    for values in ([n.ip for n in nodes], pods, [n.unit for n in nodes], [n.device for n in nodes]):
        assert len(set(values)) == len(nodes)


def test_node_when_its_cache_has_a_long_path_then_sockets_and_devices_are_short() -> None:
    chosen = Settings(repository=REPOSITORY, cache=Path("/srv/" + "long/" * 30))
    node = further_node(chosen, "n" * 20, MOST)
    assert len(str(node.containerd_socket)) < 108
    assert len(node.device) <= 15


def test_node_when_it_is_further_then_it_writes_within_the_clusters_folders_and_cgroup(
    settings: Settings,
) -> None:
    node = further_node(settings, "two", 1)
    assert node.state.is_relative_to(settings.state)
    assert node.run.is_relative_to(settings.run)
    assert node.containerd_root.is_relative_to(node.state)
    kubelet = json.loads(configs.kubelet(node))
    assert kubelet["cgroupRoot"].startswith(f"/{settings.name}/")
    for component in components.node_components(node).values():
        paths = [word.rpartition("=")[2] for word in component.command if "/" in word]
        ours = (str(node.state), str(settings.binaries))
        assert all(path.startswith(ours) for path in paths), component.name


def test_configuration_when_nodes_differ_then_only_the_authority_is_shared(
    settings: Settings,
) -> None:
    one, two = first_node(settings), further_node(settings, "two", 1)
    assert set(configs.node_files(one)) == set(configs.node_files(two))
    for name, text in configs.node_files(two).items():
        rest = text.replace(str(two.state), "").replace(str(two.run), "")
        rest = rest.replace(str(settings.state / "pki" / "ca.crt"), "")
        assert str(settings.cache) not in rest, name
        assert str(settings.run) not in rest, name


def test_claim_when_a_node_goes_then_its_number_is_given_again(settings: Settings) -> None:
    assert [claim_node(settings, name).index for name in ("two", "three")] == [1, 2]
    shutil.rmtree(find_node(settings, "two").state)  # type: ignore[union-attr]  # it is there
    assert claim_node(settings, "four").index == 1
    assert {node.name: node.index for node in added_nodes(settings)} == {"three": 2, "four": 1}


@pytest.mark.parametrize("name", ["", "Two", "a_b", "-a", "../x", "n" * 21, "llmfleet-node"])
def test_claim_when_the_name_cannot_be_one_then_refused(settings: Settings, name: str) -> None:
    with pytest.raises(ClusterError, match="cannot be a node's name"):
        claim_node(settings, name)
    assert added_nodes(settings) == []


def test_claim_when_there_are_nine_then_refused_with_the_way_out(settings: Settings) -> None:
    for number in range(MOST):
        claim_node(settings, f"n{number}")
    with pytest.raises(ClusterError, match="remove one"):
        claim_node(settings, "ten")


def test_records_when_one_is_broken_then_the_others_are_found(settings: Settings) -> None:
    claim_node(settings, "two")
    (claim_node(settings, "three").state / "node.json").write_text('{"index"')
    assert [node.name for node in added_nodes(settings)] == ["two"]


def test_lose_when_there_is_no_such_node_then_those_there_are_named(settings: Settings) -> None:
    claim_node(settings, "two")
    with pytest.raises(ClusterError, match="there are: two"):
        FurtherNodes(LocalCluster(settings)).lose("tow")


@pytest.mark.parametrize("words", [[], ["add"], ["list", "two"], ["add", "two", "three"]])
def test_command_when_its_words_are_others_then_the_right_ones_are_said(
    settings: Settings, words: list[str]
) -> None:
    with pytest.raises(ClusterError, match="node add NAME"):
        change_nodes(words, settings, "local")


def test_command_when_the_cluster_is_kind_then_refused(settings: Settings) -> None:
    with pytest.raises(ClusterError, match="LLMFLEET_CLUSTER=local"):
        change_nodes(["add", "two"], settings, "kind")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The root folder of a containerd: a blob, an unpacked layer and the two databases."""
    root = tmp_path / "one"
    files = {
        "io.containerd.content.v1.content/blobs/sha256/abc": b"blob",
        "io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/bin/sh": b"program",
        "io.containerd.snapshotter.v1.overlayfs/metadata.db": b"snapshots",
        "io.containerd.metadata.v1.bolt/meta.db": b"images",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_images_when_shared_then_the_other_has_them_and_its_end_leaves_them(
    tmp_path: Path, source: Path
) -> None:
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    target = tmp_path / "two"
    image_sharing.share_images(source, target)
    assert {target / path.relative_to(source): content for path, content in before.items()} == {
        path: path.read_bytes() for path in (target / path.relative_to(source) for path in before)
    }
    (target / "io.containerd.metadata.v1.bolt/meta.db").write_bytes(b"its own")
    shutil.rmtree(target)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


class Restless:
    """A database of which every reading differs from the last for a while."""

    def __init__(self, writes: int) -> None:
        self._writes, self.read = writes, 0

    def read_bytes(self) -> bytes:
        self.read += 1
        return b"%d" % min(self.read, self._writes)


def test_database_when_written_while_it_is_read_then_read_until_it_rests() -> None:
    database = Restless(4)
    assert image_sharing.resting(database) == b"4"
    with pytest.raises(ClusterError, match="try again"):
        image_sharing.resting(Restless(1000))


def test_containerd_when_it_only_forgets_then_it_offers_no_pods_to_a_kubelet(
    settings: Settings,
) -> None:
    node = further_node(settings, "two", 1)
    offered = tomllib.loads(configs.containerd(node))
    alone = tomllib.loads(configs.containerd(node, for_kubelet=False))
    added = set(alone["disabled_plugins"]) - set(offered["disabled_plugins"])
    assert added == {"io.containerd.grpc.v1.cri"}
    assert alone["root"] == offered["root"] == str(node.containerd_root)
