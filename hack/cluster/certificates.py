"""Certificates of the local cluster, made by openssl; valid longer than any local cluster lives."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.node import Node, first_node
from hack.cluster.settings import API_SERVICE_IP, Settings
from hack.cluster.shell import run

_DAYS = "3650"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One certificate: its file's name, its user, its group, and the addresses it serves."""

    name: str
    user: str
    group: str = ""
    addresses: str = ""


def identities(settings: Settings) -> tuple[Identity, ...]:
    """Every certificate of the control plane and the first node, in Kubernetes' own user names."""
    return (
        Identity(
            name="apiserver",
            user="kube-apiserver",
            addresses=(
                "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
                "DNS:kubernetes.default.svc.cluster.local,DNS:localhost,"
                f"IP:{API_SERVICE_IP},IP:{settings.node_ip},IP:127.0.0.1"
            ),
        ),
        Identity(name="apiserver-kubelet-client", user="kube-apiserver", group="system:masters"),
        Identity(name="admin", user="llmfleet-admin", group="system:masters"),
        Identity(name="controller-manager", user="system:kube-controller-manager"),
        Identity(name="scheduler", user="system:kube-scheduler"),
        Identity(name="coredns", user="llmfleet:coredns"),
        *node_identities(first_node(settings)),
    )


def node_identities(node: Node) -> tuple[Identity, ...]:
    """The certificates of one node."""
    user = f"system:node:{node.name}"
    return (
        Identity(
            name="kubelet-server",
            user=user,
            group="system:nodes",
            addresses=f"DNS:{node.name},IP:{node.ip}",
        ),
        Identity(name="kubelet", user=user, group="system:nodes"),
        Identity(name="kube-proxy", user="system:kube-proxy"),
    )


def make_certificates(settings: Settings) -> Path:
    """Makes the authority, every certificate and the service-account key; returns their folder."""
    folder = _folder(settings.state)
    request, usage = _request(), ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    words = ["-subj", "/CN=llmfleet-local", *usage, "-keyout", "ca.key", "-out", "ca.crt"]
    run([*request, *words], folder=folder)
    for identity in identities(settings):
        _sign(identity, folder, authority=folder)
    run(["openssl", "genrsa", "-out", "service-accounts.key", "2048"], folder=folder)
    return folder


def make_node_certificates(node: Node) -> Path:
    """Makes the certificates of a further node, signed by the cluster's authority."""
    folder = _folder(node.state)
    for identity in node_identities(node):
        _sign(identity, folder, authority=node.settings.state / "pki")
    return folder


def _folder(state: Path) -> Path:
    folder = state / "pki"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _request() -> list[str]:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", _DAYS]
    return ["openssl", "req", "-x509", *key, "-batch"]


def _sign(identity: Identity, folder: Path, *, authority: Path) -> None:
    """Makes one certificate and its key in a folder."""
    signer = ["-CA", str(authority / "ca.crt"), "-CAkey", str(authority / "ca.key")]
    subject = (
        f"/O={identity.group}/CN={identity.user}" if identity.group else f"/CN={identity.user}"
    )
    extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"]
    if identity.addresses:
        extensions.append(f"subjectAltName={identity.addresses}")
    added = [word for extension in extensions for word in ("-addext", extension)]
    files = ["-keyout", f"{identity.name}.key", "-out", f"{identity.name}.crt"]
    run([*_request(), *signer, "-subj", subject, *added, *files], folder=folder)


def kubeconfig(settings: Settings, identity: str, folder: Path | None = None) -> str:
    """A kubeconfig that holds everything in itself, as JSON (which YAML readers accept).

    Args:
        settings: The cluster's.
        identity: Name of a certificate.
        folder: Where that lies; left out, among those of the control plane.
    """
    pki = settings.state / "pki"
    own = folder or pki

    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    name = "llmfleet"
    authority = encoded(pki / "ca.crt")
    cluster = {"server": settings.api_url, "certificate-authority-data": authority}
    user = {
        "client-certificate-data": encoded(own / f"{identity}.crt"),
        "client-key-data": encoded(own / f"{identity}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": identity, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": identity}}],
        "current-context": name,
    }
    return json.dumps(config, indent=1)
