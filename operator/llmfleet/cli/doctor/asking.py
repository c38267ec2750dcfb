"""Questions to the API server, and what is known when one is not answered."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import urllib3
from kubernetes import client

from llmfleet.cli.access import FOREIGN, AccessError
from llmfleet.cli.doctor.finding import UnknownError

JSON = dict[str, Any]

SECONDS: Final = (5.0, 20.0)
"""To connect, and to answer."""
MOST_ITEMS: Final = 500
"""Of a list: more of a kind tell nothing that these do not."""


class Api:
    """The API server, asked by path.

    ``what`` is what is asked, as it goes on behind "you may not": "list Deployments in team-a".
    """

    def __init__(self) -> None:
        self._client = client.ApiClient()
        self.ahead_seconds: float | None = None
        """This machine's clock beside the API server's, as of the last answer; to the second."""

    def now(self) -> datetime:
        """By the API server's clock, as far as it is known."""
        here = datetime.now(UTC).timestamp()
        return datetime.fromtimestamp(here - (self.ahead_seconds or 0.0), UTC)

    def get(self, what: str, path: str, **query: str) -> JSON | None:
        """An object; None when it, its kind or its namespace is not there.

        Raises:
            UnknownError: it may not be read, or the API server answers with a failure.
            AccessError: there is no API server, or it knows nobody of this name.
        """
        return self._ask("GET", what, path, query)

    def list(self, what: str, path: str, **query: str) -> list[JSON] | None:
        """The first ``MOST_ITEMS`` of a list; None when their kind is not there.

        Raises:
            UnknownError: they may not be listed.
            AccessError: as for ``get``.
        """
        found = self._ask("GET", what, path, {"limit": str(MOST_ITEMS), **query})
        if found is None:
            return None
        items = found.get("items")
        if not isinstance(items, list):
            raise UnknownError(f"to {what} brings no list")
        return [each for each in items if isinstance(each, dict)]

    def create(self, what: str, path: str, body: JSON) -> JSON:
        """Send a question that is an object of its own, such as a SubjectAccessReview.

        Raises:
            UnknownError: it may not be asked.
            AccessError: as for ``get``.
        """
        found = self._ask("POST", what, path, {}, body)
        if found is None:
            raise UnknownError(f"the API server has no way to {what}")
        return found

    def text(self, what: str, path: str) -> tuple[int, str]:
        """Status and text of whatever a proxy of the API server leads to.

        Raises:
            UnknownError: nothing answers there in time.
        """
        try:
            status, body, _ = self._send("GET", path, {}, None)
        except urllib3.exceptions.HTTPError as error:
            raise UnknownError(f"to {what} brings no answer: {type(error).__name__}") from error
        return status, body.decode(errors="replace")

    def _ask(
        self, method: str, what: str, path: str, query: dict[str, str], body: JSON | None = None
    ) -> JSON | None:
        try:
            status, raw, date = self._send(method, path, query, body)
        except urllib3.exceptions.HTTPError as error:
            raise AccessError(f"the API server does not answer: {error}") from error
        self._note_clock(date)
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        # Everything that Kubernetes says has a kind, and what stands before it says anything.
        answer = found if isinstance(found, dict) and "kind" in found else None
        if status == 401:
            raise AccessError("the API server does not know you: log in, or mend the kubeconfig")
        if status == 403:
            raise UnknownError(f"you may not {what}")
        if status == 404:
            return None
        if status >= 400:
            said = (answer or {}).get("message") or "it does not say why"
            raise UnknownError(f"to {what} brings HTTP status {status}: {said}")
        if answer is None:
            raise AccessError(FOREIGN)
        return answer

    def _send(
        self, method: str, path: str, query: dict[str, str], body: JSON | None
    ) -> tuple[int, bytes, str | None]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request, _request_timeout=SECONDS)
        return answer.status, answer.read() or b"", answer.getheader("Date")

    def _note_clock(self, date: str | None) -> None:
        try:
            server = parsedate_to_datetime(date or "")
        except ValueError:
            return
        # Its times are cut to the second, so the middle of that second is nearest.
        self.ahead_seconds = datetime.now(UTC).timestamp() - (server.timestamp() + 0.5)
