"""Configuration files of the parts, as text. Pure: settings in, text out."""

import json
from typing import Any

from hack.cluster.node import Node, first_node
from hack.cluster.settings import CLUSTER_CIDR, DNS_SERVICE_IP, Settings

PAUSE_IMAGE = "localhost/llmfleet/pause:1"


def containerd(node: Node, *, for_kubelet: bool = True) -> str:
    """Containerd's configuration (version 2, for containerd 1.6 and 1.7).

    Args:
        node: Whose.
        for_kubelet: Whether it offers Kubernetes' interface, and so takes up the pods that it
            finds in its records.
    """
    kubelets = "" if for_kubelet else '  "io.containerd.grpc.v1.cri",\n'
    return f"""version = 2
root = "{node.containerd_root}"
state = "{node.run}/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
{kubelets}]
[grpc]
address = "{node.containerd_socket}"
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
conf_dir = "{node.state}/cni"
"""


def cni(node: Node) -> str:
    """The pod network: one bridge, addresses from the node's own range."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(node.run / "addresses"),
            "ranges": [[{"subnet": node.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = [bridge, portmap]
    return json.dumps({"cniVersion": "0.4.0", "name": node.unit, "plugins": plugins}, indent=1)


def kubelet(node: Node) -> str:
    """The kubelet's configuration."""
    pki, state = node.state / "pki", node.state
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(node.settings.state / "pki" / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE_IP],
        "resolvConf": str(state / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "podLogsDir": str(state / "pod-logs"),
        "volumePluginDir": str(state / "volume-plugins"),
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


def kube_proxy(node: Node) -> str:
    """kube-proxy's configuration: iptables mode, no kernel settings that need more privilege."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(node.state / "kube-proxy.kubeconfig")},
        "mode": "iptables",
        "clusterCIDR": CLUSTER_CIDR,
        "hostnameOverride": node.name,
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


def node_files(node: Node) -> dict[str, str]:
    """Every file of a node, by its path under its state folder."""
    return {
        "containerd.toml": containerd(node),
        "cni/10-llmfleet.conflist": cni(node),
        "kubelet.json": kubelet(node),
        "kube-proxy.json": kube_proxy(node),
        "resolv.conf": f"nameserver {node.settings.node_ip}\n",
    }


def all_files(settings: Settings) -> dict[str, str]:
    """Every file of the control plane and the first node."""
    return {
        **node_files(first_node(settings)),
        "Corefile": corefile(settings),
        "audit-policy.json": audit_policy(),
    }
