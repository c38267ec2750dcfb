"""Policies that are not met on purpose, each with the sentence why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """One policy that need not hold for some objects."""

    check: str
    """checkov's id."""
    objects: str
    """Regular expression over ``Kind.namespace.name``, matched whole."""
    why: str


OPERATOR: Final = r"Deployment\.llmfleet-system\.llmfleet"
ROUTER: Final = r"Deployment\.team-a\.chat-router"
ENGINE: Final = r"Deployment\.team-a\.chat-rev-[0-9a-f]{10}"

_SIZE: Final = (
    "Only the author of an LLMDeployment knows what the model needs: podTemplate.resources sets it."
    " A default would either be refused by small nodes or kill large models while they load."
)

WAIVERS: Final = (
    Waiver(
        check="CKV_K8S_11",
        objects=f"{OPERATOR}|{ROUTER}|{ENGINE}",
        why="A CPU limit throttles in 100 ms periods, which shows as latency of requests and of"
        " leader election; requests and memory limits bound what a pod can take from others.",
    ),
    Waiver(
        check="CKV_K8S_38",
        objects=OPERATOR,
        why="It speaks to the API server: it reconciles. Of a router pod the agent alone has a"
        " token, engine pods have none.",
    ),
    Waiver(
        check="CKV_K8S_8",
        objects=ROUTER,
        why="Its container envoy has no liveness probe: one that fails would cut every stream, and"
        " an Envoy that has ended ends its container. The agent's has one.",
    ),
    Waiver(
        check="CKV_K8S_35",
        objects=ENGINE,
        why="Model hubs' clients read HF_TOKEN from the environment, and podTemplate.env may name a"
        " key of a Secret of the same namespace; the supervisor alone starts in that container.",
    ),
    Waiver(check="CKV_K8S_10", objects=ENGINE, why=_SIZE),
    Waiver(check="CKV_K8S_12", objects=ENGINE, why=_SIZE),
    Waiver(check="CKV_K8S_13", objects=ENGINE, why=_SIZE),
)


def waiver_for(check: str, resource: str) -> Waiver | None:
    """The waiver of a failed policy; None when it is a finding."""
    for each in WAIVERS:
        if each.check == check and re.fullmatch(each.objects, resource):
            return each
    return None
