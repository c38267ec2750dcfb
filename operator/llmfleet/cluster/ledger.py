"""Reads routers' ledgers for the objects whose rollout is judged, in the background.

``observe`` takes the last counts and never waits. Each router is asked for what changed since its
last answer (docs/contract.md, Router); what it books is absolute, so a lost answer costs nothing.
Without any router's answer for ``STALE_SECONDS`` the counts are unknown, with a sentence why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from llmfleet.api.values import Time
from llmfleet.cluster import metrics
from llmfleet.cluster.answers import UNREADABLE, pod_url, read_body, whole_number
from llmfleet.cluster.background import keep_running
from llmfleet.cluster.cohorts import COUNTED, SLOT_SECONDS, BookedRow, Cohorts
from llmfleet.cluster.routers import AGENT_PORT, ANSWER_SECONDS, Router, check_identity
from llmfleet.cluster.store import Owner
from llmfleet.planning.revisions.shapes import show
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import JSON, RequestCounts

POLL_SECONDS: Final = 5.0
ASKED_PER_SECOND: Final = 40.0
"""Questions; with 100 objects under judgement of two routers each, one turn takes five seconds."""
STALE_SECONDS: Final = 60.0
TURN_SECONDS: Final = 5.0
"""For all answers of one router in a turn, while each says that there is more; the rest is read in
the next turn, so that a slow one holds nobody up."""
LARGEST_COUNT: Final = 2**32 - 1
"""Of a cell of a router's table."""
AHEAD_SECONDS: Final = 60.0
"""So far its slots may be ahead of our time; later ones are of no clock to believe."""
KEYS: Final = ("slot", "generation", "revision", "class", "size")
NOT_COUNTED: Final = "no request of the new revision is counted yet"
NO_ROUTERS: Final = "no router is there that could say what it counted"
NOT_ASKED: Final = "routers were not asked yet what they counted"

log: Any = structlog.get_logger(__name__)
_TIME: Final = TypeAdapter[datetime](Time)

Counted = Signal[Mapping[str, RequestCounts]]
"""Counts by revision, or why there are none."""


class RouterOutdatedError(ValueError):
    """The router is of a version that keeps no ledger, or another one."""


@dataclass(slots=True, kw_only=True)
class _Reader:
    """How far one router was read."""

    router: Router
    epoch: str = ""
    next: int = 0
    ahead_seconds: float = 0.0
    """Its clock beside ours, as of the first answer of an epoch: slots stay where they were."""
    complete_until: float | None = None
    """Our time at the first of several answers, until the last of them has come."""
    answered: float | None = None
    """Monotonic time of its last answer."""
    problem: str = NOT_ASKED

    @property
    def name(self) -> str:
        """What cohorts call it: a new start of its Envoy counts from 0 again."""
        return f"{self.router.pod_uid}/{self.epoch}"


@dataclass(slots=True, kw_only=True)
class _Tracked:
    what: tuple[datetime, float, frozenset[str]]
    """Since when, the timeout of the first token, and the revisions that are judged."""
    cohorts: Cohorts
    readers: dict[str, _Reader] = field(default_factory=dict)
    """By uid of the pod."""
    shown: Counted = Signal(problem=NOT_ASKED)  # noqa: RUF009 - frozen


