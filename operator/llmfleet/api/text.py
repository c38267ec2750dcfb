"""Text that others wrote, made fit to be stored and shown: one function, used where it is read.

Termination messages, the API server's and Prometheus' sentences, annotations and what memory holds
come from whoever can write them. Half a surrogate cannot be encoded, so one would keep a status
from being written at all; escape sequences drive terminals; direction marks and line ends forge
what stands beside them.
"""

from __future__ import annotations

import re
from typing import Any, Final

DEEPEST: Final = 100
"""Levels of objects and lists; the resource has some 15."""

_ESCAPES: Final = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    "|(?:\x1b[\\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"  # OSC, DCS …
    "|\x1b[ -/]*[0-~]?"  # all others (ECMA-48, 5.3)
)
_LINE_ENDS: Final = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f]"  # controls (Cc) but tab and line feed
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # direction (UAX #9)
    "|[\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"  # marks and tags that show nothing
)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_BLANKS: Final = re.compile(r"\s*\n\s*|\t")


def clean_text(text: str) -> str:
    r"""Foreign text with nothing in it but characters that are seen, spaces, tabs and line feeds.

    Escape sequences, control characters and direction marks are left out, half a surrogate pair
    becomes U+FFFD, every kind of line end a line feed. Cleaning twice changes nothing more.

    >>> clean_text("\x1b[31mno\x1b[0m such\rfile \ud83d")
    'no such\nfile \ufffd'
    """
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_ENDS.sub("\n", _ESCAPES.sub("", text))
    return _SURROGATES.sub("\ufffd", _UNSEEN.sub("", text))


def clean_line(text: str) -> str:
    r"""Foreign text on one line: as ``clean_text``, and line ends and tabs become spaces.

    >>> clean_line("first\r\n  second\tthird ")
    'first second third'
    """
    return _BLANKS.sub(" ", clean_text(text)).strip()


def shorten(text: str, most_bytes: int) -> str:
    """A text that is too long without its middle: its end may be a command that somebody follows.

    >>> shorten("who is in the way, and what can be done: `command`", 32)
    'who is in the wa…ne: `command`'
    """
    whole = text.encode(errors="replace")
    if len(whole) <= most_bytes:
        return text
    room = most_bytes - len("…".encode())
    end = room * 9 // 20
    head, tail = whole[: room - end], whole[len(whole) - end :]
    return f"{head.decode(errors='ignore')}…{tail.decode(errors='ignore')}"


def clean_tree(value: Any, levels: int = DEEPEST) -> Any:
    """A JSON value with every string in it, keys included, as ``clean_text`` makes it.

    Of keys that become equal the last one stays; objects and lists below ``levels`` become null.
    """
    if isinstance(value, str):
        return clean_text(value)
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return None
    if isinstance(value, dict):
        return {clean_text(key): clean_tree(each, levels - 1) for key, each in value.items()}
    return [clean_tree(each, levels - 1) for each in value]
