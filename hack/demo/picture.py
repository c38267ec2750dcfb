"""`python -m hack.demo.picture`: draws docs/images/status.svg, a terminal, by the CLI itself."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from llmfleet.api import parse
from llmfleet.cli import view

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "status.svg"
TODAY = "2026-12-01T14:29:00Z"
NOW = datetime(2026, 12, 1, 14, 33, tzinfo=UTC)
STABLE, CANARY = "5d41402abc", "91c06b7a2e"
CHAT: dict[str, Any] = {
    "apiVersion": "llmfleet.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "chat", "namespace": "team-a", "uid": "u", "generation": 7},
    "spec": {
        "model": {"source": "pvc://models/llama", "servedName": "llama"},
        "replicas": 4,
        "rollout": {
            "steps": [
                {"setWeight": 25}, {"pause": {"duration": "5m"}},
                {"setWeight": 50}, {"pause": {}},
            ]
        },
    },
    "status": {
        "schema": 1,
        "observedGeneration": 7,
        "phase": "Progressing",
        "message": f"canary {CANARY} at 25 %: step 2 of 4 pauses until 14:36:00Z; then 50 %",
        "ready": "5/4",
        "url": "http://chat.team-a.svc",
        "servedRevision": STABLE,
        "specRevision": CANARY,
        "canaryWeight": 25,
        "traffic": [{"revision": STABLE, "weight": 75}, {"revision": CANARY, "weight": 25}],
        "revisions": [
            {"hash": CANARY, "replicas": 1, "readyReplicas": 1, "createdAt": TODAY},
            {"hash": STABLE, "replicas": 4, "readyReplicas": 4, "createdAt": "2026-11-28T09:00Z"},
        ],
        "rollout": {
            "id": 3, "attempt": 0, "revision": CANARY, "stable": STABLE, "step": 1,
            "startedAt": TODAY, "stepStartedAt": "2026-12-01T14:31:00Z",
            "plan": {
                "strategy": "Canary",
                "steps": [
                    {"setWeight": 25}, {"pause": {"duration": "5m"}},
                    {"setWeight": 50}, {"pause": {}},
                ],
            },
        },
    },
}  # fmt: skip


def draw() -> str:
    """The picture as SVG; fonts are the reader's, so that nothing is fetched to show it."""
    console = Console(record=True, width=106, file=io.StringIO(), force_terminal=True)
    console.print("$ kubectl llmfleet status chat", style="bold", highlight=False)
    console.print(view.status_view(parse(CHAT), NOW))
    svg = console.export_svg(title="kubectl llmfleet", unique_id="status")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!-- .*? -->", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "monospace")
    return re.sub(r"\n\s*\n", "\n", re.sub(r"[ \t]+\n", "\n", svg))


if __name__ == "__main__":
    PICTURE.write_text(draw())
    print(f"wrote {PICTURE}")
