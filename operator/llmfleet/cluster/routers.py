"""Asks routers what they serve, in the background; ``observe`` takes the last answers.

One task per router pod: a hanging GET while the commanded trafficGeneration is unconfirmed, else a
poll a minute, for with nothing commanded an answer changes no decision. A container that started
anew, or a pod with another address, is asked at once. An answer names the object and the pod that
it is of: an address may have gone to another router, whose answers say nothing of this one. A pod
that leaves questions unanswered for ``SILENT_AFTER_SECONDS`` is reported as silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import orjson
import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.answers import UNREADABLE, pod_url, read_body, whole_number
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.store import Owner
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import JSON, ObservedPod, RouterState

AGENT_PORT: Final = 9090
SLOW_POLL_SECONDS: Final = 60.0
"""With 1,000 resources of two routers each this is 33 questions a second."""
FIRST_POLL_SECONDS: Final = SLOW_POLL_SECONDS
"""Within this, an operator that starts asks routers that the status calls confirmed."""
HANGING_GET_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 5.0
"""For an answer, beyond the time that a hanging GET may hang."""
SILENT_AFTER_SECONDS: Final = 30.0

Report = Signal[RouterState]
"""The last word of a router, or that it is silent and since when."""

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """One router, as it has to name itself in its answers."""

    owner: Owner
    owner_uid: str | None
    """uid of the LLMDeployment; None if it is not known."""
    pod: str
    pod_uid: str
    address: str
    """The pod's present IP."""


class RouterPoller:
    """Keeps the last report of every tracked router pod.

    Args:
        wake: called with the owner when one of its routers' reports changed.
        port: of the agents; only tests choose another.
        silent_after_seconds: see ``SILENT_AFTER_SECONDS``.
        first_poll_seconds: see ``FIRST_POLL_SECONDS``.
    """

    def __init__(
        self,
        wake: Callable[[Owner], None],
        *,
        port: int = AGENT_PORT,
        silent_after_seconds: float = SILENT_AFTER_SECONDS,
        first_poll_seconds: float = FIRST_POLL_SECONDS,
    ) -> None:
        self._wake = wake
        self._port = port
        self._silent_after = silent_after_seconds
        self._first_poll = first_poll_seconds
        self._pollers: dict[Owner, dict[str, _Poller]] = defaultdict(dict)
        self._http: aiohttp.ClientSession | None = None

    def track(
        self,
        owner: Owner,
        pods: Iterable[ObservedPod],
        generation: int | None,
        *,
        uid: str | None = None,
        confirmed: bool = False,
    ) -> None:
        """Poll exactly these pods' routers from now on, waiting for ``generation``.

        Pods without an address and engine pods are left out.

        Args:
            owner: whose.
            pods: all of its pods.
            generation: the commanded one.
            uid: of the LLMDeployment, if known.
            confirmed: the status says that every ready router serves it. Those not known here are
                assumed to, and asked within ``first_poll_seconds`` or when somebody waits for
                them; else they are asked at once.
        """
        wanted = {pod.name: (pod, router) for pod, router in routers_of(owner, uid, pods)}
        pollers = self._pollers[owner]
        for name in [name for name in pollers if name not in wanted]:
            pollers.pop(name).stop()
        for name, (pod, router) in wanted.items():
            held = pollers.get(name)
            if held is None or held.router != router:
                is_known = held is not None  # as somebody else, or elsewhere
                if held is not None:
                    held.stop()
                held = pollers[name] = self._start(router, pod)
                if confirmed and pod.ready and not is_known:
                    held.assume(generation, random.uniform(0.0, self._first_poll))  # noqa: S311 - spread
            held.expect(generation, pod.running_since)
        if not pollers:
            del self._pollers[owner]

    def _start(self, router: Router, pod: ObservedPod) -> _Poller:
        url = pod_url(router.address, self._port, "/llmfleet/state")
        poller = _Poller(self._session(), router, pod.running_since, url, self._silent_after)
        poller.start(lambda: self._wake(router.owner))
        return poller

    async def wait_asked(self, owner: Owner, names: Iterable[str], seconds: float) -> None:
        """Until each of these pods has answered or failed to once, at most ``seconds``.

        Else a restart of ours would tell in the status that nobody confirms, and take it back.
        """
        pollers = self._pollers.get(owner, {})
        new = [pollers[name].ask() for name in names if name in pollers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*new)

    def assumed(self, owner: Owner) -> bool:
        """Whether a report is the status' own and no router's yet."""
        return any(one.assumed for one in self._pollers.get(owner, {}).values())

    def reports(self, owner: Owner) -> dict[str, Report]:
        """Last reports by pod name; a pod without an entry was never reached yet."""
        pollers = self._pollers.get(owner, {})
        return {name: one.report for name, one in pollers.items() if one.report is not None}

    def forget(self, owner: Owner) -> None:
        """Stop polling the routers of an LLMDeployment that is gone."""
        for poller in self._pollers.pop(owner, {}).values():
            poller.stop()

    async def close(self) -> None:
        """Stop everything."""
        for owner in list(self._pollers):
            self.forget(owner)
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            # A connection per question: thousands that idle for a minute cost more.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._http


