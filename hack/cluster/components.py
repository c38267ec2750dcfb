"""The daemons of the cluster and their command lines. Pure: settings in, argument lists out."""

from collections.abc import Mapping
from dataclasses import dataclass

from hack.cluster.node import Node, first_node
from hack.cluster.settings import API_PORT, CLUSTER_CIDR, SERVICE_CIDR, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One daemon: its name and its command line."""

    name: str
    command: tuple[str, ...]


def _flags(flags: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in flags.items())


def components(settings: Settings) -> dict[str, Component]:
    """Every daemon of the control plane and the first node, by name."""
    state, binaries = settings.state, settings.binaries
    lines: dict[str, tuple[str, ...]] = {
        "etcd": (str(binaries / "etcd"), *_flags(_etcd(settings))),
        "kube-apiserver": (str(binaries / "kube-apiserver"), *_flags(_apiserver(settings))),
        "kube-controller-manager": (
            str(binaries / "kube-controller-manager"),
            *_flags(_controller_manager(settings)),
        ),
        "kube-scheduler": (
            str(binaries / "kube-scheduler"),
            f"--kubeconfig={state}/scheduler.kubeconfig",
            "--leader-elect=false",
        ),
        "coredns": (str(binaries / "coredns"), "-conf", f"{state}/Corefile"),
    }
    control = {name: Component(name=name, command=line) for name, line in lines.items()}
    return control | node_components(first_node(settings))


def node_components(node: Node) -> dict[str, Component]:
    """Every daemon of a node by name."""
    state, binaries = node.state, node.settings.binaries
    lines: dict[str, tuple[str, ...]] = {
        "containerd": ("containerd", "--config", str(state / "containerd.toml")),
        "kubelet": (
            str(binaries / "kubelet"),
            f"--config={state}/kubelet.json",
            f"--kubeconfig={state}/kubelet.kubeconfig",
            f"--root-dir={state}/kubelet",
            f"--hostname-override={node.name}",
            f"--node-ip={node.ip}",
        ),
        "kube-proxy": (str(binaries / "kube-proxy"), f"--config={state}/kube-proxy.json"),
    }
    return {name: Component(name=name, command=line) for name, line in lines.items()}


def _etcd(settings: Settings) -> dict[str, str]:
    client = "http://127.0.0.1:2379"
    return {
        "data-dir": f"{settings.state}/etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": "http://127.0.0.1:2380",
        # A crash of the machine costs the cluster anyway; fsync would make every test slower.
        "unsafe-no-fsync": "true",
    }


def _apiserver(settings: Settings) -> dict[str, str]:
    pki = settings.state / "pki"
    return {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": "0.0.0.0",
        "advertise-address": settings.node_ip,
        "secure-port": str(API_PORT),
        "service-cluster-ip-range": SERVICE_CIDR,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "client-ca-file": f"{pki}/ca.crt",
        "tls-cert-file": f"{pki}/apiserver.crt",
        "tls-private-key-file": f"{pki}/apiserver.key",
        "kubelet-certificate-authority": f"{pki}/ca.crt",
        "kubelet-client-certificate": f"{pki}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{pki}/apiserver-kubelet-client.key",
        # Otherwise exec and logs look the node's name up in DNS.
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": f"{pki}/service-accounts.key",
        "service-account-signing-key-file": f"{pki}/service-accounts.key",
        "audit-policy-file": f"{settings.state}/audit-policy.json",
        "audit-log-path": str(settings.audit_log),
        "audit-log-maxsize": "200",
        "audit-log-maxbackup": "2",
    }


def _controller_manager(settings: Settings) -> dict[str, str]:
    pki, kubeconfig = settings.state / "pki", f"{settings.state}/controller-manager.kubeconfig"
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "leader-elect": "false",
        "use-service-account-credentials": "true",
        "root-ca-file": f"{pki}/ca.crt",
        "service-account-private-key-file": f"{pki}/service-accounts.key",
        "cluster-cidr": CLUSTER_CIDR,
        "service-cluster-ip-range": SERVICE_CIDR,
        # A dead node is noticed within 40 s by default; a single one need not wait that long.
        "node-monitor-grace-period": "40s",
    }
