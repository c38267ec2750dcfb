"""A client that asks as fast as it is answered, and notes which revision did."""

from __future__ import annotations

import asyncio
from collections import Counter

CONNECTIONS = 16
BODY = b'{"prompt":"x"}'
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nhost: chat\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


async def ask(port: int, count: int) -> Counter[str]:
    """Sends ``count`` requests over a few connections; how many each revision answered.

    Answers other than 200 are counted by their status.
    """
    shares = [count // CONNECTIONS + (i < count % CONNECTIONS) for i in range(CONNECTIONS)]
    return sum(await asyncio.gather(*[_ask_on_one(port, share) for share in shares]), Counter())


async def _ask_on_one(port: int, count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(count):
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        await reader.readexactly(int(headers["content-length"]))
        status = status_line.split()[1]
        found[headers["x-llmfleet-revision"] if status == "200" else status] += 1
    writer.close()
    return found
