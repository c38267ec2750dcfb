"""Pod statuses as a kubelet reports them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

JSON = dict[str, Any]


def ready_status(pod: JSON, address: str, *, ready: bool) -> JSON:
    """Running at an address, ready or not yet."""
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()},
            {"type": "Ready", "status": str(ready), "lastTransitionTime": _now()},
        ],
        "containerStatuses": [
            {
                **_container(pod),
                "ready": ready, "restartCount": 0, "started": True,
                "state": {"running": {"startedAt": _now()}}, "lastState": {},
            }
        ],
    }  # fmt: skip


def crashing_status(pod: JSON) -> JSON:
    """Ended several times, with the runtime's last words."""
    words = {"reason": "ModelNotFound", "message": "no such model: broken", "retriable": False}
    ended = {
        "exitCode": 1, "reason": "Error", "message": json.dumps(words),
        "startedAt": _now(), "finishedAt": _now(),
    }  # fmt: skip
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
    return {
        **ready_status(pod, "10.0.0.1", ready=False),
        "containerStatuses": [
            {
                **_container(pod),
                "ready": False, "restartCount": 3, "started": False,
                "state": {"waiting": waiting}, "lastState": {"terminated": ended},
            }
        ],
    }  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _container(pod: JSON) -> JSON:
    main = pod["spec"]["containers"][0]
    return {"name": main["name"], "image": main["image"], "imageID": main["image"]}
