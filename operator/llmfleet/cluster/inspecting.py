"""Asks about pods that do not come what they do not tell themselves; ``observe`` takes the answers.

A pod that is not ready is asked about when that has lasted a while: its node, whether it lives;
while the node has not begun it, its Events, why; while its engine runs, its supervisor, whether a
download moves. One by one a few at a time, so that a thousand pods that start together cost
little: they are asked about more rarely then. Answers that are old by then, and questions that the
API server fails, leave a pod as one that was not asked about. Nothing is watched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import orjson
import structlog

from llmfleet.api import clean_line
from llmfleet.cluster.answers import UNREADABLE, pod_url, read_body, whole_number
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import ApiError, Forbidden, NotFound
from llmfleet.cluster.kinds import NODE, POD_EVENT
from llmfleet.cluster.pods import parse_time
from llmfleet.cluster.store import Owner
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import JSON, Download, ObservedPod, PodWarning

HEALTH_PORT: Final = 8081
AFTER_SECONDS: Final = 30.0
"""So long a pod may take without being asked about."""
EVERY_SECONDS: Final = 15.0
"""From one question about a pod to the next."""
ANSWERS_LAST: Final = timedelta(seconds=60)
"""So long an answer is known; bytes that moved since would be taken for none."""
AT_ONCE: Final = 4
ANSWER_SECONDS: Final = 3.0
NODE_SECONDS: Final = 10.0
"""So long an answer about a node counts for all of its pods."""
EVENT_AGE: Final = timedelta(minutes=10)
"""The kubelet tells again what lasts, at the latest after some two minutes."""
MOST_EVENTS: Final = 100
LONGEST_EVENTS: Final = 1 << 20
"""In bytes. Whoever may make Events may make them as large as objects can be."""
NO_NEWS: Final = ("FailedScheduling", "Unhealthy", "BackOff", "Failed")
"""Warnings that pods have many of and that say nothing about how they are begun. The API server
gives the oldest first, so they would hide what is looked for."""
MOST_NODES: Final = 1000
LONGEST_ANSWER: Final = 1 << 16
LONGEST_WARNING: Final = 1000
REASONS: Final = frozenset({
    "FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox",
    "NetworkNotReady", "FailedPrepareDynamicResources",
})  # fmt: skip
"""Of Events that say why a node does not begin a pod."""

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What is known of a pod beside itself."""

    node_lost: bool = False
    warning: PodWarning | None = None
    download: Download | None = None
    """As it was told last: one answer that does not come undoes nothing."""
    silent_since: datetime | None = None


NOT_ASKED: Final[Signal[Answers]] = Signal(problem="nobody was asked about it yet")


@dataclass(slots=True)
class _Inspected:
    pod: ObservedPod
    due: float
    told: Signal[Answers] = NOT_ASKED
    lost_at: datetime | None = None
    """When its node was known to be lost, last; what it is waited for counts from there."""


