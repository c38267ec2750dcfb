"""From where the engine may fetch pictures, sound and video: decisions only, no network, no vLLM.

Everything is judged twice: the address in the request, by the parser that will open it, and each
address that its host resolves to, at the moment of connecting (a name may be public when it is
checked and 127.0.0.1 when it is opened).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from yarl import URL

CONNECTOR = "llmfleet"
"""Name of our media connector in vLLM's registry."""
PRIVATE = "!private"
"""Ends an entry whose host may have a private address."""
HOST_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z]([-a-z0-9]{0,61}[a-z0-9])?(!private)?$"
)
"""An entry; the operator's api refuses others at apply. The last label begins with a letter, so
no spelling of an IP address is one."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv6-only clusters reach the IPv4 internet through it (RFC 6052)."""
_PLATFORM = frozenset({IPv4Address("168.63.129.16")})
"""Public by its number, yet a cloud's own service to each of its machines (Azure)."""


class MediaRefused(Exception):  # noqa: N818  # an answer to the client, not a fault of ours
    """Media that the engine must not fetch; the text is for the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPolicy:
    """The hosts of ``engine.media.allowedDomains``; none = only data: URLs."""

    private_allowed: Mapping[str, bool]
    """Host → whether it may have a private address."""
    cluster_addresses: frozenset[str] = frozenset()
    """Addresses of this cluster that may look public: the pod's own, the API server's."""

    @classmethod
    def from_entries(
        cls, entries: Iterable[str], cluster_addresses: Iterable[str] = ()
    ) -> MediaPolicy:
        """Reads the resource's own list.

        >>> MediaPolicy.from_entries(["a.example", "minio.svc!private"]).private_allowed
        {'a.example': False, 'minio.svc': True}
        """
        listed = set(entries)
        return cls(
            private_allowed={
                host: host + PRIVATE in listed
                for host in sorted(entry.removesuffix(PRIVATE) for entry in listed)
            },
            cluster_addresses=frozenset(cluster_addresses),
        )

    def check_url(self, url: str) -> None:
        """Refuses all but data: URLs and http(s) addresses of a listed host.

        Raises:
            MediaRefused: saying what to send instead.
        """
        if url[:5].lower() == "data:":
            return
        if not self.private_allowed:
            raise MediaRefused(
                "media must be sent inline as a data: URL: this engine fetches nothing"
            )
        try:
            parsed = URL(url)
            scheme, host = parsed.scheme, parsed.raw_host
        except ValueError:
            scheme, host = "", None
        if scheme not in {"http", "https"} or host is None:
            raise MediaRefused("media must be a data: URL or an http or https address of a host")
        self.check_host(host)

    def check_host(self, host: str) -> None:
        """Refuses hosts that are not listed, by their exact name.

        Raises:
            MediaRefused: naming the host.
        """
        if host.lower() not in self.private_allowed:
            raise MediaRefused(
                f"media are not fetched from {host[:253]!r}: send a data: URL (hosts are listed in"
                " spec.engine.media.allowedDomains)"
            )

    def is_private_allowed(self, host: str) -> bool:
        """Whether the host's entry says ``!private``."""
        return self.private_allowed.get(host.lower(), False)

    def may_connect(self, host: str, address: str) -> bool:
        """Whether media of a listed host may be fetched from this IP address.

        >>> policy = MediaPolicy.from_entries(["a.example"])
        >>> [policy.may_connect("a.example", ip) for ip in ("93.184.216.34", "169.254.169.254")]
        [True, False]
        """
        if self.is_private_allowed(host):
            return True
        return address not in self.cluster_addresses and is_public(address)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to somebody on the internet.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64) is judged by that.

    >>> [is_public(ip) for ip in ("::ffff:10.0.0.1", "64:ff9b::5db8:d822", "fd00::1")]
    [False, True, False]
    """
    parsed = _carried(ip_address(address.partition("%")[0]))
    return (
        parsed.is_global
        and not (parsed.is_multicast or parsed.is_reserved or parsed in _PLATFORM)
        and not (isinstance(parsed, IPv6Address) and parsed.is_site_local)
    )


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