class _Poller:
    def __init__(
        self,
        http: aiohttp.ClientSession,
        router: Router,
        running_since: datetime | None,
        url: str,
        silent_after: float,
    ) -> None:
        self._http = http
        self.router = router
        self._url = url
        self._silent_after = silent_after
        self._running_since = running_since
        self._expected: int | None = None
        self._first_after = 0.0
        self._expectation = asyncio.Event()
        self._unanswered: tuple[float, datetime] | None = None
        self._task: asyncio.Task[None] | None = None
        self.report: Report | None = None
        self._asked = asyncio.Event()

    @property
    def assumed(self) -> bool:
        return self.report is not None and not self._asked.is_set()

    def start(self, changed: Callable[[], None]) -> None:
        self._task = keep_running("router poll", lambda: self._run(changed))

    def assume(self, generation: int | None, seconds: float) -> None:
        """Take it to serve this, and ask it after so many seconds."""
        self._expected, self._first_after = generation, seconds
        self.report = _told(RouterState(traffic_generation=generation))

    async def ask(self) -> None:
        """Until it was asked once."""
        if not self._asked.is_set():
            self._expectation.set()
            await self._asked.wait()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def expect(self, generation: int | None, running_since: datetime | None) -> None:
        """Ask at once if another generation is commanded or the container started anew."""
        if running_since != self._running_since:
            self._running_since = running_since
            self.report = None  # it was the one before that said so
            self._expectation.set()
        if generation != self._expected:
            self._expected = generation
            self._expectation.set()

    async def _run(self, changed: Callable[[], None]) -> None:
        if self._first_after:
            await self._expectation_or(self._first_after)
        while True:
            self._expectation.clear()
            before = self.report
            answered = await self._ask_until_expectation_changes()
            if answered is None:
                continue
            self._asked.set()
            metrics.ROUTER_POLLS.labels("answered" if answered else "failed").inc()
            if self.report != before:
                changed()
            await self._pause(answered)

    async def _ask_until_expectation_changes(self) -> bool | None:
        """Ask once; None when meanwhile something else is to be asked.

        What was answered until then is of the generation, or the container, before.
        """
        asking = asyncio.create_task(self._ask())
        changing = asyncio.create_task(self._expectation.wait())
        try:
            await asyncio.wait({asking, changing}, return_when=asyncio.FIRST_COMPLETED)
            if self._expectation.is_set():
                return None
            report = asking.result()
        finally:
            asking.cancel()
            changing.cancel()
        if report is not None:
            self.report = report
        return report is not None

    async def _pause(self, answered: bool) -> None:
        confirmed = self._confirms()
        spread = random.uniform(0.9, 1.1)  # noqa: S311 - routers of many resources, one by one
        await self._expectation_or(
            SLOW_POLL_SECONDS * spread if answered and confirmed else RETRY_SECONDS
        )

    async def _expectation_or(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._expectation.wait()
        except TimeoutError:
            return

    def _confirms(self) -> bool:
        """Whether its last word was that it serves what is commanded."""
        said = None if self.report is None else self.report.value
        return said is not None and said.traffic_generation == self._expected

    async def _ask(self) -> Report | None:
        """The answer; None if there is none, which after a while is a report of its own."""
        waiting = self._expected is not None and not self._confirms()
        query: dict[str, str] = {}
        limit = ANSWER_SECONDS
        if waiting:
            # A hanging answer may take its time, a silent pod must be noticed within silent_after.
            query = {"generation": str(self._expected), "timeout": str(HANGING_GET_SECONDS)}
            limit = min(self._silent_after, HANGING_GET_SECONDS + ANSWER_SECONDS)
        began = self._unanswered or (time.monotonic(), datetime.now(UTC))
        try:
            async with self._http.get(
                self._url,
                params=query,
                timeout=aiohttp.ClientTimeout(total=limit, connect=ANSWER_SECONDS),
                raise_for_status=True,
                allow_redirects=False,  # a router names no other address for us to ask
            ) as answer:
                said = read_report(self.router, orjson.loads(await read_body(answer)))
        except (aiohttp.ClientError, TimeoutError, *UNREADABLE) as error:
            self._unanswered = began
            self._not_answered(*began, error)
            return None
        self._unanswered = None
        return _told(said)

    def _not_answered(self, since: float, since_time: datetime, error: Exception) -> None:
        if time.monotonic() - since < self._silent_after:
            return
        if self.report is not None and self.report.problem:
            return
        log.warning("router is silent", pod=self.router.pod, since=since_time, error=repr(error))
        as_of = None if self.report is None else self.report.as_of
        self.report = Signal(problem="it does not answer", as_of=as_of, since=since_time)


def _told(said: RouterState) -> Report:
    return Signal(value=said, as_of=datetime.now(UTC))


def read_report(router: Router, answer: object) -> RouterState:
    """A router's answer (docs/contract.md, Router).

    Routers of earlier versions name less of what they are; what they leave out is believed.

    Raises:
        KeyError, TypeError, ValueError: the answer is not of that shape, or another router's.
    """
    body = check_identity(router, answer)
    return RouterState(traffic_generation=_generation(body["trafficGeneration"]))


def check_identity(router: Router, answer: object) -> JSON:
    """The answer, unless it names another object or pod.

    Raises:
        TypeError, ValueError: it is another router's, or no answer.
    """
    if not isinstance(answer, dict):
        raise TypeError("the answer is no object")
    said = answer.get("object", {})
    if not isinstance(said, dict):
        raise TypeError(f"object is {said!r:.100}")
    for what, is_said, is_asked in (
        ("namespace", said.get("namespace"), router.owner[0]),
        ("name", said.get("name"), router.owner[1]),
        ("uid", said.get("uid"), router.owner_uid),
        ("pod uid", answer.get("podUid"), router.pod_uid),
    ):
        if is_said is not None and is_asked is not None and is_said != is_asked:
            raise ValueError(f"answered by another router: its {what} is {is_said!r:.100}")
    return answer


def _generation(value: object) -> int | None:
    return None if value is None else whole_number(value, "trafficGeneration")


def routers_of(
    owner: Owner, uid: str | None, pods: Iterable[ObservedPod]
) -> list[tuple[ObservedPod, Router]]:
    """The router pods among ``pods`` that have an address, as they have to name themselves."""
    return [
        (
            pod,
            Router(
                owner=owner, owner_uid=uid, pod=pod.name, pod_uid=pod.uid, address=pod.pod_ip
            ),
        )
        for pod in pods
        if pod.component == "router" and pod.pod_ip is not None
    ]  # fmt: skip
