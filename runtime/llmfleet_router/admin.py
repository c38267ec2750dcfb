"""Envoy's admin interface, on the pod's loopback."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import aiohttp


class AdminError(RuntimeError):
    """Envoy's admin interface did not answer as expected."""


class Admin:
    """Envoy's admin interface."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._base = f"http://127.0.0.1:{port}"
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def _request(self, method: str, path: str, params: dict[str, str]) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=5), trust_env=False
            )
        try:
            async with self._session.request(method, self._base + path, params=params) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AdminError(f"{method} {path}: {error!r}") from error
        if answer.status != 200:
            raise AdminError(f"{method} {path}: {answer.status} {text[:200]}")
        return text

    async def live(self) -> bool:
        """True once Envoy has its configuration and takes connections."""
        try:
            return (await self._request("GET", "/ready", {})).startswith("LIVE")
        except AdminError:
            return False

    async def gone(self) -> bool:
        """True when nobody listens: slow is another matter, Envoy may be busy."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    async def stats(self, *patterns: str) -> dict[str, str]:
        """Stats whose whole name matches one of the regular expressions, as text."""
        text = await self._request("GET", "/stats", {"filter": f"^({'|'.join(patterns)})$"})
        pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
        return {name: value.strip('"') for name, value in pairs}

    async def numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Counters and gauges by exact name; those Envoy has not made yet are 0."""
        wanted = list(names)
        if not wanted:
            return {}
        found = await self.stats(*(re.escape(name) for name in wanted))
        return {name: int(found.get(name, "0")) for name in wanted}

    async def prometheus(self) -> str:
        """Envoy's metrics in Prometheus' text format, those never used left out."""
        return await self._request("GET", "/stats/prometheus", {"usedonly": ""})

    async def drain_listeners(self) -> None:
        """From now on answers ask their connection to close; new ones are still taken."""
        await self._request("POST", "/drain_listeners", {"graceful": ""})
