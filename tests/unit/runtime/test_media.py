"""From where media may come: the list, the addresses behind it, and every shape of a body."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from llmfleet_runtime.guard import check_fields
from llmfleet_runtime.media import MediaPolicy, MediaRefused, is_public
from llmfleet_runtime.media_fetch import GuardedResolver, media_session
from llmfleet_runtime.refused import Refused
from llmfleet_runtime.settings import PluginSettings

NOTHING = MediaPolicy.from_entries(())
LISTED = MediaPolicy.from_entries(("pictures.example", "minio.storage.svc!private"))
INLINE = "data:image/png;base64,AA=="


@pytest.mark.parametrize("url", [INLINE, "DATA:image/png;base64,AA==", "data:,"])
def test_url_when_inline_then_allowed_everywhere(url: str) -> None:
    NOTHING.check_url(url)
    LISTED.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://pictures.example/a.png",
        "http://pictures.example:8080/a?b=c",
        "https://PICTURES.example/a",
        "https://user:secret@pictures.example/a",
        "http://minio.storage.svc:9000/bucket/key",
    ],
)
def test_url_when_its_host_is_listed_then_allowed(url: str) -> None:
    LISTED.check_url(url)
    with pytest.raises(MediaRefused, match="inline as a data: URL"):
        NOTHING.check_url(url)


@pytest.mark.parametrize("entries", [("a.b", "a.b!private"), ("a.b!private", "a.b")])
def test_entries_when_one_says_private_then_order_does_not_matter(entries: tuple[str, ...]) -> None:
    assert MediaPolicy.from_entries(entries).private_allowed == {"a.b": True}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a",
        "http://[::1]/a",
        "http://2130706433/a",
        "http://0x7f.1/a",
        "http://other.example/a",
        "http://sub.pictures.example/a",
        "http://pictures.example./a",
        "http://pictures.example.evil.example/a",
        "http://pictures.example@127.0.0.1/a",
        "http://pictures.example\\@127.0.0.1/a",
        "http://127.0.0.1#@pictures.example/a",
        "http://127.0.0.1/?@pictures.example",
        "http://pictures.example%00.evil.example/",
        "file:///etc/passwd",
        "file://pictures.example/etc/passwd",
        "ftp://pictures.example/a",
        "//pictures.example/a",
        "pictures.example/a",
        "http://",
        "http://[",
        "",
    ],
)
def test_url_when_from_elsewhere_then_refused(url: str) -> None:
    for policy in (NOTHING, LISTED):
        with pytest.raises(MediaRefused):
            policy.check_url(url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::93.184.216.34", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.96.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("::127.0.0.1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b:1::1", False),
        ("2001:db8::1", False),
    ],
)
def test_address_when_judged_then_only_the_internet_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public
    assert LISTED.may_connect("pictures.example", address) is public
    assert LISTED.may_connect("minio.storage.svc", address)


def test_address_when_the_clusters_own_then_refused_however_public_it_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "11.0.0.1")
    monkeypatch.setenv("LLMFLEET_POD_IP", "12.0.0.1")
    settings = PluginSettings(
        revision="r",
        served_names=(),
        token_file=None,
        loopback_key="",
        activity_file="",
        priority_scheduling=False,
        media_domains=("a.example", "b.example!private"),
    )
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    policy = PluginSettings.from_environment().media_policy()
    found = [policy.may_connect("a.example", f"{first}.0.0.1") for first in (11, 12, 13)]
    assert found == [False, False, True]
    assert policy.may_connect("b.example", "11.0.0.1")


class Names(AbstractResolver):
    """A DNS that answers what the test says, and remembers what it was asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def test_name_when_it_has_several_addresses_then_only_public_ones_are_used() -> None:
    names = Names(["10.0.0.1", "93.184.216.34", "fd00::1"])
    found = await GuardedResolver(LISTED, names).resolve("pictures.example", 80)
    assert [(each["hostname"], each["host"]) for each in found] == [
        ("pictures.example", "93.184.216.34")
    ]


