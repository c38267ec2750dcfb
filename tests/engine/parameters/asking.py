"""Sends requests to an engine, several at a time, and finds the one that ended it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.engine.parameters.requests import Request
from tests.engine.pod import TOKEN, Pod, descendants

DOCUMENTED = frozenset({200, 400, 404, 413, 415})
CONCURRENT = 16
ANSWER_WITHIN_SECONDS = 120.0
ENDS_WITHIN_SECONDS = 30.0
MOST_ENDS = 5
_STREAMED_ERROR = re.compile(r'^data: (\{"error":.*\})$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    request: Request
    status: int
    """HTTP status, or of the error inside a stream; 0: none, or a stream without its end."""
    text: str
    seconds: float

    @property
    def lost(self) -> bool:
        """Whether the engine may have ended over it."""
        return self.status == 0 or self.status >= 500

    @property
    def wrong(self) -> str | None:
        """What is wrong with it, None when nothing is."""
        if self.status not in DOCUMENTED:
            return f"{self.request}: {self.status} after {self.seconds:.1f} s: {self.text[-200:]}"
        if self.request.served not in {None, self.status == 200}:
            expected = "served" if self.request.served else "refused"
            return f"{self.request}: {self.status} instead of {expected}: {self.text[-200:]}"
        return None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of many requests."""

    answers: list[Answer] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """Requests that ended an engine, each with its last words."""

    @property
    def wrong(self) -> list[str]:
        """Everything that is wrong with the answers."""
        return [wrong for answer in self.answers if (wrong := answer.wrong) is not None]


class Engine:
    """An engine that is replaced when it ends; the context ends it."""

    def __init__(self, start: Callable[[], Pod]) -> None:
        self._start = start
        self._begin()

    def _begin(self) -> None:
        self.pod = self._start()
        try:
            self.pod.until_ready()
            self._core = self.pod.engine_core()
        except BaseException:
            self.pod.close()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.pod.close()

    def alive(self, operation: str) -> bool:
        """Whether it is the same process that still answers an ordinary request."""
        ordinary = Request(operation=operation, tried=())
        deadline = time.monotonic() + ENDS_WITHIN_SECONDS
        while self.pod.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = self.pod.ask(ordinary.path, ordinary.body)
                if status == 200 and self.pod.probe("/health")[0] == 200:
                    return self._core in descendants(self.pod.process.pid)
            time.sleep(0.5)
        return False

    def replace(self) -> str:
        """Starts another; the last words of the one that ended."""
        words = self.pod.words["message"] if self.pod.words_file.exists() else "no last words"
        self.pod.close()
        self._begin()
        return str(words)


def ask_all(requests: Sequence[Request], engine: Engine, name: str) -> Outcome:
    """Asks everything of one engine; when it ends, finds out over what and goes on with another.

    Args:
        requests: in the order in which they are sent; all of one operation, at least one.
        engine: has the operation.
        name: for the lines of progress on stderr.

    Raises:
        RuntimeError: more than MOST_ENDS ends.
    """
    left, outcome = deque(requests), Outcome()
    operation = requests[0].operation
    progress = _Progress(name, len(left))
    while left:
        answers = asyncio.run(_until_lost(engine.pod, left, progress))
        lost = [answer for answer in answers if answer.lost]
        if not lost or engine.alive(operation):
            outcome.answers += answers
            continue
        outcome.answers += [answer for answer in answers if not answer.lost]
        left.extend(_innocent([answer.request for answer in lost], engine, outcome.ends))
        if len(outcome.ends) > MOST_ENDS:
            raise RuntimeError("\n".join(["too many ends of the engine:", *outcome.ends]))
    if not engine.alive(operation):
        outcome.ends.append(f"{name}, after its last answer: {engine.replace()}")
    return outcome


def _innocent(suspects: list[Request], engine: Engine, ends: list[str]) -> list[Request]:
    """Asks each by itself; returns those that an engine survives, and notes the others."""
    words = engine.replace()
    innocent = []
    for suspect in suspects:
        asyncio.run(_until_lost(engine.pod, deque([suspect]), None))
        if engine.alive(suspect.operation):
            innocent.append(suspect)
        else:
            ends.append(f"{suspect}: {engine.replace()}")
    if len(innocent) == len(suspects):
        ends.append(f"none alone of {'; '.join(map(str, suspects))}: {words}")
        return []
    return innocent


async def _until_lost(pod: Pod, left: deque[Request], progress: _Progress | None) -> list[Answer]:
    """Answers in the order they came; hands out no more once one is lost."""
    answers: list[Answer] = []
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def work() -> None:
            while left and not any(answer.lost for answer in answers[-CONCURRENT:]):
                answers.append(await _ask(session, pod, left.popleft()))
                if progress is not None:
                    progress.one_more()

        await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    return answers


async def _ask(session: aiohttp.ClientSession, pod: Pod, request: Request) -> Answer:
    begun = time.monotonic()
    address = f"http://127.0.0.1:{pod.http}{request.path}"
    headers = {"x-llmfleet-token": TOKEN}
    try:
        async with session.post(address, json=request.body, headers=headers) as answer:
            text = await answer.text()
            status = answer.status
            if answer.content_type == "text/event-stream":
                status = stream_status(text)
    except (aiohttp.ClientError, TimeoutError) as error:
        status, text = 0, f"{type(error).__name__}: {error}"
    return Answer(request=request, status=status, text=text, seconds=time.monotonic() - begun)


def stream_status(text: str) -> int:
    r"""200, the code of an error inside, or 0 for a stream without its proper end.

    >>> stream_status('data: {"id": 1}\n\ndata: [DONE]\n\n')
    200
    >>> stream_status('data: {"error": {"code": 400}}\n\ndata: [DONE]\n\n')
    400
    >>> stream_status('event: error\ndata: {"code": "invalid_value"}\n\n')
    400
    >>> stream_status('data: {"id": 1}\n\n')
    0
    """
    *_, last = ["", *filter(None, text.split("\n\n"))]
    if (error := _STREAMED_ERROR.search(text)) is not None:
        return int(json.loads(error[1])["error"].get("code") or 500)
    if last.startswith("event: error\n"):
        return 400
    return 200 if last.startswith(("data: [DONE]", "event: response.completed\n")) else 0


class _Progress:
    """A line on stderr every few seconds."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._begun = self._said = time.monotonic()

    def one_more(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._said > 5 or self._done == self._total:
            self._said = now
            speed = self._done / (now - self._begun)
            line = f"{self._name}: {self._done} of {self._total} answered, {speed:.0f}/s"
            print(line, file=sys.stderr, flush=True)
