"""The API server, as JSON: reads, conditional writes and watch streams.

Every write is conditional on what it was decided from: creates by POST, changes by server-side
apply with the resourceVersion read, deletes with uid and resourceVersion preconditions.

The kubernetes package finds the cluster, its certificates and a fresh token. Requests are sent
past it: its walk through every body costs more than the request.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.rest import RESTClientObject

from llmfleet.cluster import metrics
from llmfleet.cluster.answers import read_body
from llmfleet.cluster.errors import (
    Conflict,
    Invalid,
    NotLeading,
    Unavailable,
    error_from_answer,
)
from llmfleet.cluster.kinds import FIELD_MANAGER, Kind
from llmfleet.planning.snapshot import JSON

REQUEST_TIMEOUT_SECONDS: Final = 30.0
CONNECT_TIMEOUT_SECONDS: Final = 10.0
CONNECTIONS: Final = 200
WATCH_BUFFER_BYTES: Final = 2**21
"""An event is a line; aiohttp's default holds 64 KiB."""
WATCH_SILENCE_SECONDS: Final = 150.0
"""Bookmarks come about once a minute; a stream silent for longer is taken for dead."""

_SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_JSON: Final = "application/json"
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"


async def load_configuration() -> Any:
    """Client configuration: the service account inside a pod, else ``KUBECONFIG``.

    Raises:
        RuntimeError: neither is there.
    """
    configuration = kube.Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST") and _SERVICE_ACCOUNT_TOKEN.exists():
        kube_config.load_incluster_config(client_configuration=configuration)
    else:
        path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        try:
            await kube_config.load_kube_config(config_file=path, client_configuration=configuration)
        except (OSError, kube_config.ConfigException) as error:
            raise RuntimeError(
                f"no access to a cluster: not inside a pod, and {path} is unusable ({error}); "
                "set KUBECONFIG to a kubeconfig file"
            ) from error
    return configuration


