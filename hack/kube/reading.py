"""Reads of the API server over one kept connection.

Who waits for something looks twice a second, and a kubectl costs a tenth of a second of a core each
time: beside engines that load, on two cores, that is felt.
"""

from __future__ import annotations

import base64
import functools
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import httpx
import yaml

JSON = dict[str, Any]
COLLECTIONS = {
    "llmdep": ("/apis/llmfleet.dev/v1alpha1", "llmdeployments"),
    "pod": ("/api/v1", "pods"),
    "pods": ("/api/v1", "pods"),
    "applications.argoproj.io": ("/apis/argoproj.io/v1alpha1", "applications"),
}
"""Kinds that are read here, in the words that kubectl is given → group and plural."""
_TIMEOUT_SECONDS = 30


class ReadError(Exception):
    """The API server could not be reached or refused; the message says how."""


def read_object(kind: str, name: str, namespace: str) -> JSON | None:
    """One object of a kind of COLLECTIONS, None when there is none.

    Raises:
        ReadError: the API server could not be reached or refused.
    """
    group, plural = COLLECTIONS[kind]
    answer = _request(f"{group}/namespaces/{namespace}/{plural}/{name}", {})
    return None if answer.status_code == httpx.codes.NOT_FOUND else _content(answer)


def read_list(kind: str, namespace: str | None, selector: str) -> list[JSON]:
    """All objects of a kind of COLLECTIONS, in one namespace or in all.

    Raises:
        ReadError: the API server could not be reached or refused.
    """
    group, plural = COLLECTIONS[kind]
    where = f"/namespaces/{namespace}" if namespace else ""
    answer = _request(f"{group}{where}/{plural}", {"labelSelector": selector} if selector else {})
    items: list[JSON] = _content(answer)["items"]
    return items


def read_log(pod: str, namespace: str, lines: int) -> str:
    """The last lines that the only container of a pod has written.

    Raises:
        ReadError: the API server could not be reached or refused.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
    answer = _request(path, {"tailLines": str(lines)})
    _check(answer)
    return answer.text


def _request(path: str, parameters: dict[str, str]) -> httpx.Response:
    try:
        return _client(_kubeconfig()).get(path, params=parameters)
    except (httpx.HTTPError, OSError) as error:
        raise ReadError(f"{path}: {error!r}") from error


def _content(answer: httpx.Response) -> JSON:
    _check(answer)
    content: JSON = answer.json()
    return content


def _check(answer: httpx.Response) -> None:
    if answer.status_code != httpx.codes.OK:
        raise ReadError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:500]}")


def _kubeconfig() -> tuple[Path, int]:
    """The file, and when it was written: a cluster that is made anew has other keys."""
    path = Path(os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser()
    return path, path.stat().st_mtime_ns


@functools.lru_cache(maxsize=1)
def _client(kubeconfig: tuple[Path, int]) -> httpx.Client:
    config = yaml.safe_load(kubeconfig[0].read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    return httpx.Client(
        base_url=cluster["server"],
        verify=_trust(cluster, user),
        headers={"Authorization": f"Bearer {user['token']}"} if "token" in user else {},
        timeout=_TIMEOUT_SECONDS,
        trust_env=False,
    )


def _trust(cluster: JSON, user: JSON) -> ssl.SSLContext:
    trust = ssl.create_default_context(cadata=_decoded(cluster, "certificate-authority").decode())
    if "token" in user:
        return trust
    with tempfile.NamedTemporaryFile() as file:  # ssl reads a key from a file only
        for part in ("client-certificate", "client-key"):
            file.write(_decoded(user, part))
        file.flush()
        trust.load_cert_chain(file.name)
    return trust


def _decoded(section: JSON, name: str) -> bytes:
    if name in section:
        return Path(section[name]).read_bytes()
    return base64.b64decode(section[f"{name}-data"])


def _named(entries: list[JSON], name: str) -> JSON:
    return next(entry for entry in entries if entry["name"] == name)
