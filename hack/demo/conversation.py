"""Requests through the router with the `openai` client, as a user's program would send them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from openai import OpenAI

DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answered request."""

    kind: str
    """chat, completion or stream"""
    text: str
    tokens: int
    """Output tokens, as the engine counted them."""
    seconds: float
    """From sending to the last byte."""
    first_token_seconds: float | None
    """Streams only: from sending to the first text."""

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second of the whole request."""
        return self.tokens / self.seconds if self.seconds else 0.0


def connect(base_url: str) -> OpenAI:
    """A client without retries, so that a lost request shows."""
    return OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0, timeout=120)


def chat(client: OpenAI, model: str, prompt: str, *, max_tokens: int = 48) -> Answer:
    """One chat completion, not streamed."""
    started = time.monotonic()
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=max_tokens,
        temperature=0,
    )
    return Answer(
        kind="chat",
        text=reply.choices[0].message.content or "",
        tokens=reply.usage.completion_tokens if reply.usage else 0,
        seconds=time.monotonic() - started,
        first_token_seconds=None,
    )


def complete(
    client: OpenAI, model: str, prompt: str, *, max_tokens: int = 48, min_tokens: int = 0
) -> Answer:
    """One plain completion of at least ``min_tokens`` (vLLM's own field)."""
    started = time.monotonic()
    reply = client.completions.create(
        model=model,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"min_tokens": min_tokens},
    )
    return Answer(
        kind="completion",
        text=reply.choices[0].text,
        tokens=reply.usage.completion_tokens if reply.usage else 0,
        seconds=time.monotonic() - started,
        first_token_seconds=None,
    )


def stream(client: OpenAI, model: str, prompt: str, *, max_tokens: int = 96) -> Answer:
    """One streamed chat completion; its pieces are joined."""
    started = time.monotonic()
    first: float | None = None
    pieces: list[str] = []
    tokens = 0
    for chunk in client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.monotonic() - started
            pieces.append(chunk.choices[0].delta.content)
    return Answer(
        kind="stream",
        text="".join(pieces),
        tokens=tokens,
        seconds=time.monotonic() - started,
        first_token_seconds=first,
    )


def samples(text: str, name: str) -> Iterator[float]:
    r"""Values of every series of one metric on a Prometheus text page.

    >>> list(samples('a_total{x="1"} 2.0\na_total{x="2"} 3\nab_total 9', "a_total"))
    [2.0, 3.0]
    """
    for match in re.finditer(rf"^{re.escape(name)}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE):
        yield float(match[1])


def acceptance(metrics_page: str) -> tuple[int, int]:
    """Tokens proposed and accepted by speculative decoding since the engine started."""
    drafted = sum(samples(metrics_page, DRAFTED))
    return int(drafted), int(sum(samples(metrics_page, ACCEPTED)))


def metrics(port: int) -> str:
    """The metrics page behind a local port."""
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).raise_for_status().text