class ApiClient:
    """One connection pool to the API server.

    Args:
        configuration: from ``load_configuration``.
        may_write: asked before every write; False raises ``NotLeading`` instead of sending it.
    """

    def __init__(self, configuration: Any, may_write: Callable[[], bool] = lambda: True) -> None:
        self._configuration = configuration
        tls = RESTClientObject(configuration).ssl_context
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls),
            headers={
                "User-Agent": "llmfleet-operator",
                "Accept": _JSON,
                # The API server would compress large lists, which takes longer than sending them.
                "Accept-Encoding": "identity",
            },
            read_bufsize=WATCH_BUFFER_BYTES,
        )
        self.may_write = may_write

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        longest: int | None = None,
    ) -> JSON:
        """GET an object or a list; raises ``NotFound`` and the other ``ApiError`` types.

        Raises:
            ValueError: the answer has more than ``longest`` bytes; what comes after is not read.
        """
        return await self._call(
            "GET", path, query=query, timeout_seconds=timeout_seconds, longest=longest
        )

    async def create(self, kind: Kind, body: JSON, timeout_seconds: float | None = None) -> JSON:
        """POST a new object; raises ``AlreadyExists`` if the name is taken."""
        path = kind.path(body["metadata"]["namespace"])
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write(
            "POST", kind, path, body, query=query, timeout_seconds=timeout_seconds
        )

    async def apply(
        self, kind: Kind, body: JSON, *, resource_version: str, subresource: str = ""
    ) -> JSON:
        """Server-side apply of the whole intent to the object last read at ``resource_version``.

        Raises:
            Conflict: the object is no longer at that version.
        """
        meta = {**body["metadata"], "resourceVersion": resource_version}
        return await self._write(
            "PATCH",
            kind,
            kind.path(meta["namespace"], meta["name"], subresource),
            {**body, "metadata": meta},
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            content_type=_APPLY,
        )

    async def json_patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        operations: Sequence[JSON],
        subresource: str = "",
    ) -> JSON:
        """JSON patch; the caller puts a ``test`` of the resourceVersion first.

        The API server answers 422 both for a test that failed and for what a policy or the schema
        refuses; the object's resourceVersion tells which it was.

        Raises:
            Conflict: the object is no longer at the version that was tested.
            Invalid: the API server will refuse this patch however often it is sent.
        """
        path = kind.path(namespace, name, subresource)
        query = {"fieldManager": FIELD_MANAGER}
        try:
            return await self._write(
                "PATCH", kind, path, list(operations), query=query, content_type=_JSON_PATCH
            )
        except Invalid as error:
            now = await self.get(kind.path(namespace, name))
            if now["metadata"]["resourceVersion"] == operations[0]["value"]:
                raise
            raise Conflict(str(error), status=error.status, reason=error.reason) from error

    async def merge_patch(self, kind: Kind, namespace: str, name: str, body: JSON) -> JSON:
        """JSON merge patch, for Events only: they are nobody's decision."""
        path = kind.path(namespace, name)
        return await self._write("PATCH", kind, path, body, content_type=_MERGE_PATCH)

    async def replace(self, kind: Kind, body: JSON, timeout_seconds: float | None = None) -> JSON:
        """PUT the object; ``metadata.resourceVersion`` in the body makes it conditional."""
        meta = body["metadata"]
        path = kind.path(meta["namespace"], meta["name"])
        return await self._write("PUT", kind, path, body, timeout_seconds=timeout_seconds)

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str, resource_version: str | None
    ) -> JSON:
        """DELETE exactly the object that was observed; dependents go in the background."""
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        body: JSON = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        return await self._write("DELETE", kind, kind.path(namespace, name), body)

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[JSON]:
        """Stream watch events until the server ends the stream.

        Raises:
            Expired: list again.
            Unavailable: the stream broke or was silent for ``WATCH_SILENCE_SECONDS``.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_TIMEOUT_SECONDS, sock_read=WATCH_SILENCE_SECONDS
        )
        what = f"watch {path}"
        try:
            answer = await self._send("GET", path, {**query, "watch": "true"}, None, _JSON, timeout)
            async with answer:
                if answer.status >= 400:
                    raise error_from_answer(answer.status, await answer.read(), what)
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield _watch_event(line, what)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{what}: {error!r}", status=0) from error

    async def _write(
        self,
        verb: str,
        kind: Kind,
        path: str,
        body: Any,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        timeout_seconds: float | None = None,
    ) -> JSON:
        if not self.may_write():
            raise NotLeading(f"{verb} {path}: not sent, the lease is no longer held", status=0)
        metrics.API_WRITES.labels(kind.kind, verb).inc()
        return await self._call(
            verb,
            path,
            query=query,
            body=body,
            content_type=content_type,
            timeout_seconds=timeout_seconds,
        )

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        timeout_seconds: float | None = None,
        longest: int | None = None,
    ) -> JSON:
        timeout = aiohttp.ClientTimeout(
            total=timeout_seconds or REQUEST_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS
        )
        what = f"{verb} {path}"
        try:
            answer = await self._send(verb, path, query, body, content_type, timeout)
            async with answer:
                data = await (answer.read() if longest is None else read_body(answer, longest))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.API_ERRORS.labels("Unavailable").inc()
            raise Unavailable(f"{what}: {error!r}", status=0) from error
        if answer.status >= 400:
            failure = error_from_answer(
                answer.status, data, what, answer.headers.get("Retry-After")
            )
            metrics.API_ERRORS.labels(type(failure).__name__).inc()
            raise failure
        parsed: JSON = orjson.loads(data)
        return parsed

    async def _send(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        configuration = self._configuration
        headers = {"Content-Type": content_type}
        authorization = await configuration.get_api_key_with_prefix("BearerToken", "authorization")
        if authorization is not None:
            headers["Authorization"] = authorization
        return await self._session.request(
            verb,
            f"{configuration.host}{path}",
            params=query,
            headers=headers,
            data=None if body is None else orjson.dumps(body),
            timeout=limits,
            proxy=configuration.proxy,
            proxy_headers=configuration.proxy_headers,
            server_hostname=configuration.tls_server_name,
        )


def _watch_event(line: bytes, what: str) -> JSON:
    event: JSON = orjson.loads(line)
    if event.get("type") == "ERROR":
        status = event.get("object") or {}
        raise error_from_answer(int(status.get("code") or 500), orjson.dumps(status), what)
    return event
