"""What pods answer over HTTP: where they are asked, and how little of what they say is believed."""

from __future__ import annotations

from typing import Final

import aiohttp

from llmfleet.planning.revisions.shapes import show

LARGEST_INT64: Final = (1 << 63) - 1
LONGEST_ANSWER: Final = 1 << 20
"""In bytes; a router with ten revisions says a few thousand, its ledger a quarter of this."""
UNREADABLE: Final = (LookupError, RecursionError, TypeError, ValueError)
"""What is raised for an answer that is not of the contract's shape."""


def pod_url(address: str, port: int, path: str) -> str:
    """Where a pod answers.

    >>> pod_url("10.0.0.7", 9090, "/ready"), pod_url("fd00::7", 9090, "/ready")
    ('http://10.0.0.7:9090/ready', 'http://[fd00::7]:9090/ready')
    """
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"


async def read_body(answer: aiohttp.ClientResponse, longest: int = LONGEST_ANSWER) -> bytes:
    """The body of an answer.

    Raises:
        ValueError: it is longer; what comes after is not read.
    """
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > longest:
            raise ValueError(f"its answer is longer than {longest} bytes")
    return bytes(body)


def whole_number(value: object, what: str, largest: int = LARGEST_INT64) -> int:
    """A whole number from 0 on.

    Args:
        value: as it was read.
        what: its name, for the sentence.
        largest: up to which it may be.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise ValueError(f"{what} is {show(value)}, and no whole number from 0 to {largest}")
    return value
