"""How Prometheus is asked: what it is shown, whom the operator believes, and what is rotated."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmfleet.cluster import prometheus_session
from llmfleet.cluster.environment import read_environment
from llmfleet.cluster.prometheus_access import Connection, PrometheusAccess
from llmfleet.cluster.prometheus_problems import NO_API, FileError, PrometheusError

IMAGES = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "g@sha256:1",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "c@sha256:1",
    "LLMFLEET_ROUTER_IMAGE": "r@sha256:1",
}
URL = {"LLMFLEET_PROMETHEUS_URL": "https://prometheus"}


GOOD = json.dumps({"status": "success", "data": {"result": []}}).encode()


def http(status: int, body: bytes, *headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = (f"HTTP/1.0 {status} X", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


@dataclass
class Played:
    """An HTTP server that answers as Prometheus does and keeps what it was sent.

    Attributes:
        parts: of the whole answer, from its first line; without any it is a good one.
        pause_seconds: before each part.
    """

    url: str
    headers: list[dict[str, str]] = field(default_factory=list)
    parts: Iterable[bytes] = ()
    pause_seconds: float = 0.0


@pytest.fixture
def tls() -> ssl.SSLContext | None:
    return None


@pytest.fixture
def played(tls: ssl.SSLContext | None) -> Iterator[Played]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            with contextlib.suppress(OSError):
                for part in found.parts or [http(200, GOOD)]:
                    time.sleep(found.pause_seconds)
                    self.wfile.write(part)
                    self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        found = Played(f"{scheme}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield found
        server.shutdown()


def test_token_when_it_is_rotated_then_the_next_question_has_the_new_one(
    played: Played, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    connection = Connection(PrometheusAccess(url=played.url, token_file=token))
    connection.custom_query("up")
    connection.custom_query("up")
    (tmp_path / "new").write_text("second\n")
    (tmp_path / "new").replace(token)  # as a Secret's volume does it
    connection.custom_query("up")
    sent = [each["authorization"] for each in played.headers]
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]


def test_question_when_headers_and_a_password_are_set_then_they_are_sent(
    played: Played, tmp_path: Path
) -> None:
    (tmp_path / "username").write_text("fleet\n")
    (tmp_path / "password").write_text("secret\n")
    access = PrometheusAccess(
        url=played.url, basic_auth=tmp_path, headers={"X-Scope-OrgID": "team-a"}
    )
    Connection(access).custom_query("up")
    assert played.headers[0]["authorization"] == "Basic ZmxlZXQ6c2VjcmV0"
    assert played.headers[0]["x-scope-orgid"] == "team-a"


@pytest.mark.parametrize("folder", ["basic_auth", "client_certificate"])
def test_question_when_a_file_is_missing_then_the_error_names_it(
    played: Played, tmp_path: Path, folder: str
) -> None:
    access = PrometheusAccess(url=played.url, **{folder: tmp_path})  # type: ignore[arg-type]
    with pytest.raises(FileError, match=str(tmp_path)):
        Connection(access).custom_query("up")
    assert played.headers == []


def problem_of(access: PrometheusAccess, query: str = "up") -> str:
    """What is told when a question fails, and that no secret is part of it or of its causes."""
    with pytest.raises(PrometheusError) as caught:
        Connection(access).custom_query(query)
    told = str(caught.value)
    everything = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in told + everything
    return told


@pytest.mark.parametrize(
    "content",
    [b"SECRET-1\nSECRET-2\n", b"SECRET\rX", b"SECRET\x00", b"\xef\xbb\xbfSECRET", b"SECRET\xff",
     b"", b"\n"],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["token_file", "basic_auth"])
def test_secret_when_it_is_not_one_line_then_the_error_names_the_file_and_not_the_secret(
    played: Played, tmp_path: Path, content: bytes, kind: str
) -> None:
    (tmp_path / "username").write_bytes(b"fleet")
    (tmp_path / "password").write_bytes(content)
    path = tmp_path if kind == "basic_auth" else tmp_path / "password"
    access = PrometheusAccess(url=played.url, **{kind: path})  # type: ignore[arg-type]
    assert problem_of(access) == (
        f"its file {tmp_path / 'password'} must hold one line of printable ASCII, and nothing else"
    )
    assert played.headers == []


def test_password_when_it_has_spaces_then_they_are_part_of_it(
    played: Played, tmp_path: Path
) -> None:
    (tmp_path / "username").write_text("a\r\n")
    (tmp_path / "password").write_text(" b \n")
    Connection(PrometheusAccess(url=played.url, basic_auth=tmp_path)).custom_query("up")
    assert played.headers[0]["authorization"] == "Basic YTogYiA="


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http(401, b"Authorization: Bearer SECRET"), "HTTP status 401 (Unauthorized)"),
        (http(503, b"SECRET"), "HTTP status 503 (Service Unavailable)"),
        (http(999, b"SECRET"), "HTTP status 999"),
        (http(204, b""), "HTTP status 204 (No Content)"),
        (http(200, b"<html>SECRET</html>"), NO_API),
        (http(200, b'{"status": "error", "error": "SECRET"}'), NO_API),
        (http(200, b'{"data": null}'), NO_API),
        (http(200, b"[]"), NO_API),
        (http(200, b"\xff\xfe\x00"), NO_API),
        (http(200, b"[" * 100_000), NO_API),
        (b"SECRET\r\n\r\n", "ConnectionError"),
        (b"", "ConnectionError"),
    ],
    ids=lambda each: repr(each[:70]),
)
def test_answer_when_it_is_none_of_prometheus_then_only_the_cause_is_told(
    played: Played, answer: bytes, told: str
) -> None:
    played.parts = [answer]
    assert problem_of(PrometheusAccess(url=played.url)) == told


def test_problem_when_the_url_has_a_password_then_it_is_told_without_it_and_the_query() -> None:
    for url in ("http://a:SECRET@127.0.0.1:1", "http://a:SECRET@host name"):
        told = problem_of(PrometheusAccess(url=url), query='up{namespace="SECRET"}')
        assert told == problem_of(PrometheusAccess(url=url), query="another")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_question_when_it_is_redirected_then_nothing_is_sent_there(
    played: Played, status: int
) -> None:
    place = played.url.replace("127.0.0.1", "user:SECRET@localhost")
    played.parts = [http(status, b"", f"Location: {place}/login?state=SECRET")]
    access = PrometheusAccess(url=played.url, headers={"X-Api-Key": "SECRET"})
    assert problem_of(access) == "the question is redirected to localhost: a login page?"
    assert len(played.headers) == 1


def test_question_when_it_is_redirected_to_no_address_then_that_is_told(played: Played) -> None:
    lines = ("HTTP/1.1 302 X", "Content-Length: 99999999", "Location: http://[SECRET", "", "")
    played.parts = ["\r\n".join(lines).encode()]  # and no body, for which nobody waits
    told = problem_of(PrometheusAccess(url=played.url))
    assert told == "the question is redirected to another page: a login page?"


@pytest.mark.parametrize(
    "lead",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ids=["first line", "header", "body", "chunk"],
)  # fmt: skip
def test_answer_when_it_drips_then_the_time_limit_is_that_of_the_whole(
    played: Played, monkeypatch: pytest.MonkeyPatch, lead: bytes
) -> None:
    monkeypatch.setattr(prometheus_session, "ANSWER_SECONDS", 0.5)
    played.pause_seconds = 0.05
    played.parts = itertools.chain([lead], itertools.repeat(b"1", 200))
    began = time.monotonic()
    assert problem_of(PrometheusAccess(url=played.url)) == "no answer in time"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "packed"])
def test_answer_when_it_is_too_large_then_it_is_not_read_to_its_end(
    played: Played, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(prometheus_session, "LARGEST_BYTES", 2**20)
    body = b" " * 2**21
    header = ["Content-Encoding: gzip"] if packed else []
    played.parts = [http(200, gzip.compress(body) if packed else body, *header)]
    assert problem_of(PrometheusAccess(url=played.url)) == "its answer is larger than 1 MiB"


def test_answer_when_it_is_packed_then_it_is_read(played: Played) -> None:
    played.parts = [http(200, gzip.compress(GOOD), "Content-Encoding: gzip")]
    assert Connection(PrometheusAccess(url=played.url)).custom_query("up") == []


def certificate(folder: Path, name: str, *issuer: str) -> None:
    """A certificate for 127.0.0.1, signed by itself or by an issuer."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-batch", "-subj", f"/CN={name}", *issuer]
    words += ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    if issuer:
        words += ["-addext", "basicConstraints=critical,CA:FALSE"]
        words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


