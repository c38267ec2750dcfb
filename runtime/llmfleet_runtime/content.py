"""What a conversation may hold: its length, the kinds of its parts, and where media come from.

The engine takes media out of chat messages, of the input of /v1/responses (results of functions
included) and of single and batched chats to embed. All are searched by the names of the fields
that it reads, at any depth, rather than by the shapes a message has today. Addresses are refused
here so that the answer comes early and clear; the gate is the media connector (``vllm_plugins``),
which sees each address at the moment the engine would open it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmfleet_runtime.media import MediaPolicy, MediaRefused
from llmfleet_runtime.refused import Refused, refuse, shown

MAX_CONVERSATION_ITEMS = 8_192
"""Items of all lists of a conversation: messages, their parts, and whatever lies below. The
engine's validation takes up to 0.07 ms for each, in one go."""

_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})
_MEDIA_PARTS: Mapping[str, str] = {
    "image_url": "image_url",
    "input_image": "image_url",
    "input_audio": "input_audio",
    "audio_url": "audio_url",
    "video_url": "video_url",
}
"""Type of a part → the field that holds its media."""
_ADDRESSES = ("image_url", "audio_url", "video_url")
_LISTS_OF_PARTS = ("content", "output")


def check_content(value: Any, field: str, media: MediaPolicy) -> None:
    """Checks one conversation, whatever its shape.

    Args:
        value: the value of ``messages`` or ``input``, as parsed.
        field: its name, for the answer.
        media: from where media may be fetched.

    Raises:
        Refused: too long, a part of an unknown type, media from elsewhere, or a ``uuid``, which
            would name the cache entry of somebody else's picture.
    """
    nodes = [value]
    items = 0
    for node in nodes:  # grows while it is read: as deep as the value is, without recursion
        if isinstance(node, list):
            items += len(node)
            if items > MAX_CONVERSATION_ITEMS:
                refuse(
                    f"{field} holds more than {MAX_CONVERSATION_ITEMS} messages and parts: send a"
                    " shorter conversation.",
                    param=field,
                )
            nodes.extend(node)
        elif isinstance(node, dict):
            _check_object(node, field, media)
            nodes.extend(node.values())


def _check_object(node: Mapping[str, Any], field: str, media: MediaPolicy) -> None:
    if node.get("uuid") is not None:
        refuse(
            f"{field}: the field 'uuid' is not accepted: remove it.",
            param="uuid",
            code="forbidden_field",
        )
    for name in _ADDRESSES:
        if node.get(name) is not None:
            _check_address(node[name], field, media)
    for name in _LISTS_OF_PARTS:
        parts = node.get(name)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                _check_part(part, field)


def _check_address(value: Any, field: str, media: MediaPolicy) -> None:
    url = value.get("url") if isinstance(value, dict) else value
    try:
        media.check_url(url if isinstance(url, str) else "")
    except MediaRefused as refused:
        raise Refused(f"{field}: {refused}.", param=field, code="forbidden_field") from refused


def _check_part(part: Mapping[str, Any], field: str) -> None:
    kind = part.get("type")
    if kind is None and part.keys() <= {"text"}:
        return
    name = kind if isinstance(kind, str) else ""
    if name in _TEXT_PARTS:
        return
    holder = _MEDIA_PARTS.get(name)
    if holder is None:
        refuse(
            f"{field}: content parts of type {shown(kind)} are not accepted.",
            param=field,
            code="forbidden_field",
        )
    if part.get(holder) is None:
        refuse(f"{field}: a part of type {kind!r} needs {holder}.", param=field)
