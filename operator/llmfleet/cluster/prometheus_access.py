"""How Prometheus is reached: where it is, who the operator is to it, and whom it takes for it.

Tokens, passwords and certificates come from files of mounted Secrets, which are rotated: they are
looked at before every question, and when one has changed the connection is made anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from llmfleet.cluster.prometheus_problems import NO_API, FileError, PrometheusError
from llmfleet.planning.snapshot import JSON, Labels

USERNAME: Final = "username"
PASSWORD: Final = "password"  # noqa: S105 - the name of a file, as Secrets of type basic-auth have it
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_LINE: Final = re.compile(r"[ -~]+")
"""What an HTTP header can hold as it stands: printable ASCII."""


class Prometheus(Protocol):
    """Whoever answers an instant query; a plain function of a query, in its own thread."""

    def custom_query(self, query: str) -> Sequence[JSON]:
        """The result of an instant query of a range selector: series with ``values``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusAccess:
    """Everything a connection is made of."""

    url: str
    """Of Prometheus, Thanos, Mimir or whatever speaks its API."""
    token_file: Path | None = None
    """With a bearer token."""
    basic_auth: Path | None = None
    """Folder with ``username`` and ``password`` (Secrets of type kubernetes.io/basic-auth)."""
    ca_file: Path | None = None
    """Certificates of the authorities that may vouch for it; None = those of the system."""
    client_certificate: Path | None = None
    """Folder with ``tls.crt`` and ``tls.key`` (Secrets of type kubernetes.io/tls)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each question, such as ``X-Scope-OrgID``."""
    matchers: Labels = ()
    """Labels that a series must have beside the object's own, such as ``cluster``."""

    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        found = [self.token_file, self.ca_file]
        if self.basic_auth is not None:
            found += [self.basic_auth / USERNAME, self.basic_auth / PASSWORD]
        if self.client_certificate is not None:
            found += [self.client_certificate / CERTIFICATE, self.client_certificate / KEY]
        return tuple(path for path in found if path is not None)


class Connection:
    """Asks by prometheus-api-client; each question has one try, and its answer limits.

    Args:
        access: how.
    """

    def __init__(self, access: PrometheusAccess) -> None:
        self._access = access
        self._client: Any = None
        self._made_of: tuple[tuple[int, int, int], ...] = ()

    def custom_query(self, query: str) -> Sequence[JSON]:
        """The answer.

        Raises:
            FileError: a file of the connection cannot be used.
            PrometheusError: there is no answer, or none of Prometheus.
        """
        now = tuple(_look(path) for path in self._access.files())
        if self._client is None or now != self._made_of:
            if self._client is not None:
                self._client.close()
            self._client, self._made_of = _connect(self._access), now
        try:
            found: Sequence[JSON] = self._client.custom_query(query)
        except PrometheusError:
            raise
        except Exception as error:  # the library reads the answer unseen
            raise PrometheusError(NO_API) from error
        return found


def _look(path: Path) -> tuple[int, int, int]:
    """What changes when a file's content does; a Secret's files are replaced by links."""
    try:
        found = path.stat()
    except OSError as error:
        raise FileError(_sentence(path, error)) from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode(errors="replace").rstrip("\r\n")
    except OSError as error:
        raise FileError(_sentence(path, error)) from error
    if not _LINE.fullmatch(text):
        raise FileError(f"its file {path} must hold one line of printable ASCII, and nothing else")
    return text


def _sentence(path: Path, error: OSError) -> str:
    return (
        f"its file {path} cannot be read ({error.strerror}): does the Secret have the key"
        f" {path.name}?"
    )


def _connect(access: PrometheusAccess) -> Any:
    # Imported here: who judges no requests is spared its memory.
    from prometheus_api_client import PrometheusConnect  # noqa: PLC0415

    from llmfleet.cluster.prometheus_session import BoundedSession  # noqa: PLC0415

    session = BoundedSession()
    session.headers.update(access.headers)
    if access.token_file is not None:
        session.headers["Authorization"] = f"Bearer {_read(access.token_file)}"
    if access.basic_auth is not None:
        session.auth = (_read(access.basic_auth / USERNAME), _read(access.basic_auth / PASSWORD))
    if access.ca_file is not None:
        session.verify = str(access.ca_file)
    if access.client_certificate is not None:
        folder = access.client_certificate
        session.cert = (str(folder / CERTIFICATE), str(folder / KEY))
    url = access.url.rstrip("/")
    client = PrometheusConnect(url=url, session=session)
    session.reach(url)  # after the library, which mounts an adapter of its own there
    return client
