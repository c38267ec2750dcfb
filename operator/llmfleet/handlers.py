"""The edge: kopf watches which LLMDeployments exist and change; everything else is ours.

``on.event`` only wakes. No daemon, timer or create/update handler: they need finalizers or
annotations, and with the operator gone a ``kubectl delete`` would hang.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import kopf
import structlog

from llmfleet.api import GROUP, PLURAL, VERSION
from llmfleet.cluster import metrics
from llmfleet.cluster.backoff import Backoff
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import ApiError, Forbidden, NotFound, Unavailable, error_from_answer
from llmfleet.cluster.kinds import LLM_DEPLOYMENT
from llmfleet.cluster.store import version_number
from llmfleet.tasks import Tasks

WRITES_IN_FLIGHT_SECONDS: Final = 10.0
RETRIES_SECONDS: Final = (1.0, 2.0, 4.0, 8.0)
"""kopf's own retries; what lasts longer is logged, and kopf is started again."""
LONGEST_PAUSE_SECONDS: Final = 60.0
SPREAD_SECONDS_PER_OBJECT: Final = 0.002
LONGEST_SPREAD_SECONDS: Final = 5.0

_KOPF_FOLDER: Final = str(Path(kopf.__file__).parent)
_KOPF_TASKS: Final = ("kopf._core.reactor.running", "kopf._core.reactor.orchestration")
"""Loggers that log, twice and with a traceback, every error that ends kopf."""

log: Any = structlog.get_logger(__name__)