async def test_name_when_public_then_asked_for_as_absolute_and_private_as_it_stands() -> None:
    names = Names(["93.184.216.34"])
    resolver = GuardedResolver(LISTED, names)
    await resolver.resolve("pictures.example")
    await resolver.resolve("minio.storage.svc")
    assert names.asked == ["pictures.example.", "minio.storage.svc"]


async def test_name_when_not_listed_then_not_even_asked_for() -> None:
    names = Names(["93.184.216.34"])
    with pytest.raises(MediaRefused, match=r"not fetched from 'other\.example'"):
        await GuardedResolver(LISTED, names).resolve("other.example")
    assert names.asked == []


class Server:
    """A host on loopback: a picture, a redirect to it, and a picture that sets a cookie."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.port = 0

    def url(self, path: str, host: str = "pictures.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, request.headers.get("cookie")))
        if request.path == "/redirect":
            return web.Response(status=302, headers={"location": "/picture"})
        return web.Response(body=b"picture", headers={"set-cookie": "tenant=a"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@asynccontextmanager
async def fetching(
    *entries: str, names: Names | None = None
) -> AsyncIterator[Callable[[str], Awaitable[bytes]]]:
    policy = MediaPolicy.from_entries(entries)
    resolver = GuardedResolver(policy, names or Names(["127.0.0.1"]))
    async with media_session(policy, resolver) as session:

        async def fetch(url: str) -> bytes:
            async with session.get(url, allow_redirects=False) as answer:
                return await answer.read()

        yield fetch


async def test_fetch_when_the_host_may_be_private_then_fetched_without_cookies(
    server: Server,
) -> None:
    async with fetching("pictures.example!private") as fetch:
        assert await fetch(server.url("/picture")) == b"picture"
        assert await fetch(server.url("/picture")) == b"picture"
    assert server.seen == [("/picture", None), ("/picture", None)]


async def test_fetch_when_the_address_is_loopback_then_never_connected(server: Server) -> None:
    async with fetching("pictures.example") as fetch:
        with pytest.raises(MediaRefused, match="loopback"):
            await fetch(server.url("/picture"))
    assert server.seen == []


async def test_fetch_when_the_name_changes_its_address_after_the_check_then_never_connected(
    server: Server,
) -> None:
    names = Names(["93.184.216.34"], ["127.0.0.1"])
    first = await GuardedResolver(LISTED, names).resolve("pictures.example")
    assert first[0]["host"] == "93.184.216.34"
    async with fetching("pictures.example", names=names) as fetch:
        with pytest.raises(MediaRefused, match="loopback"):
            await fetch(server.url("/picture"))
    assert server.seen == []


async def test_fetch_when_the_host_redirects_then_not_followed(server: Server) -> None:
    async with fetching("pictures.example!private") as fetch:
        with pytest.raises(MediaRefused, match="redirect"):
            await fetch(server.url("/redirect"))
    assert [path for path, _ in server.seen] == ["/redirect"]


async def test_fetch_when_the_environment_names_a_proxy_then_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url("", host="127.0.0.1"))
    monkeypatch.setenv("http_proxy", server.url("", host="127.0.0.1"))
    async with fetching("pictures.example") as fetch:
        with pytest.raises(MediaRefused):
            await fetch(server.url("/picture"))
    assert server.seen == []


AWAY = "http://127.0.0.1/a.png"


def messages(*parts: object) -> list[object]:
    return [{"role": "user", "content": [*parts]}]


def picture(url: str = INLINE, **more: object) -> dict[str, object]:
    return {"type": "input_image", "image_url": url, **more}


def result(*parts: object) -> dict[str, object]:
    return {"type": "function_call_output", "call_id": "c", "output": [*parts]}


BODIES: dict[str, tuple[str, Callable[[object], dict[str, object]]]] = {
    "chat": ("chat", lambda part: {"messages": messages(part)}),
    "a tool's message": (
        "chat",
        lambda part: {"messages": [{"role": "tool", "content": [part], "tool_call_id": "c"}]},
    ),
    "responses": ("responses", lambda part: {"input": messages(part)}),
    "a function's result": ("responses", lambda part: {"input": [result(part)]}),
    "a chat to embed": ("embedding", lambda part: {"input": messages(part)}),
    "batched chats to embed": ("embedding", lambda part: {"input": [messages(part)] * 2}),
    "chats to embed beside token ids": ("embedding", lambda part: {"input": [1, messages(part)]}),
    "after an empty batch": ("embedding", lambda part: {"input": [[], messages(part)]}),
}
AWAY_PARTS = {
    "image_url": {"type": "image_url", "image_url": {"url": AWAY}},
    "image_url as text": {"type": "image_url", "image_url": AWAY},
    "input_image": picture(AWAY),
    "input_image beside inline": picture(AWAY, input_image=INLINE),
    "input_audio with a uuid and an image": {
        "type": "input_audio",
        "input_audio": {"data": "AA==", "format": "wav"},
        "uuid": "u",
        "image_url": AWAY,
    },
    "input_audio with an image": {
        "type": "input_audio",
        "input_audio": {"data": "AA==", "format": "wav"},
        "image_url": AWAY,
    },
    "a text with an image": {"type": "text", "text": "a", "image_url": {"url": AWAY}},
    "no type": {"image_url": AWAY},
    "a type of null": {"type": None, "audio_url": {"url": AWAY}},
    "audio_url": {"type": "audio_url", "audio_url": {"url": AWAY}},
    "video_url": {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
    "a picture object": {"type": "image_pil", "image_pil": AWAY},
    "a picture object without type": {"image_pil": AWAY},
    "embeddings": {"type": "image_embeds", "image_embeds": "AA=="},
    "an address that is none": {"type": "image_url", "image_url": {"url": ["http://a"]}},
    "a type that is none": {"type": {"a": [[]]}, "text": "a"},
    "nothing to see": {"type": "image_url"},
    "nothing to hear": {"type": "input_audio", "image_url": INLINE},
    "a file": {"type": "input_file", "file_url": AWAY},
}


@pytest.mark.parametrize("part", AWAY_PARTS)
@pytest.mark.parametrize("body", BODIES)
def test_part_when_its_media_are_elsewhere_then_refused_in_every_body(body: str, part: str) -> None:
    operation, make = BODIES[body]
    data = make(AWAY_PARTS[part])
    with pytest.raises(Refused) as caught:
        check_fields(operation, data, NOTHING)
    assert caught.value.status == 400
    assert json.loads(json.dumps(caught.value.body()))["error"]["param"] in {*data, "uuid"}


@pytest.mark.parametrize("part", [{"type": "text", "text": "a"}, picture()], ids=["text", "image"])
@pytest.mark.parametrize("body", BODIES)
def test_part_when_the_client_names_its_cache_entry_then_refused_naming_uuid(
    body: str, part: dict[str, object]
) -> None:
    operation, make = BODIES[body]
    check_fields(operation, make({**part, "uuid": None}), NOTHING)
    with pytest.raises(Refused, match="'uuid' is not accepted: remove it") as caught:
        check_fields(operation, make({**part, "uuid": "mine"}), NOTHING)
    assert (caught.value.param, caught.value.code) == ("uuid", "forbidden_field")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "http://127.0.0.1"},
        {"text": "a"},
        picture(),
        {"type": "image_url", "image_url": {"url": INLINE}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": INLINE}},
    ],
    ids=lambda part: str(part.get("type")),
)
@pytest.mark.parametrize("body", BODIES)
def test_part_when_text_or_inline_then_passes_in_every_body(
    body: str, part: dict[str, object]
) -> None:
    operation, make = BODIES[body]
    check_fields(operation, make(part), NOTHING)


def test_part_when_its_host_is_listed_then_passes() -> None:
    body = {"messages": messages(picture("https://pictures.example/a.png"))}
    check_fields("chat", body, LISTED)
    with pytest.raises(Refused):
        check_fields("chat", body, NOTHING)


def test_uuid_when_a_property_of_a_tool_then_passes() -> None:
    parameters = {"type": "object", "properties": {"uuid": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    check_fields("chat", {"messages": messages(), "tools": [tool]}, NOTHING)
