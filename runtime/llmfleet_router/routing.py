"""What ``status.routing`` says beside the weights: header route, mirror, preview, stickiness."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

JSON = dict[str, Any]

REVISION = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PRIVATE_PREFIX = "x-llmfleet-"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110's token; pseudo headers are none."""


class UnreadableTrafficError(ValueError):
    """The command is there but cannot be obeyed; the last one stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch:
    """What one header of a request must say."""

    name: str
    """In lower case."""
    kind: Literal["exact", "prefix"]
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRoute:
    """Requests that match all ``headers`` go to ``revision``, whatever the weights."""

    revision: str
    headers: tuple[HeaderMatch, ...]
    """At least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A share of the split's requests is sent to ``revision`` as well; its answers are dropped."""

    revision: str
    percent: int
    """1 … 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """``status.routing``; the default is what an absent one means."""

    header_route: HeaderRoute | None = None
    mirror: Mirror | None = None
    preview: str | None = None
    """The revision behind the preview port."""
    sticky: bool = False
    """The split's revision is chosen by the session, where a request names one."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions named, each once."""
        named = (
            self.header_route and self.header_route.revision,
            self.mirror and self.mirror.revision,
            self.preview,
        )
        return tuple(dict.fromkeys(revision for revision in named if revision))

    @property
    def mirrors(self) -> frozenset[str]:
        """The revisions that need a cluster for shadow requests."""
        return frozenset((self.mirror.revision,)) if self.mirror else frozenset()

    def among(self, available: Collection[str]) -> Routing:
        """The same without what leads to a revision that is not available."""
        header_route, mirror = self.header_route, self.mirror
        if header_route and header_route.revision not in available:
            header_route = None
        if mirror and mirror.revision not in available:
            mirror = None
        preview = self.preview if self.preview in available else None
        return replace(self, header_route=header_route, mirror=mirror, preview=preview)


def parse_routing(raw: object) -> Routing:
    """Reads ``status.routing``; absent keys and null mean "not asked for".

    Raises:
        UnreadableTrafficError: it contradicts docs/contract.md.

    >>> parse_routing({"preview": "5d41c0ffee", "later": True})
    Routing(header_route=None, mirror=None, preview='5d41c0ffee', sticky=False)
    """
    if raw is None:
        return Routing()
    routing = _mapping(raw, "status.routing")
    header_route, mirror, preview, stickiness = (
        routing.get(key) for key in ("headerRoute", "mirror", "preview", "stickiness")
    )
    if stickiness not in (None, "None", "Session"):
        raise UnreadableTrafficError(f"status.routing has the stickiness {stickiness!r}")
    return Routing(
        header_route=None if header_route is None else _header_route(header_route),
        mirror=None if mirror is None else _mirror(mirror),
        preview=None if preview is None else _revision(preview),
        sticky=stickiness == "Session",
    )


def routing_as_json(routing: Routing) -> JSON:
    """What ``parse_routing`` reads back."""
    content: JSON = {}
    if routing.header_route:
        content["headerRoute"] = {
            "revision": routing.header_route.revision,
            "headers": [{"name": h.name, h.kind: h.value} for h in routing.header_route.headers],
        }
    if routing.mirror:
        content["mirror"] = {
            "revision": routing.mirror.revision,
            "percent": routing.mirror.percent,
        }
    if routing.preview:
        content["preview"] = routing.preview
    if routing.sticky:
        content["stickiness"] = "Session"
    return content


def _header_route(raw: object) -> HeaderRoute:
    route = _mapping(raw, "headerRoute")
    headers = route.get("headers")
    if not isinstance(headers, list) or not headers:
        # None at all would match every request.
        raise UnreadableTrafficError("status.routing.headerRoute names no headers")
    return HeaderRoute(
        revision=_revision(route.get("revision")), headers=tuple(_header(one) for one in headers)
    )


def _header(raw: object) -> HeaderMatch:
    header = _mapping(raw, "headers")
    name, exact, prefix = header.get("name"), header.get("exact"), header.get("prefix")
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise UnreadableTrafficError(f"status.routing matches the header {name!r}")
    if name.lower().startswith(PRIVATE_PREFIX):
        # Routes are chosen before the module removes what clients may not say.
        raise UnreadableTrafficError(f"status.routing matches {name!r}, which is the router's own")
    if (exact is None) == (prefix is None):
        raise UnreadableTrafficError(f"status.routing wants exact or prefix of {name!r}")
    if exact is not None:
        return HeaderMatch(name=name.lower(), kind="exact", value=_value(exact))
    return HeaderMatch(name=name.lower(), kind="prefix", value=_value(prefix))


def _value(raw: object) -> str:
    # No header can say what is not printable, and Envoy's JSON knows no half of a surrogate pair.
    if not isinstance(raw, str) or not raw.isprintable():
        raise UnreadableTrafficError(f"status.routing matches the value {raw!r}")
    return raw


def _mirror(raw: object) -> Mirror:
    mirror = _mapping(raw, "mirror")
    percent = mirror.get("percent")
    if not isinstance(percent, int) or isinstance(percent, bool) or not 1 <= percent <= 100:
        raise UnreadableTrafficError(f"status.routing mirrors {percent!r} percent")
    return Mirror(revision=_revision(mirror.get("revision")), percent=percent)


def _revision(raw: object) -> str:
    if not isinstance(raw, str) or not REVISION.fullmatch(raw):
        raise UnreadableTrafficError(f"status.routing names no revision in {raw!r}")
    return raw


def _mapping(raw: object, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise UnreadableTrafficError(f"{what} is no object")
    return raw
