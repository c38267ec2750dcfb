"""The source that watches the API server: one LLMDeployment and its revisions' EndpointSlices.

Plain list and watch over aiohttp: two resources, read only, as raw JSON; the models of the full
client would cost the agent its start time and most of its memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any

import aiohttp
import structlog

from llmfleet_router.kubeconfig import KubeAccess
from llmfleet_router.model import Endpoint, parse_command
from llmfleet_router.routing import UnreadableTrafficError
from llmfleet_router.settings import Settings
from llmfleet_router.store import Store

JSON = dict[str, Any]
log = structlog.get_logger("kube")

GROUP_PATH = "apis/llmfleet.dev/v1alpha1"
DEPLOYMENT_LABEL = "llmfleet.dev/deployment"
REVISION_LABEL = "llmfleet.dev/revision"
PORT_NAME = "http"
WATCH_SECONDS = 240
"""The server ends a watch after this ± 25 %; resuming costs one request and no list."""
READ_GRACE_SECONDS = 30
SILENCE_SECONDS = 90
"""Bookmarks come about once a minute (at most 75 s apart); a stream that is silent for longer is
taken for dead, so that a half-open connection does not keep a router on an old command."""
LIST_TIMEOUT_SECONDS = 30
REOPEN_SECONDS = (1.0, 1.5)
"""From the opening of one watch to that of the next, at least; where in between is drawn."""
BACKOFF_SECONDS = (0.5, 30.0)


class ExpiredError(Exception):
    """The resourceVersion is too old (410), or the watch went back in time: list again."""


class Watched:
    """A cache of one kind, replaced whole at every list, so deletions missed are seen."""

    def __init__(
        self,
        access: KubeAccess,
        path: str,
        params: dict[str, str],
        on_change: Callable[[dict[str, JSON]], None],
    ) -> None:
        self._access = access
        self._path = path
        self._params = params
        self._on_change = on_change
        self._items: dict[str, JSON] = {}
        self._opened: float | None = None
        """When the last watch was, by the monotonic clock."""

    async def run(self) -> None:
        """Lists and watches until cancelled; backs off with jitter on every failure."""
        failures = 0
        while True:
            timeout = aiohttp.ClientTimeout(total=None, connect=10)
            try:
                # A session per attempt: a connection that hangs is never used again.
                async with aiohttp.ClientSession(timeout=timeout) as session:
                    version = await self._list(session)
                    failures = 0
                    while True:
                        version = await self._watch(session, version)
            except ExpiredError:
                log.info("list_again", path=self._path)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                failures += 1
                low, high = BACKOFF_SECONDS
                delay = min(high, low * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                log.warning(
                    "api_server_unreachable", path=self._path, error=str(error) or repr(error),
                    retry_seconds=round(delay, 1),
                )  # fmt: skip
                await asyncio.sleep(delay)

    async def _list(self, session: aiohttp.ClientSession) -> str:
        items: dict[str, JSON] = {}
        params = {**self._params, "limit": "500"}
        while True:
            async with session.get(
                f"{self._access.url}/{self._path}",
                params=params,
                headers=self._access.headers(),
                ssl=self._access.ssl_context or True,
                timeout=aiohttp.ClientTimeout(total=LIST_TIMEOUT_SECONDS),
            ) as answer:
                if answer.status == 410:
                    raise ExpiredError
                answer.raise_for_status()
                page = await answer.json(content_type=None)
            items |= {item["metadata"]["name"]: item for item in page.get("items") or ()}
            token = page["metadata"].get("continue")
            if not token:
                break
            params["continue"] = token
        self._items = items
        self._on_change(items)
        return str(page["metadata"]["resourceVersion"])

    async def _turn(self) -> None:
        """Waits until another watch may be opened, however the last one ended.

        One that a proxy ends at once, or that is always too old, would be asked for without pause.
        """
        if self._opened is not None:
            low, high = REOPEN_SECONDS
            due = self._opened + random.uniform(low, high)  # noqa: S311 - jitter
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._opened = time.monotonic()

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> str:
        await self._turn()
        seconds = int(WATCH_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        params = {
            **self._params, "watch": "true", "allowWatchBookmarks": "true",
            "resourceVersion": version, "timeoutSeconds": str(seconds),
        }  # fmt: skip
        async with session.get(
            f"{self._access.url}/{self._path}",
            params=params,
            headers=self._access.headers(),
            ssl=self._access.ssl_context or True,
            timeout=aiohttp.ClientTimeout(
                total=seconds + READ_GRACE_SECONDS, connect=10, sock_read=SILENCE_SECONDS
            ),
        ) as answer:
            if answer.status == 410:
                raise ExpiredError
            answer.raise_for_status()
            async for line in _lines(answer.content):
                version = self._take(json.loads(line), version)
        return version

    def _take(self, event: JSON, reached: str) -> str:
        """Takes one event; returns the version it is of, never one before ``reached``."""
        item = event["object"]
        if event["type"] == "ERROR":
            if item.get("code") == 410:
                raise ExpiredError
            raise ValueError(f"watch error: {item.get('message', item)}")
        version = str(item["metadata"]["resourceVersion"])
        if _number(version) < _number(reached):
            # The API server tells in order. Something between swapped two events, and the older
            # one would bring back a command, or an endpoint, that is no longer true.
            raise ExpiredError
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self._items[item["metadata"]["name"]] = item
                self._on_change(self._items)
            case "DELETED":
                self._items.pop(item["metadata"]["name"], None)
                self._on_change(self._items)
            case _:  # BOOKMARK: only the version moves
                pass
        return version


def _number(version: str) -> int:
    return int(version) if version.isdigit() else -1


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; StreamReader's own iteration refuses long ones."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line


class KubeSource:
    """Feeds a store from the API server. Writes nothing there."""

    def __init__(self, settings: Settings, access: KubeAccess) -> None:
        self._settings = settings
        self._access = access

    async def run(self, store: Store) -> None:
        """Watches both kinds until cancelled."""
        name, namespace = self._settings.name, self._settings.namespace
        deployment = Watched(
            self._access,
            f"{GROUP_PATH}/namespaces/{namespace}/llmdeployments",
            {"fieldSelector": f"metadata.name={name}"},
            lambda items: take_deployment(items.get(name), store),
        )
        slices = Watched(
            self._access,
            f"apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            {"labelSelector": f"{DEPLOYMENT_LABEL}={name}"},
            lambda items: store.set_endpoints(ready_endpoints(list(items.values()))),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(deployment.run())
            group.create_task(slices.run())


def take_deployment(item: JSON | None, store: Store) -> None:
    """Gives the store the traffic command; a missing or unreadable one changes nothing."""
    if item is None:
        log.warning("deployment_absent", consequence="what is served stays")
        return
    try:
        uid = (item.get("metadata") or {}).get("uid")
        command = parse_command(item.get("status") or {}, uid)
    except UnreadableTrafficError as error:
        log.warning("traffic_unreadable", error=str(error), consequence="what is served stays")
        return
    if command is not None:
        store.set_command(command)


def ready_endpoints(slices: list[JSON]) -> dict[str, tuple[Endpoint, ...]]:
    """Ready addresses per revision; IPv4 where a revision has both families.

    A missing ``ready`` condition counts as true, as the EndpointSlice API says. Left out is what
    Envoy cannot use though the API admits it: a port without a number (it means all ports), and
    addresses with leading zeros.
    """
    found: dict[str, dict[str, set[Endpoint]]] = {}
    for item in slices:
        revision = (item["metadata"].get("labels") or {}).get(REVISION_LABEL)
        ports = [p.get("port") for p in item.get("ports") or () if p.get("name") == PORT_NAME]
        if not revision or not ports or not ports[0] or item.get("addressType") == "FQDN":
            continue
        family = found.setdefault(revision, {}).setdefault(item["addressType"], set())
        for endpoint in item.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") in {True, None}:
                usable = filter(_is_address, endpoint["addresses"][:1])
                family |= {Endpoint(address=a, port=ports[0]) for a in usable}
    return {
        revision: tuple(sorted(families.get("IPv4") or families.get("IPv6") or ()))
        for revision, families in found.items()
    }


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        log.debug("endpoint_unusable", address=text)
        return False
    return True