class TestMutualTls:
    """A server that shows a certificate of an authority of our own, and wants one of it."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        certificate(tmp_path, "ca")
        for name in ("server", "tls"):
            certificate(tmp_path, name, "-CA", "ca.crt", "-CAkey", "ca.key")
        return tmp_path

    @pytest.fixture
    def tls(self, folder: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def test_question_when_both_certificates_are_known_then_it_is_answered(
        self, played: Played, folder: Path
    ) -> None:
        access = PrometheusAccess(
            url=played.url, ca_file=folder / "ca.crt", client_certificate=folder
        )
        assert Connection(access).custom_query("up") == []
        assert len(played.headers) == 1

    @pytest.mark.parametrize("known", ["ca_file", "client_certificate"])
    def test_question_when_one_is_not_known_then_nothing_is_asked(
        self, played: Played, folder: Path, known: str
    ) -> None:
        path = folder / "ca.crt" if known == "ca_file" else folder
        access = PrometheusAccess(url=played.url, **{known: path})  # type: ignore[arg-type]
        with pytest.raises(PrometheusError, match=r"certificate|TLS fails|reset"):
            Connection(access).custom_query("up")
        assert played.headers == []

    def test_answer_when_it_drips_then_the_time_limit_is_that_of_the_whole(
        self, played: Played, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prometheus_session, "ANSWER_SECONDS", 1.0)
        played.pause_seconds = 0.05
        played.parts = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"1", 200))
        access = PrometheusAccess(
            url=played.url, ca_file=folder / "ca.crt", client_certificate=folder
        )
        began = time.monotonic()
        assert problem_of(access) == "no answer in time"
        assert time.monotonic() - began < 5


def test_url_when_its_host_has_another_form_then_the_time_limit_holds_there_too() -> None:
    session = prometheus_session.BoundedSession()
    session.reach("https://prométhée/prefix")
    bounded = session.get_adapter("https://prométhée/prefix/api/v1/query")
    assert session.get_adapter("https://xn--promthe-dyad/prefix/api/v1/query") is bounded


def test_environment_when_all_is_set_then_it_is_read() -> None:
    found = read_environment({
        **IMAGES, **URL,
        "LLMFLEET_PROMETHEUS_BASIC_AUTH_DIR": "/b", "LLMFLEET_PROMETHEUS_CA_FILE": "/ca",
        "LLMFLEET_PROMETHEUS_CLIENT_CERTIFICATE_DIR": "/c",
        "LLMFLEET_PROMETHEUS_HEADERS": '{"X-Scope-OrgID": "a, b"}',
        "LLMFLEET_PROMETHEUS_MATCHERS": '{"cluster": "eu"}',
    }).prometheus  # fmt: skip
    assert found == PrometheusAccess(
        url="https://prometheus", basic_auth=Path("/b"), ca_file=Path("/ca"),
        client_certificate=Path("/c"), headers={"X-Scope-OrgID": "a, b"},
        matchers=(("cluster", "eu"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"LLMFLEET_PROMETHEUS_HEADERS": "X=1"}, "must be a JSON object"),
        ({"LLMFLEET_PROMETHEUS_HEADERS": '{"X": "a\\r\\nY: b"}'}, "a line of text"),
        ({"LLMFLEET_PROMETHEUS_HEADERS": '{"X Y": "a"}'}, "'X Y'"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '{"a-b": "c"}'}, "'a-b'"),
        ({"LLMFLEET_PROMETHEUS_HEADERS": '{"X": "h€llo"}'}, "'X' must be ASCII"),
        ({"LLMFLEET_PROMETHEUS_HEADERS": '{"X": " a"}'}, "without blanks"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '{"__name__": "c"}'}, "'__name__'"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '{"llmdeployment": "c"}'}, "'llmdeployment'"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '{"llmdeployment_namespace": "c"}'}, "leave it out"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '["a"]'}, "must be a JSON object"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '{"a": 1}'}, "a line of text"),
        (
            {"LLMFLEET_PROMETHEUS_TOKEN_FILE": "/t", "LLMFLEET_PROMETHEUS_BASIC_AUTH_DIR": "/b"},
            "leave one out",
        ),
        (
            {
                "LLMFLEET_PROMETHEUS_TOKEN_FILE": "/t",
                "LLMFLEET_PROMETHEUS_HEADERS": '{"authorization": "Bearer SECRET"}',
            },
            "Authorization beside",
        ),
        (
            {
                "LLMFLEET_PROMETHEUS_BASIC_AUTH_DIR": "/b",
                "LLMFLEET_PROMETHEUS_HEADERS": '{"Authorization": "Bearer SECRET"}',
            },
            "Authorization beside",
        ),
        ({"LLMFLEET_PROMETHEUS_URL": "prometheus:9090"}, "must begin with http"),
        ({"LLMFLEET_PROMETHEUS_URL": "https://"}, "PROMETHEUS_URL must have a host"),
        ({"LLMFLEET_PROMETHEUS_URL": "https://a:SECRET@[::1"}, "PROMETHEUS_URL must have a host"),
        ({"LLMFLEET_NOTIFY_URL": "https://a:SECRET@h:99999"}, "NOTIFY_URL must have a host"),
    ],
)
def test_environment_when_a_setting_is_wrong_then_a_sentence_says_so(
    wrong: dict[str, str], word: str
) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        read_environment({**IMAGES, **URL, **wrong})
    assert "SECRET" not in str(caught.value)


def test_environment_when_a_url_ends_with_a_line_end_then_it_is_no_part_of_it() -> None:
    names = ("LLMFLEET_PROMETHEUS_URL", "LLMFLEET_NOTIFY_URL")
    found = read_environment({**IMAGES, **dict.fromkeys(names, " https://host/x\r\n")})
    assert found.prometheus is not None
    assert (found.prometheus.url, found.notify_url) == ("https://host/x", "https://host/x")
