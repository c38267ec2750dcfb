"""The edge: kopf tells which LLMDeployments exist and change; everything else is ours.

``on.event`` only wakes. No daemon, timer or create/update handler: they need finalizers or
annotations, and with the operator gone a ``kubectl delete`` would hang.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import kopf

from llmfleet.api import GROUP, PLURAL, VERSION
from llmfleet.cluster.store import version_number
from llmfleet.reconcile import Spine

WRITES_IN_FLIGHT_SECONDS: Final = 10.0
SPREAD_SECONDS_PER_OBJECT: Final = 0.002
LONGEST_SPREAD_SECONDS: Final = 5.0


def build_registry(spine: Spine) -> kopf.OperatorRegistry:
    """Handlers that wake the spine, in a registry of their own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)  # type: ignore[untyped-decorator]  # kopf is not checked
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure_settings(settings)

    @kopf.on.login(registry=registry)  # type: ignore[untyped-decorator]  # kopf is not checked
    async def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.cleanup(registry=registry)  # type: ignore[untyped-decorator]  # kopf is not checked
    async def drain(**_: Any) -> None:
        await spine.stop(WRITES_IN_FLIGHT_SECONDS)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)  # type: ignore[untyped-decorator]  # kopf is not checked
    async def wake(
        type: str | None,  # noqa: A002 - kopf passes by this name
        body: kopf.Body,
        namespace: str | None,
        name: str | None,
        **_: Any,
    ) -> None:
        if namespace is not None and name is not None:
            # An event without a type comes from the first list, after start or a change of leader.
            settled = type is None and not is_in_motion(body)
            after = _spread(spine.known()) if settled else 0.0
            told = type in {"ADDED", "MODIFIED"}
            version = version_number(body.metadata.get("resourceVersion")) if told else None
            new = not (body.get("status") or {}).get("phase")
            # A new one is read: its engines are made at once, and it may be gone again.
            usable = not new and type != "DELETED"
            there = dict(body) if usable else {}
            spine.wake((namespace, name), after, version=version, urgent=new, told=there)

    return registry


def configure_settings(settings: kopf.OperatorSettings) -> None:
    """Everything kopf does beside waking is off, and it notices a dead connection soon."""
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 600
    settings.watching.chunk_size = 500
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    settings.process.ultimate_exiting_timeout = 60
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = _NothingKept()


class _NothingKept(kopf.DiffBaseStorage):  # type: ignore[misc]  # kopf is not checked
    """kopf copies every object to compare it with the last one; here nothing compares them."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        del body, extra_fields
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> None:
        del body

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        del body, patch, essence


def is_in_motion(body: Any) -> bool:
    """Whether an LLMDeployment is worth looking at first: new, changed, or not Healthy."""
    status = body.get("status") or {}
    seen = status.get("observedGeneration") == body["metadata"].get("generation")
    return not seen or status.get("phase") != "Healthy"


async def run_kopf(spine: Spine, namespaces: Sequence[str]) -> None:
    """Watch LLMDeployments until SIGTERM, then wait for the writes in flight."""
    await kopf.operator(
        registry=build_registry(spine),
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        standalone=True,
    )


def _spread(objects: int) -> float:
    """Seconds until a settled object is looked at, so that a new leader starts with the others."""
    limit = min(LONGEST_SPREAD_SECONDS, objects * SPREAD_SECONDS_PER_OBJECT)
    return random.uniform(0.0, limit)  # noqa: S311 - spread, not secrecy
