"""Where everything of one cluster lives, and the addresses it uses."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

CLUSTER_CIDR = "10.244.0.0/16"
"""All pods; each node has a /24 of it."""
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
API_PORT = 6443
NODE_NAME = "llmfleet-node"
FAKE_GPUS = 8

# Host-side link addresses are /30s out of one /24, so at most 63 clusters fit beside each other.
_SLOTS = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One cluster, identified by its cache folder: another cache folder is another cluster.

    Attributes:
        repository: The checkout whose images and manifests are used.
        cache: Binaries, images and the state of the cluster; outlives the checkout.
    """

    repository: Path
    cache: Path

    @property
    def binaries(self) -> Path:
        """Binaries built from Go modules."""
        return self.cache / "bin"

    @property
    def state(self) -> Path:
        """Everything `down` deletes, apart from `run`."""
        return self.cache / "cluster"

    @property
    def slot(self) -> int:
        """0..62, from the cache folder: keeps clusters of different folders apart on the host."""
        return zlib.crc32(str(self.cache).encode()) % _SLOTS

    @property
    def name(self) -> str:
        """Name of the network namespace, cgroup and run folder."""
        return f"llmfleet-{self.slot}"

    @property
    def run(self) -> Path:
        """Sockets and mounts; short, because a socket's path may have 107 bytes at most."""
        return Path("/run") / self.name

    @property
    def namespace(self) -> Path:
        """The network namespace's file."""
        return Path("/run/netns") / self.name

    @property
    def node_ip(self) -> str:
        """The node's own address, inside the namespace."""
        return f"172.30.{self.slot}.10"

    @property
    def node_subnet(self) -> str:
        """The subnet that the host routes into the namespace."""
        return f"172.30.{self.slot}.0/24"

    @property
    def link_host_ip(self) -> str:
        """The host's end of the link into the namespace (/30)."""
        return f"172.30.255.{4 * self.slot + 1}"

    @property
    def link_node_ip(self) -> str:
        """The namespace's end of the link (/30)."""
        return f"172.30.255.{4 * self.slot + 2}"

    @property
    def link_device(self) -> str:
        """The host's end of the veth pair (15 characters at most)."""
        return f"llmfleet{self.slot}"

    @property
    def api_url(self) -> str:
        """The API server, as reached from host, node and pods' service alike."""
        return f"https://{self.node_ip}:{API_PORT}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; exists only while the cluster does."""
        return self.state / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: one JSON object a line, writes only."""
        return self.state / "logs" / "audit.log"

    @property
    def images_json(self) -> Path:
        """Which image references the running cluster holds, by name."""
        return self.state / "images.json"

    @property
    def containerd_root(self) -> Path:
        """Containerd's images; kept by `down`, because loading them again takes minutes."""
        return self.cache / "containerd"

    @property
    def volumes(self) -> Path:
        """A folder with the same path on the host and on the node, for hostPath volumes."""
        return self.cache / "volumes"


def read_settings() -> Settings:
    """Reads LLMFLEET_CACHE (default ~/.cache/llmfleet)."""
    cache = os.environ.get("LLMFLEET_CACHE") or "~/.cache/llmfleet"
    return Settings(repository=REPOSITORY, cache=Path(cache).expanduser().resolve())
