"""What tests and demo read without kubectl is what kubectl would have told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hack.controlplane.apiserver import ApiServer
from hack.kube.kubectl import KubectlError, get, last_log_line, list_objects

from tests.e2e.fleet import manifest


@pytest.fixture(autouse=True)
def kubeconfig(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))


@pytest.fixture
def chat(api_server: ApiServer, namespace: str) -> str:
    api_server.kubectl("apply", "-f", "-", text=json.dumps(manifest("chat", namespace)))
    api_server.kubectl("label", "llmdep", "chat", "-n", namespace, "team=a")
    return namespace


def test_get_when_the_object_is_there_then_it_is_as_kubectl_tells_it(
    api_server: ApiServer, chat: str
) -> None:
    told = api_server.kubectl(
        "get", "llmdep", "chat", "-n", chat, "-o", "json", "--show-managed-fields"
    )
    assert get("llmdep", "chat", chat) == json.loads(told.stdout)


def test_get_when_there_is_none_then_none(namespace: str) -> None:
    assert get("llmdep", "chat", namespace) is None


@pytest.mark.parametrize(
    ("selector", "names"), [("", ["chat"]), ("team=a", ["chat"]), ("team=b", [])]
)
def test_list_when_a_selector_is_given_then_only_what_it_selects(
    chat: str, selector: str, names: list[str]
) -> None:
    found = list_objects("llmdep", chat, selector)
    assert [each["metadata"]["name"] for each in found] == names


def test_list_when_no_namespace_is_given_then_all_are_looked_at(chat: str) -> None:
    assert chat in {each["metadata"]["namespace"] for each in list_objects("llmdep")}


def test_log_when_there_is_no_pod_then_the_api_servers_word_is_told(namespace: str) -> None:
    with pytest.raises(KubectlError, match=r'404.*pods \\"prober\\" not found'):
        last_log_line("prober", namespace)


def test_get_when_the_api_server_is_away_then_that_is_told(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = api_server.write_kubeconfig(tmp_path / "away", api_server.token, "https://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", str(away))
    with pytest.raises(KubectlError, match="ConnectError"):
        get("llmdep", "chat", "default")


def test_get_when_the_cluster_was_made_anew_then_the_new_one_is_asked(
    api_server: ApiServer, chat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = api_server.write_kubeconfig(tmp_path / "config", "nobody's token")
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(KubectlError, match="401"):
        get("llmdep", "chat", chat)
    api_server.write_kubeconfig(path, api_server.token)
    assert get("llmdep", "chat", chat) is not None
