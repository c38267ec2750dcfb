"""Nothing is fetched but from where the resource allows: vLLM's own connector, registry and reader.

A server on loopback stands for whatever a client would like the engine to open; it counts.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.engine.pod import Pod
from tests.engine.tiny_blip import make_tiny_blip


def make_png() -> bytes:
    """One red picture of 32 x 32."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xff\0\0" * 32) * 32
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PNG = make_png()
INLINE = "data:image/png;base64," + base64.b64encode(PNG).decode()


class Elsewhere(ThreadingHTTPServer):
    """Serves the picture at /png and redirects to it from /redirect."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)

    def at(self, path: str, host: str = "localhost") -> str:
        return f"http://{host}:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Elsewhere

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.hits[self.path] += 1
        found = self.path == "/png"
        self.send_response(200 if found else 302)
        if not found:
            self.send_header("Location", "/png")
        self.send_header("Content-Length", str(len(PNG) if found else 0))
        self.end_headers()
        self.wfile.write(PNG if found else b"")


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
async def connector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """VLLM's registry gives the connector that the launch names, as vLLM asks for it."""
    from vllm import envs
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    from llmfleet_runtime import vllm_plugins
    from llmfleet_runtime.config import RuntimeConfig
    from llmfleet_runtime.engine_args import Device, Facts
    from llmfleet_runtime.launch import Machine, build_launch
    from llmfleet_runtime.settings import PluginSettings

    loaded: list[Any] = []

    def load(*domains: str, local_path: str = "") -> Any:
        settings = PluginSettings(
            revision="r",
            served_names=(),
            token_file=None,
            loopback_key="",
            activity_file="",
            priority_scheduling=False,
            media_domains=domains,
        )
        model = {"source": "pvc://c/m", "servedName": "m"}
        launch = build_launch(
            RuntimeConfig.model_validate({"schema": 1, "revision": "r", "model": model}),
            Facts(device=Device.CUDA, accelerators=1, model_path="/m"),
            Machine(device=Device.CUDA, memory_limit_bytes=None, cpus=1),
            http_port=1,
            host="127.0.0.1",
            shutdown_timeout=1,
            plugin_environment=settings.to_environment(),
            environment={},
        )
        for name, value in launch.environment.items():
            if name.startswith(("VLLM_MEDIA", "LLMFLEET")):
                monkeypatch.setenv(name, value)
        vllm_plugins._connection.cache_clear()
        gate = MEDIA_CONNECTOR_REGISTRY.load(
            envs.VLLM_MEDIA_CONNECTOR,
            media_io_kwargs=None,
            allowed_local_media_path=local_path,
            allowed_media_domains=[entry.removesuffix("!private") for entry in domains] or None,
        )
        loaded.append(gate)
        return gate

    yield load
    for gate in loaded:
        await gate.connection.close()
    vllm_plugins._connection.cache_clear()


async def fetched(connector: Any, url: str) -> tuple[int, int]:
    """Size of the picture; vLLM's media come wrapped with the bytes they were made of."""
    picture = await connector.fetch_image_async(url)
    size: tuple[int, int] = getattr(picture, "media", picture).size
    return size


async def test_connector_when_nothing_is_allowed_then_only_inline_media(
    connector: Callable[..., Any], elsewhere: Elsewhere, tmp_path: Path
) -> None:
    from vllm.exceptions import VLLMValidationError

    (tmp_path / "x.png").write_bytes(PNG)
    gate = connector(local_path=str(tmp_path))
    assert await fetched(gate, INLINE) == (32, 32)
    for url in (
        elsewhere.at("/png"),
        f"file://{tmp_path}/x.png",
        "HTTP://localhost/x",
        "ftp://a/b",
    ):
        with pytest.raises(VLLMValidationError, match="inline as a data: URL"):
            await gate.fetch_image_async(url)
        with pytest.raises(VLLMValidationError, match="inline as a data: URL"):
            gate.fetch_image(url)
    assert not elsewhere.hits


def inline(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,text",
        "data:image/png;base64",
        "data:image/png;base64,!",
        "data:image/png;base64,",
        inline(PNG[:60]),
        inline(b"P6 30000 30000 255\n"),
        inline(b"qoif" + struct.pack(">IIBB", 30_000, 30_000, 4, 0)),
    ],
)
async def test_connector_when_inline_media_are_none_then_the_clients_error_and_no_5xx(
    connector: Callable[..., Any], url: str
) -> None:
    from vllm.exceptions import VLLMValidationError

    gate = connector()
    with pytest.raises(VLLMValidationError, match="could not be read"):
        await gate.fetch_image_async(url)
    with pytest.raises(VLLMValidationError, match="could not be read"):
        gate.fetch_image(url)


