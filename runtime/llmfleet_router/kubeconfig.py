"""How to reach the API server: the pod's service account, or KUBECONFIG outside a cluster."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmfleet_router.settings import SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeConfigError(SettingsError):
    """No usable way to the API server; the message names the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeAccess:
    """Address and credentials of the API server."""

    url: str
    ssl_context: ssl.SSLContext | None
    token: str | None = None
    token_file: Path | None = None
    """Read again for every request, since the kubelet rotates it."""

    def headers(self) -> dict[str, str]:
        """The Authorization header, from the newest token."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def load_access(env: Mapping[str, str] | None = None) -> KubeAccess:
    """KUBECONFIG if set, else the service account.

    Raises:
        KubeConfigError: neither is usable, or the kubeconfig asks for an exec plugin.
    """
    env = os.environ if env is None else env
    if env.get("KUBECONFIG"):
        return _from_kubeconfig(Path(env["KUBECONFIG"]))
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeConfigError("Not in a cluster and KUBECONFIG is not set: set one of them.")
    return KubeAccess(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ssl_context=ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt")),
        token_file=SERVICE_ACCOUNT / "token",
    )


def _from_kubeconfig(path: Path) -> KubeAccess:
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise KubeConfigError(f"{path} is not a usable kubeconfig: {error!r}") from error
    if "exec" in user or "auth-provider" in user:
        raise KubeConfigError(f"{path} needs an auth plugin: use a token or client certificate.")
    url = str(cluster["server"]).rstrip("/")
    return KubeAccess(
        url=url,
        ssl_context=_ssl_context(cluster, user, path.parent) if url.startswith("https") else None,
        token=user.get("token"),
        token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
    )


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for item in items:
        if item.get("name") == name:
            return item
    raise KeyError(name)


def _ssl_context(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    ca = _pem(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(user, "client-certificate", base), _pem(user, "client-key", base)
    if certificate and key:
        # The ssl module loads a client certificate from files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _pem(section: dict[str, Any], key: str, base: Path) -> bytes | None:
    if f"{key}-data" in section:
        return base64.b64decode(section[f"{key}-data"])
    return (base / section[key]).read_bytes() if key in section else None
