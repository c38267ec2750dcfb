"""Configuration files of the parts, as text. Pure: settings in, text out."""

import json
from typing import Any

from hack.cluster.settings import (
    DNS_SERVICE_IP,
    NODE_NAME,
    POD_CIDR,
    Settings,
)

PAUSE_IMAGE = "localhost/llmfleet/pause:1"
NETWORK = "llmfleet"


def containerd(settings: Settings) -> str:
    """Containerd's configuration (version 2, for containerd 1.6 and 1.7)."""
    state, run = settings.state, settings.run
    return f"""version = 2
root = "{settings.containerd_root}"
state = "{run}/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{settings.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE runc fails to lower a score: "can't get final child's PID from pipe".
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{state}/cni"
"""


def cni(settings: Settings) -> str:
    """The pod network: one bridge, addresses from the node's own range."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(settings.run / "addresses"),
            "ranges": [[{"subnet": POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    name = f"{NETWORK}-{settings.slot}"
    return json.dumps({"cniVersion": "0.4.0", "name": name, "plugins": [bridge, portmap]}, indent=1)


def kubelet(settings: Settings) -> str:
    """The kubelet's configuration."""
    pki = settings.state / "pki"
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE_IP],
        "resolvConf": str(settings.state / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{settings.name}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "podLogsDir": str(settings.state / "pod-logs"),
        "volumePluginDir": str(settings.state / "volume-plugins"),
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        # Images cannot be pulled again, so the kubelet must never collect them.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "syncFrequency": "30s",
        "nodeStatusUpdateFrequency": "10s",
        "registerWithTaints": [],
    }
    return json.dumps(config, indent=1)


def kube_proxy(settings: Settings) -> str:
    """kube-proxy's configuration: iptables mode, no kernel settings that need more privilege."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(settings.state / "kube-proxy.kubeconfig")},
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE_NAME,
        "oomScoreAdj": 0,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return json.dumps(config, indent=1)


def corefile(settings: Settings) -> str:
    """CoreDNS: the cluster's own names, and a prompt "no such name" for all others.

    Two server blocks, because within one the template plugin answers before the kubernetes plugin.
    """
    return f"""cluster.local:53 in-addr.arpa:53 {{
  bind {settings.node_ip}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {settings.state}/coredns.kubeconfig
    pods insecure
    ttl 5
  }}
}}
.:53 {{
  bind {settings.node_ip}
  errors
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def audit_policy() -> str:
    """Logs every write (who, what, which answer), no reads and no bodies."""
    writes = ["create", "update", "patch", "delete", "deletecollection"]
    rules = [{"level": "Metadata", "verbs": writes}, {"level": "None"}]
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": rules,
    }
    return json.dumps(policy, indent=1)


def all_files(settings: Settings) -> dict[str, str]:
    """Every file, by its path under the state folder."""
    return {
        "containerd.toml": containerd(settings),
        "cni/10-llmfleet.conflist": cni(settings),
        "kubelet.json": kubelet(settings),
        "kube-proxy.json": kube_proxy(settings),
        "Corefile": corefile(settings),
        "audit-policy.json": audit_policy(),
        "resolv.conf": f"nameserver {settings.node_ip}\n",
    }
