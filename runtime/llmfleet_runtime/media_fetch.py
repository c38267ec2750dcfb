"""The HTTP client that fetches media for the engine; knows aiohttp, not vLLM."""

from __future__ import annotations

import socket

from aiohttp import ClientResponse, ClientSession, DummyCookieJar, TCPConnector, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from llmfleet_runtime.media import MediaPolicy, MediaRefused


class GuardedResolver(AbstractResolver):
    """Resolves listed hosts only, and passes on only addresses that may be connected to."""

    def __init__(self, policy: MediaPolicy, inner: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            MediaRefused: the host is not listed, or has no address that is allowed.
            OSError: it does not resolve.
        """
        self._policy.check_host(host)
        # With its final dot a name is absolute: the search list, which holds the cluster's own
        # domains, would make a Service of the public name "minio.storage".
        name = host if self._policy.is_private_allowed(host) else f"{host.rstrip('.')}."
        found = await self._inner.resolve(name, port, family)
        allowed: list[ResolveResult] = [
            {**each, "hostname": host}
            for each in found
            if self._policy.may_connect(host, each["host"])
        ]
        if not allowed:
            raise MediaRefused(
                f"media are not fetched from {host!r}: its address is loopback, link-local,"
                " private or the cluster's own (see spec.engine.media.allowedDomains)"
            )
        return allowed

    async def close(self) -> None:
        """Closes the resolver it wraps."""
        await self._inner.close()


def media_session(policy: MediaPolicy, resolver: AbstractResolver | None = None) -> ClientSession:
    """A session that connects only where the policy allows; needs a running event loop.

    No proxy of the environment is used, since a proxy would resolve names by itself, and no
    cookie is kept, since the next request is somebody else's.
    """
    return ClientSession(
        connector=TCPConnector(resolver=resolver or GuardedResolver(policy)),
        cookie_jar=DummyCookieJar(),
        trust_env=False,
        raise_for_status=_refuse_redirects,
    )


async def _refuse_redirects(answer: ClientResponse) -> None:
    if 300 <= answer.status < 400:
        raise MediaRefused(
            f"the media's host answered with a redirect ({answer.status}), which is not followed:"
            " send the final address"
        )
