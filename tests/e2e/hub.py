"""A model hub inside the cluster that refuses every download token, since no real one is reachable.

It answers as the Hugging Face hub answers a request with a wrong token: 401 and the error code
RepoNotFound (what a private repository says to strangers).
"""

from __future__ import annotations

from hack.kube.kubectl import apply, kubectl

NAME = "refusing-hub"
PORT = 8000
_SCRIPT = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

ThreadingHTTPServer(("", 8000), Hub).serve_forever()
"""


def start(namespace: str, image: str) -> str:
    """Start the hub and wait until it listens.

    Args:
        namespace: where pod and Service are made.
        image: any image with ``python`` in it.

    Returns:
        Its address, for HF_ENDPOINT.
    """
    meta = {"name": NAME, "namespace": namespace, "labels": {"app": NAME}}
    container = {
        "name": "hub",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _SCRIPT],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"automountServiceAccountToken": False, "containers": [container]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
        },
    )
    kubectl(
        "wait", "--for=condition=Ready", f"pod/{NAME}", "-n", namespace, "--timeout=60s",
        timeout_seconds=70,
    )  # fmt: skip
    return f"http://{NAME}.{namespace}.svc.cluster.local:{PORT}"


def stop(namespace: str) -> None:
    """Remove it."""
    kubectl(
        "delete", f"pod/{NAME}", f"service/{NAME}", "-n", namespace, "--ignore-not-found", "--now"
    )
