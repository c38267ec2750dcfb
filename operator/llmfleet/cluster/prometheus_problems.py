"""Why a question to Prometheus failed, in words that may be shown to anyone.

They stand in statuses, Events and logs. So they are made of the cause alone, never of an error's
own words, which repeat the URL, the query, headers or what the other side sent; and the same cause
is told in the same words each time, since a new sentence wakes the object.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from llmfleet.api import clean_line

NO_API: Final = "what comes from its address is no answer of Prometheus' API: is the URL right?"


_SECRETS: Final = "prometheus.tokenSecret or prometheus.basicAuthSecret"
_SETTINGS: Final = (
    ("HTTP status 401", _SECRETS),
    ("HTTP status 403", _SECRETS),
    ("its certificate", "prometheus.caSecret"),
    ("TLS fails", "prometheus.caSecret or prometheus.clientCertificateSecret"),
    ("the question is redirected", f"prometheus.url, {_SECRETS}"),
    ("its file", "the Secrets that the chart's values under prometheus name"),
)
"""How the words below begin, and the chart values that mend it."""


class PrometheusError(Exception):
    """A question without an answer; the message is fit to be shown."""


class FileError(PrometheusError):
    """A file that the connection needs cannot be used; the message names it."""


def describe_problem(error: BaseException) -> str:
    """The innermost cause that has a name of its own, else the kind of the error.

    >>> describe_problem(ConnectionRefusedError(111, "http://user:password@host refused"))
    'connection refused'
    >>> describe_problem(ValueError("Bearer secret"))
    'ValueError'
    """
    if isinstance(error, PrometheusError):
        return clean_line(str(error))
    named = (_describe(each) for each in reversed(list(_causes(error))))
    return next((clean_line(each) for each in named if each is not None), type(error).__name__)


def name_setting(problem: str) -> str:
    """The chart value that mends a problem of ``describe_problem``.

    >>> name_setting("HTTP status 401 (Unauthorized)")
    'prometheus.tokenSecret or prometheus.basicAuthSecret'
    >>> name_setting("connection refused")
    'prometheus.url'
    """
    found = (setting for words, setting in _SETTINGS if problem.startswith(words))
    return next(found, "prometheus.url")


def _describe(error: BaseException) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted ({error.verify_message})"
        case ssl.SSLError():
            return f"TLS fails ({error.reason})" if error.reason else "TLS fails"
        case socket.gaierror():
            return "its name is not known"
        case TimeoutError():
            return "no answer in time"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was made of, outermost first; urllib3 has some as an argument."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        inner = found.args[0] if found.args and isinstance(found.args[0], BaseException) else None
        found = found.__cause__ or found.__context__ or inner
