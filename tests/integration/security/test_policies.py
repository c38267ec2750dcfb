"""The chart's admission policies in a real API server: who may act, and what is warned of."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer, wait_for

from tests.integration.security.policies import grant, installed_policies, rule

JSON = dict[str, Any]
PATH = "/apis/llmfleet.dev/v1alpha1/namespaces/{}/llmdeployments"
MERGE = "application/merge-patch+json"
WAIT: JSON = {"pause": {"duration": "5m"}}


def deployment(name: str, rollout: JSON | None = None) -> JSON:
    spec: JSON = {"model": {"source": "pvc://models/tiny", "servedName": "tiny"}}
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": spec if rollout is None else {**spec, "rollout": rollout},
    }


@pytest.fixture(scope="module")
def namespace(api_server: ApiServer) -> Iterator[str]:
    """A namespace with an LLMDeployment, once the policies are at work."""
    with installed_policies(api_server) as policies:
        assert policies == ["llmfleet-acts", "llmfleet-memory", "llmfleet-warnings"]
        name = api_server.create_namespace("policies")
        api_server.create(PATH.format(name), deployment("chat"))
        nobody = account(api_server, name, "nobody", ["update", "patch", "get", "create"])
        wait_for(
            lambda: act(api_server, name, nobody, promote=secrets.token_hex(4))[0] != 200,
            "the policy about acts is at work",
        )
        risky = deployment("warned", {"steps": [{"setWeight": 30}]})
        wait_for(
            lambda: (
                "warning"
                in api_server.request("POST", f"{PATH.format(name)}?dryRun=All", risky).headers
            ),
            "the policy that warns is at work",
        )
        yield name


def account(server: ApiServer, namespace: str, name: str, verbs: list[str], *more: JSON) -> str:
    """Token of a new ServiceAccount that may do this to LLMDeployments."""
    return grant(server, namespace, name, rule("llmfleet.dev", "llmdeployments", *verbs), *more)


def act(server: ApiServer, namespace: str, token: str, **acts: str | None) -> tuple[int, str]:
    annotations = {f"llmfleet.dev/{name}": value for name, value in acts.items()}
    with server.client(token) as client:
        answer = client.patch(
            f"{PATH.format(namespace)}/chat",
            json={"metadata": {"annotations": annotations}},
            headers={"Content-Type": MERGE},
        )
    return answer.status_code, answer.text


def create(server: ApiServer, namespace: str, token: str, **acts: str) -> tuple[int, str]:
    """What making a resource that has these acts from the start would answer."""
    body = deployment("new")
    body["metadata"]["annotations"] = {f"llmfleet.dev/{act}": text for act, text in acts.items()}
    with server.client(token) as client:
        answer = client.post(f"{PATH.format(namespace)}?dryRun=All", json=body)
    return answer.status_code, answer.text


@pytest.mark.parametrize("name", ["promote", "abort", "retry", "undo", "pause"])
def test_act_when_the_right_is_missing_then_it_is_refused_with_the_right_named(
    api_server: ApiServer, namespace: str, name: str
) -> None:
    token = api_server.service_account_token(namespace, "nobody")
    status, text = act(api_server, namespace, token, **{name: "0123456789@1"})
    assert status == 403, text
    assert f"may not change llmfleet.dev/{name}" in text
    assert "needs the right to update llmdeployments/rollout in namespace" in text


def test_act_when_the_right_is_there_then_it_is_stored_and_can_be_removed(
    api_server: ApiServer, namespace: str
) -> None:
    rollout = rule("llmfleet.dev", "llmdeployments/rollout", "update")
    token = account(api_server, namespace, "releaser", ["patch", "get", "create"], rollout)
    assert act(api_server, namespace, token, pause="true")[0] == 200
    assert act(api_server, namespace, token, pause=None)[0] == 200
    assert create(api_server, namespace, token, pause="true")[0] == 201


@pytest.mark.parametrize("name", ["promote", "abort", "retry", "undo", "pause"])
def test_resource_when_made_with_an_act_but_not_the_right_then_it_is_refused(
    api_server: ApiServer, namespace: str, name: str
) -> None:
    token = api_server.service_account_token(namespace, "nobody")
    status, text = create(api_server, namespace, token, **{name: "true"})
    assert status == 403, text
    assert f"may not change llmfleet.dev/{name}" in text
    assert create(api_server, namespace, token)[0] == 201


def test_other_annotation_when_the_right_is_missing_then_nobody_asks_for_it(
    api_server: ApiServer, namespace: str
) -> None:
    token = api_server.service_account_token(namespace, "nobody")
    with api_server.client(token) as client:
        answer = client.patch(
            f"{PATH.format(namespace)}/chat",
            json={"metadata": {"annotations": {"example.com/note": "1"}}, "spec": {"replicas": 3}},
            headers={"Content-Type": MERGE},
        )
    assert answer.status_code == 200, answer.text


STEPS: dict[str, tuple[JSON | None, list[str]]] = {
    "the default": (None, []),
    "careful": ({"steps": [{"setWeight": 5}, {"setWeight": 50}]}, []),
    "a big first step": ({"steps": [{"setWeight": 10}, {"setWeight": 50}]}, ["first setWeight"]),
    "a small last step": ({"steps": [{"setWeight": 5}, WAIT]}, ["last setWeight"]),
    "no weight": ({"steps": [WAIT]}, ["no setWeight"]),
    "all at once": ({"steps": [{"setWeight": 30}]}, ["first setWeight", "last setWeight"]),
    "blue-green": ({"strategy": "BlueGreen"}, []),
    "a wait for a person": (
        {"steps": [{"setWeight": 5}, WAIT, {"pause": {}}, {"setWeight": 50}]},
        ["a pause of rollout.steps has no duration"],
    ),
    "a mistyped duration": (
        {"steps": [{"setWeight": 5}, {"pause": {"druation": "5m"}}, {"setWeight": 50}]},
        ["unknown field", "a pause of rollout.steps has no duration"],
    ),
}


def assert_warned(server: ApiServer, namespace: str, body: JSON, expected: list[str]) -> None:
    """It would be stored, with these warnings."""
    answer = server.request("POST", PATH.format(namespace) + "?dryRun=All", body)
    assert answer.status_code == 201, answer.text
    warnings = answer.headers.get_list("warning")
    assert len(warnings) == len(expected), warnings
    for part, warning in zip(expected, warnings, strict=True):
        assert part in warning


@pytest.mark.parametrize("name", STEPS)
def test_steps_when_risky_then_they_are_stored_with_a_warning(
    api_server: ApiServer, namespace: str, name: str
) -> None:
    rollout, expected = STEPS[name]
    assert_warned(api_server, namespace, deployment("warned", rollout), expected)


def test_steps_when_a_patch_does_not_touch_them_then_nobody_is_warned_again(
    api_server: ApiServer, namespace: str
) -> None:
    body = deployment("untouched", {"steps": [{"setWeight": 30}]})
    api_server.create(PATH.format(namespace), body)
    path = f"{PATH.format(namespace)}/untouched?dryRun=All"
    for change, expected in (
        ({"replicas": 3}, 0),
        ({"rollout": {"maxSurge": 0}}, 0),
        ({"rollout": {"steps": [{"setWeight": 40}]}}, 2),
    ):
        answer = api_server.request("PATCH", path, {"spec": change}, "application/merge-patch+json")
        assert answer.status_code == 200, answer.text
        assert len(answer.headers.get_list("warning")) == expected, change


def test_name_when_it_is_the_preview_address_of_another_then_a_warning_says_so(
    api_server: ApiServer, namespace: str
) -> None:
    said = "its Service chat-preview has the name of the preview address of an LLMDeployment chat:"
    assert_warned(api_server, namespace, deployment("chat-preview"), [said])
    assert_warned(api_server, namespace, deployment("preview"), [])


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        ("true", False),
        ("0123456789", False),
        ("false", True),
        ("True", True),
        ("", True),
        ("012345678", True),
        ("0123456789@1", True),
    ],
)
def test_pause_annotation_when_its_value_pauses_nothing_then_a_warning_says_so(
    api_server: ApiServer, namespace: str, value: str, warned: bool
) -> None:
    body = deployment("warned")
    body["metadata"]["annotations"] = {"llmfleet.dev/pause": value}
    assert_warned(api_server, namespace, body, ["llmfleet.dev/pause pauses nothing"] * warned)
