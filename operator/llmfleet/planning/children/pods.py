"""What all pods have in common, engines' and routers': security, the engine token, scraping."""

from __future__ import annotations

from typing import Final

from llmfleet.planning.snapshot import JSON

RUN_AS: Final = 65532
TOKEN_VOLUME: Final = "llmfleet-token"  # noqa: S105 - a volume
TOKEN_PATH: Final = "/var/run/llmfleet/token"  # noqa: S105 - a directory

POD_SECURITY: Final[JSON] = {
    "runAsNonRoot": True,
    "runAsUser": RUN_AS,
    "runAsGroup": RUN_AS,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Pod Security Standard "restricted"."""

CONTAINER_SECURITY: Final[JSON] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}


def scrape_annotations(port: int) -> dict[str, str]:
    """Annotations that let Prometheus find a metrics port."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }
