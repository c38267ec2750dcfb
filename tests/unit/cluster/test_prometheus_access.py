"""How Prometheus is asked: what it is shown, whom the operator believes, and what is rotated."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from llmfleet.cluster.environment import read_environment
from llmfleet.cluster.prometheus_access import Connection, FileError, PrometheusAccess

IMAGES = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "g@sha256:1",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "c@sha256:1",
    "LLMFLEET_ROUTER_IMAGE": "r@sha256:1",
}
URL = {"LLMFLEET_PROMETHEUS_URL": "https://prometheus"}


@dataclass
class Played:
    """An HTTP server that answers as Prometheus does and keeps what it was sent."""

    url: str
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def tls() -> ssl.SSLContext | None:
    return None


@pytest.fixture
def played(tls: ssl.SSLContext | None) -> Iterator[Played]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = json.dumps({"status": "success", "data": {"result": []}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        found = Played(f"{scheme}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
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
        with pytest.raises(requests.exceptions.ConnectionError):
            Connection(access).custom_query("up")
        assert played.headers == []


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
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '["a"]'}, "must be a JSON object"),
        ({"LLMFLEET_PROMETHEUS_MATCHERS": '{"a": 1}'}, "a line of text"),
        (
            {"LLMFLEET_PROMETHEUS_TOKEN_FILE": "/t", "LLMFLEET_PROMETHEUS_BASIC_AUTH_DIR": "/b"},
            "leave one out",
        ),
        ({"LLMFLEET_PROMETHEUS_URL": "prometheus:9090"}, "must begin with http"),
    ],
)
def test_environment_when_a_setting_is_wrong_then_a_sentence_says_so(
    wrong: dict[str, str], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        read_environment({**IMAGES, **URL, **wrong})