async def test_connector_when_host_is_listed_then_its_address_decides(
    connector: Callable[..., Any], elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.exceptions import VLLMValidationError

    address = ("127.0.0.1", elsewhere.server_port)
    name = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]
    with monkeypatch.context() as dns:
        dns.setattr(socket, "getaddrinfo", lambda *_, **__: name)
        gate = connector("pictures.example")
        with pytest.raises(VLLMValidationError, match="loopback, link-local"):
            await gate.fetch_image_async(elsewhere.at("/png", "pictures.example"))
    assert not elsewhere.hits
    gate = connector("localhost!private")
    assert await fetched(gate, elsewhere.at("/png")) == (32, 32)
    assert elsewhere.hits == {"/png": 1}
    for url, why in (
        (elsewhere.at("/redirect"), "redirect"),
        (elsewhere.at("/png", "127.0.0.1"), "not fetched from '127.0.0.1'"),
        ("http://localhost:1/", "could not be fetched"),
    ):
        with pytest.raises(VLLMValidationError, match=why):
            await gate.fetch_image_async(url)
    assert elsewhere.hits == {"/png": 1, "/redirect": 1}


def test_validation_when_every_item_is_wrong_then_the_errors_of_one(elsewhere: Elsewhere) -> None:
    """An item of /v1/responses may be of 30 types: 233 errors each, 0.5 MB, times the items."""
    from pydantic import ValidationError

    from llmfleet_runtime.endpoints import build_validator
    from llmfleet_runtime.vllm_plugins import engine_endpoints

    models = {each.operation: build_validator(each.request_type) for each in engine_endpoints()}
    for operation, field in (
        ("chat", "messages"),
        ("responses", "input"),
        ("embedding", "input"),
        ("chat", "tools"),
        ("responses", "tools"),
    ):
        other = {"messages": [{"role": "user", "content": ""}]} if operation == "chat" else {}
        with pytest.raises(ValidationError) as caught:
            models[operation].validate_python({"input": "", **other, field: [{}] * 8192})
        assert caught.value.error_count() < 500, operation


@pytest.fixture(scope="module")
def seeing(start_pod: Callable[..., Pod], models: Path) -> Pod:
    """A model for pictures that may fetch from localhost, but not from 127.0.0.1."""
    make_tiny_blip(models / "tiny-llama", models / "tiny-blip")
    pod = start_pod(model="tiny-blip", media={"allowedDomains": ["localhost!private"]})
    pod.until_ready()
    return pod


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}]


def chat(*parts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": user(*parts), "max_tokens": 2}


def responses(*items: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": [*items], "max_output_tokens": 2}


def shapes(url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every way a picture's address may stand in a body."""
    picture = {"type": "input_image", "image_url": url, "detail": "auto"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": [picture]}
    return {
        "image_url": chat({"type": "image_url", "image_url": {"url": url}}),
        "input_image": chat(picture),
        "responses": responses(*user(picture)),
        "result of a function": responses(*user({"type": "input_text", "text": "a"}), call, result),
    }


HIDDEN = {
    "beside another": lambda url: chat(
        {"type": "input_image", "input_image": INLINE, "image_url": url, "detail": "auto"}
    ),
    "under audio with a uuid": lambda url: chat(
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"},
         "uuid": "u", "image_url": url}
    ),
    "without a type": lambda url: chat({"image_url": url}),
    "in a text": lambda url: chat({"type": "text", "text": "a", "uuid": "u", "image_url": url}),
    "as a picture object": lambda url: chat({"image_pil": url}),
}  # fmt: skip


def test_engine_when_media_are_inline_then_served_in_every_shape(seeing: Pod) -> None:
    for name, (path, body) in shapes(INLINE).items():
        status, text = seeing.ask(path, {"model": "tiny", **body})
        assert status == 200, (name, text)


def test_engine_when_the_address_is_not_allowed_then_400_and_nothing_is_fetched(
    seeing: Pod, elsewhere: Elsewhere
) -> None:
    url = elsewhere.at("/png", "127.0.0.1")
    bodies = shapes(url) | {name: make(url) for name, make in HIDDEN.items()}
    for name, (path, body) in bodies.items():
        status, text = seeing.ask(path, {"model": "tiny", **body})
        assert status == 400, (name, text)
    assert not elsewhere.hits


def test_engine_when_the_host_is_allowed_then_fetched_without_redirects(
    seeing: Pod, elsewhere: Elsewhere
) -> None:
    bodies = shapes(elsewhere.at("/png"))
    for name, (path, body) in bodies.items():
        status, text = seeing.ask(path, {"model": "tiny", **body})
        assert status == 200, (name, text)
    assert elsewhere.hits == {"/png": len(bodies)}
    path, body = shapes(elsewhere.at("/redirect"))["image_url"]
    status, text = seeing.ask(path, {"model": "tiny", **body})
    assert (status, "redirect" in json.loads(text)["error"]["message"]) == (400, True), text
    assert elsewhere.hits == {"/png": len(bodies), "/redirect": 1}


def test_engine_when_media_are_named_by_the_client_then_400_naming_uuid(seeing: Pod) -> None:
    for path, body in (
        chat({"type": "image_url", "image_url": {"url": INLINE}, "uuid": "x"}),
        responses(
            *user({"type": "input_image", "image_url": INLINE, "detail": "auto", "uuid": "x"})
        ),
    ):
        status, text = seeing.ask(path, {"model": "tiny", **body})
        assert (status, json.loads(text)["error"]["param"]) == (400, "uuid")