class LedgerPoller:
    """Keeps the counts of every LLMDeployment whose rollout is judged.

    Args:
        wake: called with the owner when its counts changed.
        port: of the agents; only tests choose another.
        poll_seconds: from one turn through all routers to the next.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        wake: Callable[[Owner], None],
        *,
        port: int = AGENT_PORT,
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._wake = wake
        self._port = port
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._tracked: dict[Owner, _Tracked] = {}
        self._wanted = asyncio.Event()
        self._http: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = keep_running("ledger", self._run)

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._http is not None:
            await self._http.close()

    def track(
        self, owner: Owner, status: JSON | None, routers: Iterable[Router], timeout_seconds: float
    ) -> None:
        """Count from now on what this status says is under judgement, if anything.

        Args:
            owner: whose.
            status: its status.
            routers: all that are there, those on their way out among them.
            timeout_seconds: of the first token.
        """
        since = counted_since(status)
        if since is None:
            self._tracked.pop(owner, None)
            return
        what = (since, timeout_seconds, judged_revisions(status))
        held = self._tracked.get(owner)
        if held is None or held.what != what:
            cohorts = Cohorts(since.timestamp(), *what[1:])
            held = self._tracked[owner] = _Tracked(what=what, cohorts=cohorts)
        readers = {}
        for router in routers:
            before = held.readers.get(router.pod_uid)
            known = before is not None and before.router == router
            readers[router.pod_uid] = before if known and before else _Reader(router=router)
        held.readers = readers
        held.cohorts.expect((one.name for one in readers.values()), self._clock())
        self._wanted.set()

    def forget(self, owner: Owner) -> None:
        """Drop an LLMDeployment that is gone."""
        self._tracked.pop(owner, None)

    def report(self, owner: Owner) -> Counted:
        """The counts by revision, or why there are none; computes nothing."""
        held = self._tracked.get(owner)
        return Signal(problem=NOT_COUNTED) if held is None else held.shown

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            await self._turn()
            if not self._tracked:
                self._wanted.clear()
                continue
            await asyncio.sleep(max(0.0, began + self._poll_seconds - time.monotonic()))

    async def _turn(self) -> None:
        """Ask every router once, a few a second, and look at what they said."""
        asking = []
        for owner in list(self._tracked):
            asking.append(asyncio.create_task(self._ask_all(owner)))
            held = self._tracked.get(owner)
            await asyncio.sleep((len(held.readers) if held else 1) / ASKED_PER_SECOND)
        await asyncio.gather(*asking)

    async def _ask_all(self, owner: Owner) -> None:
        held = self._tracked.get(owner)
        if held is None:
            return
        await asyncio.gather(*(self._ask(held, reader) for reader in held.readers.values()))
        if self._tracked.get(owner) is not held:
            return
        held.cohorts.look(self._clock())
        before, held.shown = held.shown, self._shown(held)
        if before != held.shown:
            self._wake(owner)

    def _shown(self, held: _Tracked) -> Counted:
        if not held.readers:
            return Signal(problem=NO_ROUTERS)
        now = time.monotonic()
        ages = [now - one.answered for one in held.readers.values() if one.answered is not None]
        if not ages or min(ages) > STALE_SECONDS:
            return Signal(problem=min(one.problem for one in held.readers.values()))
        as_of = datetime.fromtimestamp(self._clock() - min(ages), UTC).replace(microsecond=0)
        counts = held.cohorts.counts()
        if not counts:
            return Signal(problem=NOT_COUNTED, as_of=as_of)
        return Signal(value=counts, as_of=as_of)

    async def _ask(self, held: _Tracked, reader: _Reader) -> None:
        pod = reader.router.pod
        try:
            async with asyncio.timeout(TURN_SECONDS):
                while await self._read(held, reader):
                    pass
        except RouterOutdatedError as error:
            reader.problem = (
                f"router {pod} keeps no ledger that this operator can read ({error}): it is judged"
                " again once its pod is of the operator's own version"
            )
        except (aiohttp.ClientError, TimeoutError, *UNREADABLE) as error:
            reader.problem = f"router {pod} does not say what it counted: {show(str(error))}"
        else:
            metrics.ROUTER_POLLS.labels("answered").inc()
            reader.answered, reader.problem = time.monotonic(), ""
            return
        metrics.ROUTER_POLLS.labels("failed").inc()

    async def _read(self, held: _Tracked, reader: _Reader) -> bool:
        """Ask once; whether there is more.

        Raises:
            RouterOutdatedError: the router keeps no ledger of ours.
            ValueError and others of UNREADABLE: what it says makes no sense.
            aiohttp.ClientError, TimeoutError: it does not answer.
        """
        asked_at = self._clock()
        if reader.complete_until is None:
            reader.complete_until = asked_at
        async with self._session().get(
            pod_url(reader.router.address, self._port, "/llmfleet/ledger"),
            params={"since": str(reader.next)},
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            allow_redirects=False,
        ) as answer:
            if answer.status == 404:
                raise RouterOutdatedError("it has no such path")
            answer.raise_for_status()
            body = orjson.loads(await read_body(answer))
        check_identity(reader.router, body)
        epoch = body["epoch"]
        if not isinstance(epoch, str):
            raise TypeError("epoch is no text")
        if epoch != reader.epoch:
            # Its clock was read somewhere between question and answer.
            answered_at = self._clock()
            ahead = _number(body["now"]) - (asked_at + answered_at) / 2
            reader.ahead_seconds = ahead if abs(ahead) > (answered_at - asked_at) / 2 else 0.0
            again = reader.epoch != "" and reader.next > 0
            reader.epoch, reader.next, reader.complete_until = epoch, 0, None
            held.cohorts.expect((one.name for one in held.readers.values()), asked_at)
            if again:
                return True  # it was asked for what changed since a time of the epoch before
        # All of an answer is read before any of it is believed.
        rows = read_rows(body, reader.ahead_seconds, self._clock())
        following, more = whole_number(body["next"], "next"), body.get("more") is True
        # What is not complete may have one revision's rows and not yet the other's.
        until = 0.0 if more else reader.complete_until or asked_at
        held.cohorts.take(reader.name, rows, until)
        reader.next = following
        if not more:
            reader.complete_until = None
        return more

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._http


def counted_since(status: JSON | None) -> datetime | None:
    """When the attempt under way got its first requests; None while nothing is judged.

    A time that the models cannot read is none: whoever may write statuses stops no reconcile.
    """
    rollout = (status or {}).get("rollout") or {}
    since = rollout.get("servedSince")
    if not since or rollout.get("aborted"):
        return None
    try:
        return _TIME.validate_python(since)
    except ValidationError:
        return None


def judged_revisions(status: JSON | None) -> frozenset[str]:
    """Hashes of the revisions that this status holds against each other."""
    traffic = (status or {}).get("traffic") or []
    rollout = (status or {}).get("rollout") or {}
    named = [rollout.get("revision"), (status or {}).get("servedRevision")]
    named += [each.get("revision") for each in traffic if isinstance(each, dict)]
    return frozenset(each for each in named if isinstance(each, str))


def read_rows(answer: JSON, ahead_seconds: float, now: float) -> list[BookedRow]:
    """The rows of an answer; columns that nobody here knows are left out.

    Args:
        answer: of ``GET /llmfleet/ledger``.
        ahead_seconds: its clock beside ours.
        now: our time, in seconds since 1970.

    Raises:
        RouterOutdatedError: it lacks a column.
        KeyError, TypeError, ValueError: it is not of the contract's shape.
    """
    columns = {name: at for at, name in enumerate(answer["columns"])}
    missing = [name for name in (*KEYS, *COUNTED) if name not in columns]
    if missing or answer["slotSeconds"] != SLOT_SECONDS:
        raise RouterOutdatedError(f"it does not count {', '.join(missing) or 'in such slots'}")
    latest = int((now + ahead_seconds + AHEAD_SECONDS) / SLOT_SECONDS)
    slot, generation, revision, kind, size = (columns[name] for name in KEYS)
    counted = [columns[name] for name in COUNTED]
    # Whole slots, so that those of several routers are the same cohorts.
    slots_ahead = round(ahead_seconds / SLOT_SECONDS)
    rows = []
    for row in answer["rows"]:
        if not isinstance(row[revision], str) or not isinstance(row[kind], str):
            raise TypeError("a row names no revision or no class")
        rows.append(
            BookedRow(
                start=(whole_number(row[slot], "slot", latest) - slots_ahead) * SLOT_SECONDS,
                generation=whole_number(row[generation], "generation"),
                revision=row[revision],
                kind=row[kind],
                size=whole_number(row[size], "size", 64),
                counts=tuple(whole_number(row[at], "a count", LARGEST_COUNT) for at in counted),
            )
        )
    return rows


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise ValueError(f"{show(value)} is no time")
    return float(value)
