"""Golden manifests and hashes: LLMFLEET_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmfleet.api import parse
from llmfleet.planning.children.engines import ENGINES, engine_of
from llmfleet.planning.children.naming import deployment_key
from llmfleet.planning.revisions.revision import revision_hash, spec_payload
from llmfleet.planning.snapshot import JSON
from tests.unit.planning.fleet import Fleet, resource

GOLDEN = Path(__file__).parent / "golden"

SPECS: dict[str, JSON] = {
    "smallest": {},
    "cpu": {"accelerator": {"type": "cpu"}},
    "everything": {
        "model": {
            "source": "hf://org/name",
            "revision": "0123456789abcdef",
            "servedName": "big",
            "aliases": ["other"],
            "secretRef": {"name": "hub"},
        },
        "engine": {
            "image": "registry/runtime@sha256:" + "0" * 64,
            "dtype": "bfloat16",
            "maxModelLen": 8192,
            "chatTemplate": {"configMapRef": {"name": "prompts", "key": "chat.jinja"}},
            "kvCache": {"gpuMemoryUtilization": 0.85, "prefixCaching": True},
            "speculativeDecoding": {
                "method": "draft",
                "draftModel": {"source": "pvc://drafts/small"},
            },
            "parallelism": {"tensor": 2},
        },
        "accelerator": {"resource": "amd.com/gpu", "count": 2},
        "drain": {"timeout": "1m"},
        "router": {
            "replicas": 3,
            "policy": "LeastRequest",
            "drainTimeout": "30s",
            "podTemplate": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
                "nodeSelector": {"pool": "edge"},
                "tolerations": [{"key": "edge", "operator": "Exists"}],
                "priorityClassName": "high",
                "resources": {"requests": {"cpu": 2}, "limits": {"memory": "2Gi"}},
            },
        },
        "podTemplate": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "high",
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "mounts": [{"name": "extra", "mountPath": "/data"}],
            "env": [{"name": "LOG", "value": "1"}],
            "resources": {"requests": {"cpu": 2, "memory": "8Gi"}},
        },
    },
}


@pytest.mark.parametrize("name", SPECS)
def test_manifests_when_built_then_they_equal_the_golden_ones(name: str) -> None:
    plan = Fleet(resource(**SPECS[name])).decide()
    text = yaml.safe_dump_all(
        (child.body for child in plan.children), sort_keys=True, width=120, default_flow_style=False
    )
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("LLMFLEET_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


HASHES = {"smallest": "d2e95b4334", "cpu": "33c0a80099", "everything": "4a69e377eb"}


@pytest.mark.parametrize("name", SPECS)
def test_hash_when_the_spec_is_the_same_then_it_never_changes(name: str) -> None:
    assert revision_hash(spec_payload(resource(**SPECS[name]))) == HASHES[name]


@pytest.mark.parametrize("name", SPECS)
def test_pods_when_built_then_they_meet_the_restricted_standard(name: str) -> None:
    for pod in _pod_specs(name):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        allowed = {
            "configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret",
        }  # fmt: skip
        assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
        mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True


def _pod_specs(name: str) -> list[Any]:
    plan = Fleet(resource(**SPECS[name])).decide()
    return [
        child.body["spec"]["template"]["spec"]
        for child in plan.children
        if child.key.kind == "Deployment"
    ]


@pytest.mark.parametrize("name", SPECS)
def test_engine_when_looked_up_then_what_it_gives_is_what_the_plan_runs(name: str) -> None:
    fleet = Fleet(resource(**SPECS[name]))
    deployment = parse(fleet.raw)
    engine, revision = engine_of(deployment), revision_hash(spec_payload(fleet.raw))
    children = fleet.decide().children
    body = next(each.body for each in children if each.key == deployment_key("chat", revision))
    assert body["spec"]["template"] == engine.pod_template(deployment, fleet.settings, revision)
    assert engine is ENGINES[engine.name]
    (container,) = body["spec"]["template"]["spec"]["containers"]
    assert container["image"] == engine.image(deployment, fleet.settings)


def test_router_pod_when_built_then_envoy_and_agent_share_what_one_writes_for_the_other() -> None:
    envoy, agent = _router_pod()["containers"]
    assert (envoy["name"], agent["name"]) == ("envoy", "agent")
    assert (envoy["args"], agent["args"]) == (["envoy"], ["agent"])
    assert envoy["image"] == agent["image"]
    assert envoy["env"] == agent["env"]
    shared = {"/tmp", "/var/run/llmfleet/xds"}
    mounts = [{m["mountPath"] for m in one["volumeMounts"]} for one in (envoy, agent)]
    api = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mounts == [shared | {"/var/run/llmfleet/token"}, shared | {api}]
    assert _router_pod()["automountServiceAccountToken"] is False, "it would be Envoy's as well"
    assert all("resources" in one for one in (envoy, agent))


def test_router_pod_when_the_agent_hangs_then_it_alone_is_restarted_and_soon() -> None:
    envoy, agent = _router_pod()["containers"]
    assert "livenessProbe" not in envoy, "one that fails would cut every stream"
    for probe in (agent["startupProbe"], agent["livenessProbe"]):
        assert probe["httpGet"]["port"] == "agent"
        assert probe["terminationGracePeriodSeconds"] <= 10
    startup = agent["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300, "slow is not hanging"
    assert "tcpSocket" in envoy["readinessProbe"], "an Envoy that has much to do answers late"


def _router_pod() -> Any:
    (pod,) = [pod for pod in _pod_specs("smallest") if len(pod["containers"]) == 2]
    return pod


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"requests": {"cpu": "80m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}}),
        (
            {"requests": {"cpu": "2"}},
            {"requests": {"cpu": "2", "memory": "192Mi"}, "limits": {"memory": "1Gi"}},
        ),
        ({"requests": {"memory": "4Gi"}}, {"requests": {"cpu": "80m", "memory": "4Gi"}}),
        (
            {"limits": {"memory": "64Mi", "cpu": "10m"}},
            {"limits": {"memory": "64Mi", "cpu": "10m"}},
        ),
    ],
)
def test_router_resources_when_chosen_then_no_default_contradicts_them(
    chosen: JSON, expected: JSON
) -> None:
    found = resource(router={"podTemplate": {"resources": chosen}})
    (deployment,) = [
        child.body
        for child in Fleet(found).decide().children
        if child.key.kind == "Deployment" and child.key.name == "chat-router"
    ]
    envoy, agent = deployment["spec"]["template"]["spec"]["containers"]
    assert envoy["resources"] == expected
    assert agent["resources"]["limits"] == {"memory": "256Mi"}
