"""Whether the installed CRD knows every field this operator writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import structlog

from llmfleet.api.crd import build_crd
from llmfleet.api.installed_crd import CRD_NAME, CRD_PATH, outdated_reasons, version_schema
from llmfleet.cluster import metrics
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import ApiError, Forbidden, NotFound
from llmfleet.planning.snapshot import JSON, OperatorSettings

POLL_SECONDS: Final = 30.0
POLL_TROUBLED_SECONDS: Final = 5.0
"""While the CRD is missing or outdated somebody is about to fix it."""

log: Any = structlog.get_logger(__name__)


def prune(value: Any, schema: JSON) -> Any:
    """A value without the fields that a structural schema does not know.

    Example:
        >>> prune({"a": 1, "b": 2}, {"type": "object", "properties": {"a": {}}})
        {'a': 1}
    """
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [prune(item, items) for item in value]
    if not isinstance(value, dict):
        return value
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        return {name: prune(item, others) for name, item in value.items()}
    if others is True or "properties" not in schema:
        return value
    known: JSON = schema["properties"]
    return {name: prune(item, known[name]) for name, item in value.items() if name in known}


class CrdCheck:
    """Looks at the CRD now and then, and keeps the operator's settings true.

    Args:
        api: where the CRD is read.
        settings: what the operator was started with.
        changed: called when the answer to "is the CRD outdated?" changes.
    """

    def __init__(
        self, api: ApiClient, settings: OperatorSettings, changed: Callable[[], None]
    ) -> None:
        self._api = api
        self._settings = settings
        self._changed = changed
        self._expected = build_crd()
        self._present = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.reasons: tuple[str, ...] = ()
        self.status_schema: JSON | None = None

    def current(self) -> OperatorSettings:
        """The settings as of now."""
        return replace(self._settings, crd_outdated=bool(self.reasons))

    def problem(self) -> str | None:
        """A sentence naming the fix while the CRD is missing or outdated, else None."""
        if not self._present.is_set():
            return f"the CRD {CRD_NAME} is not installed; apply crds/ of this operator's version"
        if self.reasons:
            return (
                f"the CRD {CRD_NAME} is older than this operator, it lacks "
                f"{', '.join(self.reasons[:5])}; apply crds/ of this operator's version"
            )
        return None

    async def start(self) -> None:
        """Check the CRD from now on; returns when it is there (or may not be read)."""
        self._task = keep_running("CRD check", self._poll)
        await self._present.wait()

    async def stop(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        """A GET by name needs a right on this one CRD only; a watch would need it on all."""
        missing: bool | None = None
        while True:
            try:
                self.put(await self._api.get(f"{CRD_PATH}/{CRD_NAME}"))
                missing = False
            except NotFound:
                self._present.clear()
                if missing is not True:
                    log.error("CRD missing", fix=self.problem())  # noqa: TRY400 - the fix is said
                missing = True
            except Forbidden:
                if not self._present.is_set():
                    log.warning("the CRD cannot be checked", fix=f"grant get on the CRD {CRD_NAME}")
                self._present.set()
            except ApiError as error:
                log.warning("the CRD could not be read", error=str(error))
            await asyncio.sleep(POLL_TROUBLED_SECONDS if self.problem() else POLL_SECONDS)

    def put(self, body: JSON) -> None:
        """Take the installed CRD."""
        reasons = outdated_reasons(body, self._expected)
        before, self.reasons = self.reasons, reasons
        status: JSON = (version_schema(body).get("properties") or {}).get("status") or {}
        self.status_schema = status if reasons else None
        metrics.CRD_OUTDATED.set(1 if reasons else 0)
        self._present.set()
        if reasons != before:
            if reasons:
                log.error("CRD outdated", fix=self.problem())
            else:
                log.info("CRD is up to date again")
            self._changed()
