"""Writes Prometheus' targets: every running pod annotated prometheus.io/scrape=true.

Runs beside Prometheus in the local cluster's `monitoring` namespace, on the standard library alone.
Usage: discover.py FILE. The file is replaced whenever the targets change, which Prometheus notices.
"""

import json
import logging
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_INTERVAL_SECONDS = 2.0
_ANNOTATION = "prometheus.io/"
_LABEL = "llmfleet.dev/"
_LOG = logging.getLogger("discover")


def targets(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The target groups of a list of pods, in Prometheus' file format, sorted by pod."""
    groups = []
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status", {})
        annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
        port, address = annotations.get(f"{_ANNOTATION}port"), status.get("podIP")
        wanted = annotations.get(f"{_ANNOTATION}scrape") == "true"
        if not (wanted and port and address and status.get("phase") == "Running"):
            continue
        own = {
            name: labels[_LABEL + name]
            for name in ("deployment", "component", "revision")
            if labels.get(_LABEL + name)
        }
        path = annotations.get(f"{_ANNOTATION}path", "/metrics")
        known = {"namespace": meta["namespace"], "pod": meta["name"], "__metrics_path__": path}
        groups.append({"targets": [f"{address}:{port}"], "labels": {**known, **own}})
    return sorted(groups, key=lambda group: (group["labels"]["namespace"], group["labels"]["pod"]))


def read_pods() -> list[dict[str, Any]]:
    """Asks the API server for all pods, from its cache."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    token = (_ACCOUNT / "token").read_text()  # read each time: the kubelet renews it
    request = urllib.request.Request(
        f"https://{host}:{port}/api/v1/pods?resourceVersion=0",
        headers={"Authorization": f"Bearer {token}"},
    )
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        items: list[dict[str, Any]] = json.load(answer)["items"]
        return items


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    file, written = Path(sys.argv[1]), ""
    while True:
        try:
            text = json.dumps(targets(read_pods()), indent=1)
        except OSError as error:  # the last targets stay
            _LOG.warning("the API server does not answer: %s", error)
        else:
            if text != written:
                part = file.with_suffix(".part")
                part.write_text(text)
                part.replace(file)
                written = text
        time.sleep(_INTERVAL_SECONDS)


if __name__ == "__main__":
    main()
