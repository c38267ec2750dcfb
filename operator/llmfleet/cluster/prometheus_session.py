"""A session of requests whose answers end: in time, in bytes, and where they were asked for.

The time limit of requests is that of one read; a byte each second outlives it for ever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from llmfleet.api import clean_line
from llmfleet.cluster.prometheus_problems import PrometheusError, describe_problem

ANSWER_SECONDS: Final = 10.0
"""From the question to the last byte of the answer."""
LARGEST_BYTES: Final = 24 * 2**20
"""Unpacked. A week of two routers, scraped each 15 s, is 8 MiB; 24 MiB take ten times as much
memory while they are read, and the operator has half a GiB."""
CHUNK_BYTES: Final = 2**16
HOST_CHARACTERS: Final = 100


class BoundedSession(requests.Session):
    """Answers with status 200 and their whole body, or raises ``PrometheusError``.

    One question at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._deadline = 0.0
        self._socket: socket.socket | None = None

    def reach(self, url: str) -> None:
        """Hold the time limit for what is below this URL, and ask each question once.

        Any other has it too: requests changes URLs, to the ASCII form of a host for one.
        """
        adapter = _Adapter(self._opened, max_retries=Retry(total=0))
        for prefix in ("http://", "https://", url):
            self.mount(prefix, adapter)

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        """As ``requests.Session.request``, but redirects are not followed.

        Raises:
            PrometheusError: anything else than an answer that may be read.
        """
        options |= {"stream": True, "allow_redirects": False, "timeout": ANSWER_SECONDS}
        self._deadline = time.monotonic() + ANSWER_SECONDS
        timer = threading.Timer(ANSWER_SECONDS, self._cut)
        timer.daemon = True
        timer.start()
        problem = ""
        try:
            with super().request(method, url, *args, **options) as response:
                _check_status(response)
                body = _read(response)
        except Exception as error:  # noqa: BLE001 - of requests, urllib3, http.client, ssl, …
            problem = describe_problem(error)
        finally:
            timer.cancel()
        if time.monotonic() >= self._deadline:  # what was cut may look whole, or like anything
            problem = describe_problem(TimeoutError())
        if problem:  # no error is chained to it: what the others say may hold secrets
            raise PrometheusError(problem)
        return _Answer(body)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: requests would read the whole body to make ready what is never asked."""

    def _opened(self, opened: socket.socket) -> None:
        self._socket = opened
        if time.monotonic() >= self._deadline:
            self._cut()

    def _cut(self) -> None:
        """End what is being read; a TLS socket keeps its state, so that nothing reads past it."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Answer(requests.Response):
    """One with status 200, read to its end.

    Its JSON is read by orjson: json keeps the event loop from running while it reads, which is a
    second for 8 MiB.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.status_code = HTTPStatus.OK
        self._body = body

    def json(self, **_: Any) -> Any:
        return orjson.loads(self._body)


class _Adapter(HTTPAdapter):
    """Tells of each socket as soon as it is connected."""

    def __init__(self, opened: Callable[[socket.socket], None], **options: Any) -> None:
        self._opened = opened
        super().__init__(**options)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        if "ConnectionCls" not in vars(pool):
            pool.ConnectionCls = _telling(pool.ConnectionCls, self._opened)
        return pool


def _telling(kind: Any, opened: Callable[[socket.socket], None]) -> type:
    def connect(self: Any) -> None:
        kind.connect(self)
        opened(self.sock)

    return type(kind.__name__, (kind,), {"connect": connect})


def _host(url: str) -> str:
    try:
        return clean_line(urlsplit(url).hostname or "")[:HOST_CHARACTERS]
    except ValueError:
        return ""


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if 300 <= status < 400:
        place = _host(response.headers.get("Location", "")) or "another page"
        raise PrometheusError(f"the question is redirected to {place}: a login page?")
    if status != 200:
        phrase = next((f" ({each.phrase})" for each in HTTPStatus if each == status), "")
        raise PrometheusError(f"HTTP status {status}{phrase}")


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.raw.stream(CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > LARGEST_BYTES:
            raise PrometheusError(f"its answer is larger than {LARGEST_BYTES >> 20} MiB")
    return bytes(body)