def build_registry(tasks: Tasks) -> kopf.OperatorRegistry:
    """Handlers that wake objects' tasks, in a registry of their own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)  # type: ignore[untyped-decorator]  # kopf is not checked
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure_settings(settings)

    @kopf.on.login(registry=registry)  # type: ignore[untyped-decorator]  # kopf is not checked
    async def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

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
            after = _spread(tasks.known()) if settled else 0.0
            changed = type in {"ADDED", "MODIFIED"}
            version = version_number(body.metadata.get("resourceVersion")) if changed else None
            new = not (body.get("status") or {}).get("phase")
            # A new one is read: its engines are made at once, and it may be gone again.
            usable = not new and type != "DELETED"
            read = dict(body) if usable else {}
            tasks.wake((namespace, name), after, version=version, urgent=new, from_event=read)

    return registry


def configure_settings(settings: kopf.OperatorSettings) -> None:
    """Everything kopf does beside waking is off, and it notices a dead connection soon."""
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = RETRIES_SECONDS
    settings.watching.server_timeout = 600
    settings.watching.chunk_size = 500
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    # It would kill the process a minute after kopf ended, though kopf has been started again.
    settings.process.ultimate_exiting_timeout = None
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


class Watch:
    """kopf's watch of LLMDeployments, started again whenever an error ends it.

    The Lease and the objects' tasks are not kopf's, and go on meanwhile.

    Args:
        tasks: woken by what is seen.
        api: to find out whether starting again is of use.
        namespaces: to watch; empty = all.
    """

    def __init__(self, tasks: Tasks, api: ApiClient, namespaces: Sequence[str]) -> None:
        self._objects = tasks
        self._api = api
        self._namespaces = tuple(namespaces)
        self._problem: str | None = None

    def problem(self) -> str | None:
        """A sentence while LLMDeployments cannot be watched, else None: the readiness check."""
        return self._problem

    async def run(self, take_signals: Callable[[], None]) -> None:
        """Watch until cancelled, then wait for the writes in flight.

        Args:
            take_signals: takes the process's signals back, which kopf grabs at its start.
        """
        for name in _KOPF_TASKS:
            logging.getLogger(name).addFilter(_without_traceback)
        pauses = Backoff(first_seconds=1, longest_seconds=LONGEST_PAUSE_SECONDS)
        try:
            while True:
                started = time.monotonic()
                try:
                    await self._run_kopf(take_signals)
                except Exception as error:  # noqa: BLE001 - reported, whatever it is
                    self._take_end(error)
                if time.monotonic() - started > LONGEST_PAUSE_SECONDS:
                    pauses.reset()
                await self._wait_usable(pauses)
        finally:
            await self._objects.stop(WRITES_IN_FLIGHT_SECONDS)

    async def _run_kopf(self, take_signals: Callable[[], None]) -> None:
        tasks = await kopf.spawn_tasks(
            registry=build_registry(self._objects),
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            standalone=True,
        )
        take_signals()
        await kopf.run_tasks(tasks, ignored=_TasksOfOthers())
        raise RuntimeError("kopf ended without an error")

    def _take_end(self, error: Exception) -> None:
        translated = _translate(error)
        kind = type(translated or error).__name__
        metrics.WATCH_RESTARTS.labels(LLM_DEPLOYMENT.kind, kind).inc()
        if translated is None:
            self._problem = f"the watch of LLMDeployments crashed and is started again: {error!r}"
            log.error("watch crashed", kind=LLM_DEPLOYMENT.kind, exc_info=error)
            return
        metrics.API_ERRORS.labels(kind).inc()
        self._problem = _sentence(translated)

    async def _wait_usable(self, pauses: Backoff) -> None:
        """Pause until the API server lets LLMDeployments be listed and watched."""
        while True:
            pause = pauses.next_seconds(random.random())  # noqa: S311 - jitter
            log.warning(
                "watch interrupted",
                kind=LLM_DEPLOYMENT.kind,
                error=self._problem,
                again_in=round(pause, 1),
            )
            await asyncio.sleep(pause)
            try:
                await self._try()
            except ApiError as error:
                self._problem = _sentence(error)
            else:
                break
        self._problem = None
        log.info("LLMDeployments are watched again")

    async def _try(self) -> None:
        """Ask for what kopf will ask for; raises the ``ApiError`` that would end it again."""
        known = await self._api.get(f"/apis/{GROUP}/{VERSION}")
        if PLURAL not in {each["name"] for each in known["resources"]}:
            # kopf looks for it only once, and would watch nothing.
            raise NotFound(f"{PLURAL}: the CRD is not installed", status=404)
        for namespace in self._namespaces or (None,):
            path = LLM_DEPLOYMENT.path(namespace)
            page = await self._api.get(path, {"limit": "1"})
            query = {"resourceVersion": page["metadata"]["resourceVersion"], "timeoutSeconds": "1"}
            async for _ in self._api.watch(path, query):
                break


class _TasksOfOthers:
    """The tasks that kopf did not make.

    When kopf ends, it cancels every task made since its start, also the objects' and the probes'.
    """

    def __contains__(self, task: asyncio.Task[Any]) -> bool:
        code = getattr(task.get_coro(), "cr_code", None)
        return code is None or not code.co_filename.startswith(_KOPF_FOLDER)


def _without_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def _translate(error: Exception) -> ApiError | None:
    """The error that ended kopf as ours; None for what is no trouble with the API server."""
    status = getattr(error, "status", None)
    if isinstance(status, int):  # kopf's APIError, which it does not export
        answer = next((each for each in error.args if isinstance(each, dict)), None)
        body = json.dumps(answer or {"message": str(error)}).encode()
        return error_from_answer(status, body, f"list or watch {PLURAL}")
    if isinstance(error, kopf.LoginError):
        return Forbidden(f"list or watch {PLURAL}: {error}", status=401)
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return Unavailable(f"list or watch {PLURAL}: {error!r}", status=0)
    return None


def _sentence(error: ApiError) -> str:
    if isinstance(error, Forbidden):
        return (
            f"the operator may not see {PLURAL}, restore its rights to list and watch them: {error}"
        )
    return (
        f"{PLURAL} cannot be watched, so edits are not seen until the API server answers as it"
        f" should: {error}"
    )


def _spread(objects: int) -> float:
    """Seconds until a settled object is looked at, so that a new leader starts with the others."""
    limit = min(LONGEST_SPREAD_SECONDS, objects * SPREAD_SECONDS_PER_OBJECT)
    return random.uniform(0.0, limit)  # noqa: S311 - spread, not secrecy
