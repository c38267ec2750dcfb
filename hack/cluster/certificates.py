"""Certificates of the local cluster, made by openssl; valid longer than any local cluster lives."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.settings import API_SERVICE_IP, NODE_NAME, Settings
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
    """Every certificate that the cluster needs, in Kubernetes' own user names."""
    node = settings.node_ip
    return (
        Identity(
            name="apiserver",
            user="kube-apiserver",
            addresses=(
                "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
                "DNS:kubernetes.default.svc.cluster.local,DNS:localhost,"
                f"IP:{API_SERVICE_IP},IP:{node},IP:127.0.0.1"
            ),
        ),
        Identity(
            name="kubelet-server",
            user=f"system:node:{NODE_NAME}",
            group="system:nodes",
            addresses=f"DNS:{NODE_NAME},IP:{node}",
        ),
        Identity(name="apiserver-kubelet-client", user="kube-apiserver", group="system:masters"),
        Identity(name="admin", user="llmfleet-admin", group="system:masters"),
        Identity(name="controller-manager", user="system:kube-controller-manager"),
        Identity(name="scheduler", user="system:kube-scheduler"),
        Identity(name="kubelet", user=f"system:node:{NODE_NAME}", group="system:nodes"),
        Identity(name="kube-proxy", user="system:kube-proxy"),
        Identity(name="coredns", user="llmfleet:coredns"),
    )


def make_certificates(settings: Settings) -> Path:
    """Makes the authority, every certificate and the service-account key; returns their folder."""
    folder = settings.state / "pki"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", _DAYS]
    authority = ["-CA", "ca.crt", "-CAkey", "ca.key"]
    request = ["openssl", "req", "-x509", *key, "-batch"]
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    words = ["-subj", "/CN=llmfleet-local", *usage, "-keyout", "ca.key", "-out", "ca.crt"]
    run([*request, *words], folder=folder)
    for identity in identities(settings):
        subject = (
            f"/O={identity.group}/CN={identity.user}" if identity.group else f"/CN={identity.user}"
        )
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]
        if identity.addresses:
            extensions.append(f"subjectAltName={identity.addresses}")
        added = [word for extension in extensions for word in ("-addext", extension)]
        files = ["-keyout", f"{identity.name}.key", "-out", f"{identity.name}.crt"]
        run([*request, *authority, "-subj", subject, *added, *files], folder=folder)
    run(["openssl", "genrsa", "-out", "service-accounts.key", "2048"], folder=folder)
    return folder


def kubeconfig(settings: Settings, identity: str) -> str:
    """A kubeconfig that holds everything in itself, as JSON (which YAML readers accept)."""
    pki = settings.state / "pki"

    def encoded(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    name = "llmfleet"
    cluster = {"server": settings.api_url, "certificate-authority-data": encoded("ca.crt")}
    user = {
        "client-certificate-data": encoded(f"{identity}.crt"),
        "client-key-data": encoded(f"{identity}.key"),
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