class PodInspector:
    """Keeps the answers about every pod that has not been ready for a while.

    Args:
        api: where nodes and Events are asked for.
        wake: called with the owner when an answer changes what is decided.
        port: of the supervisors; only tests choose another.
        after_seconds: see ``AFTER_SECONDS``.
        every_seconds: see ``EVERY_SECONDS``.
    """

    def __init__(
        self,
        api: ApiClient,
        wake: Callable[[Owner], None],
        *,
        port: int = HEALTH_PORT,
        after_seconds: float = AFTER_SECONDS,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._api = api
        self._wake = wake
        self._port = port
        self._after = after_seconds
        self._every = every_seconds
        self._pods: dict[Owner, dict[str, _Inspected]] = {}
        self._nodes: dict[str, tuple[float, bool]] = {}
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None

    def track(self, owner: Owner, pods: Iterable[ObservedPod]) -> tuple[ObservedPod, ...]:
        """Ask about these pods from now on; the same pods with what is known of them.

        Args:
            owner: whose.
            pods: all of its pods, as the cache has them.
        """
        held, now = self._pods.pop(owner, {}), datetime.now(UTC)
        kept: dict[str, _Inspected] = {}
        found = []
        for pod in pods:
            since = _waits_since(pod, now)
            if since is None:
                found.append(pod)
                continue
            known = held.get(pod.uid)
            if known is None:
                wait = max(0.0, self._after - (now - since).total_seconds())
                known = _Inspected(pod, time.monotonic() + wait)
                self._added.set()
            elif known.pod.running_since != pod.running_since:
                # Another container than the one that answered.
                known = _Inspected(pod, known.due, lost_at=known.lost_at)
            known.pod = pod
            if pod.node_lost:
                known.lost_at = now
            kept[pod.uid] = known
            found.append(_amended(pod, known, now))
        if kept:
            self._pods[owner] = kept
            self._start()
        return tuple(found)

    def forget(self, owner: Owner) -> None:
        """Ask nothing more about the pods of an LLMDeployment that is gone."""
        self._pods.pop(owner, None)

    async def close(self) -> None:
        """Stop everything."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def _start(self) -> None:
        if self._task is None:
            self._task = keep_running("pod inspection", self._run)

    async def _run(self) -> None:
        while True:
            self._added.clear()
            now = time.monotonic()
            every = [(owner, one) for owner, pods in self._pods.items() for one in pods.values()]
            due = sorted((pair for pair in every if pair[1].due <= now), key=lambda x: x[1].due)
            for begin in range(0, len(due), AT_ONCE):
                await asyncio.gather(*(self._ask(*pair) for pair in due[begin : begin + AT_ONCE]))
            later = [one.due for _, one in every if one.due > now]
            pause = min([self._every, *(each - time.monotonic() for each in later)])
            try:
                async with asyncio.timeout(max(0.05, pause) if every else None):
                    await self._added.wait()
            except TimeoutError:
                continue

    async def _ask(self, owner: Owner, one: _Inspected) -> None:
        pod = one.pod
        one.due = time.monotonic() + self._every  # whatever comes of this, others have their turn
        try:
            answers = await self._answers(owner[0], pod, one.told.value or Answers())
        except (ApiError, *UNREADABLE) as error:  # what was known grows old
            log.debug("nothing is known of a pod", pod=pod.name, error=str(error))
            return
        if one.pod.running_since != pod.running_since:
            return
        now = datetime.now(UTC)
        if answers.node_lost:
            one.lost_at = now
        before = _fresh(one.told, now).value
        one.told = Signal(value=answers, as_of=now)
        if before is None or _matters(before) != _matters(answers):
            self._wake(owner)

    async def _answers(self, namespace: str, pod: ObservedPod, before: Answers) -> Answers:
        """All that is asked about a pod; a download stays known until another is told.

        Raises:
            ApiError and others of UNREADABLE: the API server does not say it.
        """
        known = Answers(download=before.download)
        if await self._is_node_lost(pod.node):
            return replace(known, node_lost=True)  # nothing else would change what is decided
        if pod.deleting:
            return known
        if pod.running_since is None:
            return replace(known, warning=await self._find_warning(namespace, pod))
        return await self._ask_supervisor(pod, before) if pod.component == "engine" else known

    async def _is_node_lost(self, name: str | None) -> bool:
        """Whether Kubernetes takes a node for lost; False for those that may not look at nodes.

        A node that is gone is not taken for lost: its pods are collected in a moment.

        Raises:
            ApiError: the API server does not say it.
        """
        if name is None:
            return False
        asked_at, lost = self._nodes.get(name, (-NODE_SECONDS, False))
        if time.monotonic() < asked_at + NODE_SECONDS:
            return lost
        try:
            body = await self._api.get(NODE.path(None, name), timeout_seconds=ANSWER_SECONDS)
        except (NotFound, Forbidden) as error:
            log.debug("node not read", node=name, error=str(error))
            lost = False
        else:
            lost = not is_node_ready(body)
        if len(self._nodes) >= MOST_NODES:
            self._nodes.clear()
        self._nodes[name] = (time.monotonic(), lost)
        return lost

    async def _find_warning(self, namespace: str, pod: ObservedPod) -> PodWarning | None:
        terms = [f"involvedObject.uid={pod.uid}", "type=Warning"]
        query = {
            "fieldSelector": ",".join([*terms, *(f"reason!={each}" for each in NO_NEWS)]),
            "limit": str(MOST_EVENTS),
        }
        try:
            page = await self._api.get(
                POD_EVENT.path(namespace), query, ANSWER_SECONDS, longest=LONGEST_EVENTS
            )
            return latest_warning(page.get("items") or [], datetime.now(UTC))
        except (Forbidden, NotFound, *UNREADABLE) as error:
            log.debug("events not read", pod=pod.name, error=str(error))
            return None

    async def _ask_supervisor(self, pod: ObservedPod, before: Answers) -> Answers:
        """What an engine pod says of its download; what it said last, while nobody answers."""
        if pod.pod_ip is None:
            return replace(before, node_lost=False)
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
            self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        try:
            async with self._http.get(
                pod_url(pod.pod_ip, self._port, "/health"),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
                allow_redirects=False,
            ) as answer:
                body = await read_body(answer, LONGEST_ANSWER)
            return Answers(download=read_download(orjson.loads(body), datetime.now(UTC)))
        except (aiohttp.ClientError, TimeoutError, *UNREADABLE) as error:
            log.debug("no answer about a download", pod=pod.name, error=repr(error))
            since = before.silent_since or datetime.now(UTC).replace(microsecond=0)
            return Answers(download=before.download, silent_since=since)


def is_node_ready(body: JSON) -> bool:
    """Whether a node is ready; the node controller says so of one that says nothing any more."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def latest_warning(events: Iterable[JSON], now: datetime) -> PodWarning | None:
    """The latest of a pod's Events that says why it is not begun; None without one of now."""
    found = []
    for event in events:
        series = event.get("series") or {}
        times = [event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime")]
        seen = max((at for each in times if (at := parse_time(each)) is not None), default=None)
        reason, message = str(event.get("reason") or ""), str(event.get("message") or "")
        # Those of a time to come are nobody's news, and would be the latest for ever.
        recent = seen is not None and now - EVENT_AGE < seen < now + EVENT_AGE
        if reason in REASONS and message and seen is not None and recent:
            found.append((seen, reason, message))
    if not found:
        return None
    _, reason, message = max(found)
    return PodWarning(reason=reason, message=clean_line(message)[:LONGEST_WARNING])


def read_download(answer: Any, now: datetime) -> Download | None:
    """What a supervisor's ``/health`` says of a download (docs/contract.md); None without one.

    Raises:
        KeyError, TypeError, ValueError: the answer is not of that shape.
    """
    said = answer.get("download") if isinstance(answer, dict) else None
    if said is None:
        return None
    idle = float(said["idleSeconds"])
    if not 0 <= idle < timedelta.max.total_seconds() / 10:
        raise ValueError(f"idleSeconds is {idle}")
    total = said["totalBytes"]
    return Download(
        bytes_done=whole_number(said["bytes"], "bytes"),
        bytes_total=None if total is None else whole_number(total, "totalBytes"),
        moved_at=(now - timedelta(seconds=min(idle, 10**9))).replace(microsecond=0),
        ended=answer["phase"] != "Fetching",
    )


def _waits_since(pod: ObservedPod, now: datetime) -> datetime | None:
    """Since when a pod should have been begun, be ready, or be gone; None for one that is well."""
    if pod.node is None or pod.phase in {"Failed", "Succeeded"}:
        return None
    if pod.deleting:
        return pod.ends_at if pod.ends_at is not None and now >= pod.ends_at else None
    if pod.ready:
        return None
    since = pod.running_since or pod.sandbox_missing_since or pod.created_at
    return max(since, pod.unready_since) if pod.unready_since is not None else since


def _fresh(told: Signal[Answers], now: datetime) -> Signal[Answers]:
    return told.at(now, ANSWERS_LAST, "what was asked about it is")


def _amended(pod: ObservedPod, known: _Inspected, now: datetime) -> ObservedPod:
    answers, unready_since = _fresh(known.told, now).value, pod.unready_since
    if known.lost_at is not None and not pod.deleting:
        # Its engine is probed anew when its node is back, and nobody says since when it is.
        unready_since = max(unready_since or known.lost_at, known.lost_at)
    if answers is None:
        # A node that came back would have ended it: what held nothing then holds nothing now.
        last = known.told.value
        gone = pod.deleting and last is not None and last.node_lost
        lost = pod.node_lost or gone
        return replace(pod, asked=False, node_lost=lost, unready_since=unready_since)
    return replace(
        pod,
        unready_since=unready_since,
        node_lost=pod.node_lost or answers.node_lost,
        warning=answers.warning,
        download=answers.download,
        silent_since=answers.silent_since,
    )


def _matters(answers: Answers) -> object:
    """What of the answers changes a decision or what is told; a download is told in tenths."""
    download = answers.download
    if download is None:
        return answers
    total = download.bytes_total or 1 << 63
    moved = (10 * download.bytes_done // max(1, total), download.bytes_total, download.ended)
    return replace(answers, download=None), moved
