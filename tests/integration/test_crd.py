"""The generated CRD in a real API server: what it accepts, fills in, refuses and prints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hack.controlplane.apiserver import CRD_PATH, REPOSITORY, ApiServer

from llmfleet.api import LLMDeployment, hash_payload, parse, unbuilt_fields

JSON = dict[str, Any]
COLLECTION = "/apis/llmfleet.dev/v1alpha1/namespaces/{}/llmdeployments"
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
DIGEST = "sha256:" + "a" * 64


def deployment(name: str = "chat", **spec: Any) -> JSON:
    """Return the smallest valid object, changed by the keys given."""
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"source": "pvc://models/tiny", "servedName": "tiny"}, **spec},
    }


def apply_dry(server: ApiServer, namespace: str, body: JSON) -> httpx.Response:
    """POST without storing; the answer is the object as it would be stored, or the refusal."""
    return server.request("POST", COLLECTION.format(namespace) + "?dryRun=All", body)


def engine(**settings: Any) -> JSON:
    return {"engine": settings}


def model(**settings: Any) -> JSON:
    return {"model": {"source": "pvc://models/tiny", "servedName": "tiny", **settings}}


def scaled(**settings: Any) -> JSON:
    metrics = [{"type": "InFlightRequests", "target": {"averageValue": 24}}]
    return {"autoscaling": {"maxReplicas": 8, "metrics": metrics, **settings}}


def pod(**settings: Any) -> JSON:
    return {"podTemplate": settings}


def mount(path: str) -> JSON:
    volume = {"name": "x", "emptyDir": {}}
    return pod(volumes=[volume], mounts=[{"name": "x", "mountPath": path}])


def steps(*each: JSON) -> JSON:
    return {"rollout": {"steps": list(each)}}


def header_step(**header: str) -> JSON:
    return {"setHeaderRoute": {"headers": [header]}}


IN_FLIGHT = {"type": "InFlightRequests", "target": {"averageValue": 24}}
TTFT = {"type": "TTFT", "target": {"p95Milliseconds": 500}}

ACCEPTED: dict[str, JSON] = {
    "minimal": {},
    "hf with commit": model(source="hf://meta-llama/Llama-3.1-8B-Instruct", revision="0e9e39f"),
    "hf with private token": model(
        source="hf://a/b", revision=COMMIT, secretRef={"name": "hf-token"}
    ),
    "quantities of every spelling": pod(
        resources={
            "requests": {"cpu": "0.5", "memory": "1e9", "hugepages-2Mi": "2E-3", "a.b/c": ".5"},
            "limits": {"cpu": "500000u", "memory": "1Pi", "ephemeral-storage": "1E", "a.b/d": 2},
        },
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1.5Ei"}}],
    ),
    "file": model(source="file:///opt/models/tiny"),
    "claim root": model(source="pvc://models"),
    "every engine field": engine(
        image=f"registry.example/runtime@{DIGEST}",
        chatTemplate={"configMapRef": {"name": "template"}},
        toolCallParser="hermes",
        reasoningParser="qwen3",
        dtype="bfloat16",
        maxModelLen=8192,
        maxNumSeqs=256,
        quantization="fp8",
        kvCache={
            "gpuMemoryUtilization": 0.9,
            "dtype": "fp8",
            "blockSize": 16,
            "prefixCaching": True,
            "offloadGiB": 4,
        },
        chunkedPrefill=True,
        schedulingPolicy="priority",
        speculativeDecoding={"method": "ngram", "numSpeculativeTokens": 4, "draftModel": {}},
        lora={"maxRank": 16, "adapters": [{"name": "sql", "source": "pvc://loras/sql"}]},
        media={"allowedDomains": ["images.example.com", "minio.storage.svc!private", "x"]},
        extraArgs=["--seed=7", "--enforce-eager"],
    ),
    "draft model": engine(
        speculativeDecoding={"method": "draft", "draftModel": {"source": "pvc://models/draft"}}
    ),
    "eagle3": engine(
        speculativeDecoding={
            "method": "eagle3",
            "draftModel": {"source": "hf://a/b", "revision": COMMIT},
        }
    ),
    "mtp": engine(speculativeDecoding={"method": "mtp"}),
    "parallel": {
        **engine(parallelism={"tensor": 2, "pipeline": 2}),
        "accelerator": {"resource": "nvidia.com/gpu", "count": 4},
    },
    "cpu": {"accelerator": {"type": "cpu"}, **engine(kvCache={"blockSize": 96})},
    "cpu with int8": {"accelerator": {"type": "cpu"}, **engine(quantization="int8")},
    "accelerator count only": {"accelerator": {"count": 2}},
    "replicas zero": {"replicas": 0},
    "autoscaling as printed": scaled(
        minReplicas=1,
        metrics=[IN_FLIGHT, TTFT],
        behavior={"scaleDown": {"stabilizationWindowSeconds": 300}},
        forecast={"enabled": True},
        fallback={"replicas": 3},
    ),
    "rollout as printed": {
        "rollout": {
            "strategy": "Canary",
            "steps": [{"setWeight": 5}, {"pause": {"duration": "5m"}}, {"analysis": {}}],
            "maxSurge": "25%",
            "scaleDownDelay": "5m",
            "progressDeadline": "30m",
            "revisionHistoryLimit": 5,
            "analysis": {
                "metrics": [{"name": "ErrorRate"}, {"name": "TTFT", "minEffect": "20%"}],
                "alpha": 0.01,
                "minSamples": 200,
                "maxDuration": "30m",
                "firstTokenTimeout": "60s",
                "onInconclusive": "Hold",
            },
            "stickiness": "None",
        }
    },
    "every kind of step": steps(
        {"setCanaryScale": {"replicas": 1}},
        {"setCanaryScale": {"percent": 50}},
        {"setCanaryScale": {"matchTrafficWeight": True}},
        header_step(name="x-a.b-c", prefix="yes"),
        {"setHeaderRoute": {}},
        {"setMirror": {"percent": 10}},
        {"setMirror": {"percent": 0}},
        {"setWeight": 5},
        {"pause": {}},
        {"analysis": {}},
        {"setWeight": 5},
    ),
    "blue-green": {
        "rollout": {
            "strategy": "BlueGreen",
            "rollbackWindow": 2,
            "blueGreen": {
                "promotion": "Manual",
                "previewDuration": "0s",
                "minPreviewRequests": 10,
            },
        }
    },
    "surge as count": {"rollout": {"maxSurge": 1}},
    "no surge": {"rollout": {"strategy": "RollingUpdate", "maxSurge": 0, "scaleDownDelay": "0s"}},
    "long durations": {"drain": {"timeout": "1h30m"}, "drift": {"window": "48h"}},
    "router as printed": {
        "router": {
            "replicas": 2,
            "policy": "PrefixHash",
            "prefixBytes": 4096,
            "bodyLimit": "8Mi",
            "drainTimeout": "600s",
        }
    },
    "pod template": pod(
        metadata={"labels": {"team": "a"}, "annotations": {"note": "x"}},
        nodeSelector={"pool": "gpu"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                    ]
                }
            }
        },
        priorityClassName="high",
        volumes=[{"name": "cache", "emptyDir": {}}],
        mounts=[{"name": "cache", "mountPath": "/data"}],
        env=[{"name": "TOKENIZERS_PARALLELISM", "value": "false"}],
        resources={"requests": {"cpu": 1, "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        runtimeClassName="nvidia",
    ),
}

REFUSED: dict[str, tuple[JSON, str]] = {
    "no model": ({"model": None}, "spec.model: Required value"),
    "wrong type": ({"replicas": "two"}, "spec.replicas: Invalid value"),
    "negative replicas": ({"replicas": -1}, "spec.replicas"),
    "unknown enum": (engine(dtype="fp64"), 'spec.engine.dtype: Unsupported value: "fp64"'),
    "hf without revision": (model(source="hf://a/b"), "revision is required for hf:// sources"),
    "hf with branch": (model(source="hf://a/b", revision="main"), "must be a commit"),
    "hf without organisation": (model(source="hf://gpt2", revision=COMMIT), "hf://ORG/NAME"),
    "oci": (model(source="oci://registry/model"), "oci:// and s3:// sources are not supported yet"),
    "s3": (model(source="s3://bucket/key"), "use hf://ORG/NAME, pvc://CLAIM/PATH"),
    "other scheme": (model(source="http://x/y"), "must be hf://ORG/NAME"),
    "path escapes": (model(source="pvc://models/../etc"), "must not contain '..'"),
    "relative file": (model(source="file://tiny"), "file:///PATH"),
    "image by tag": (engine(image="runtime:latest"), "must name a digest"),
    "draft without model": (
        engine(speculativeDecoding={"method": "draft"}),
        "speculativeDecoding.draftModel.source is required for the methods draft and eagle3",
    ),
    "ngram with draft model": (
        engine(speculativeDecoding={"method": "ngram", "draftModel": {"source": "pvc://models/d"}}),
        "draftModel is only used by the methods draft and eagle3",
    ),
    "draft from hf without revision": (
        engine(speculativeDecoding={"method": "draft", "draftModel": {"source": "hf://a/b"}}),
        "revision is required for hf:// sources",
    ),
    "draft with another token": (
        {
            **model(secretRef={"name": "a"}),
            **engine(
                speculativeDecoding={
                    "method": "draft",
                    "draftModel": {"source": "pvc://models/d", "secretRef": {"name": "b"}},
                }
            ),
        },
        "must name the same Secret as spec.model.secretRef",
    ),
    "adapter with a token of its own": (
        engine(
            lora={"adapters": [{"name": "x", "source": "pvc://l/x", "secretRef": {"name": "b"}}]}
        ),
        "secretRef must name the same Secret as spec.model.secretRef",
    ),
    "unknown method": (
        engine(speculativeDecoding={"method": "guess"}),
        "spec.engine.speculativeDecoding.method: Unsupported value",
    ),
    "memory over 1": (
        engine(kvCache={"gpuMemoryUtilization": 1.5}),
        "spec.engine.kvCache.gpuMemoryUtilization",
    ),
    "tensor not dividing": (
        {**engine(parallelism={"tensor": 3}), "accelerator": {"count": 4}},
        "tensor x pipeline x data must divide spec.accelerator.count",
    ),
    "tensor beyond the default GPU": (
        engine(parallelism={"tensor": 2}),
        "raise the count to a multiple of the product, or lower parallelism",
    ),
    "product not dividing": (
        {**engine(parallelism={"tensor": 2, "pipeline": 2}), "accelerator": {"count": 2}},
        "tensor x pipeline x data must divide",
    ),
    "data parallelism": (
        {**engine(parallelism={"data": 2}), "accelerator": {"count": 2}},
        "parallelism.data: several engines in one pod are not supported yet",
    ),
    "parallelism on cpu": (
        {**engine(parallelism={"tensor": 2}), "accelerator": {"type": "cpu"}},
        "a pod serves one engine on CPU",
    ),
    "fp8 on cpu": (
        {**engine(quantization="fp8"), "accelerator": {"type": "cpu"}},
        "fp8 does not work on CPU: use none, int8, awq or gptq",
    ),
    "cache type on cpu": (
        {**engine(kvCache={"dtype": "bfloat16"}), "accelerator": {"type": "cpu"}},
        "spec.engine.kvCache.dtype must be auto or one of the fp8 types on CPU",
    ),
    "offload on cpu": (
        {**engine(kvCache={"offloadGiB": 4}), "accelerator": {"type": "cpu"}},
        "spec.engine.kvCache.offloadGiB must be 0 on CPU",
    ),
    "cpu with count": (
        {"accelerator": {"type": "cpu", "count": 1}},
        "accelerator takes either type: cpu, or resource and count",
    ),
    "block size on gpu": (engine(kvCache={"blockSize": 24}), "must be 16, 32, 64 or 128 on GPUs"),
    "block size on cpu": (
        {**engine(kvCache={"blockSize": 16}), "accelerator": {"type": "cpu"}},
        "must be a multiple of 32 on CPU",
    ),
    "adapter named like the model": (
        engine(lora={"adapters": [{"name": "tiny", "source": "pvc://l/x"}]}),
        "an adapter must not have the model's servedName",
    ),
    **{
        f"media from {host}": (
            engine(media={"allowedDomains": [host]}),
            "must be the name of a host in lower case",
        )
        for host in (
            "10.0.0.1",
            "[::1]",
            "a.example:443",
            "https://a.example",
            "*.example",
            "A.example",
            "a.example.",
            "a.example!public",
            "-a.example",
        )
    },
    "a media host twice": (
        engine(media={"allowedDomains": ["a.example", "a.example"]}),
        "Duplicate value",
    ),
    "extraArgs without dashes": (engine(extraArgs=["seed=7"]), "must be --flag or --flag=value"),
    "extraArgs in two words": (engine(extraArgs=["--seed 7"]), "must be --flag or --flag=value"),
    "extraArgs repeating a field": (
        engine(extraArgs=["--seed=1", "--dtype=float16"]),
        "set spec.engine.dtype instead of --dtype",
    ),
    "extraArgs abbreviated": (
        engine(extraArgs=["--max-num-batched=5"]),
        "--max-num-batched is not on the list of allowed arguments",
    ),
    "extraArgs opening routes": (
        engine(extraArgs=["--seed=1", "--enable-sleep-mode"]),
        "--enable-sleep-mode is not on the list of allowed arguments",
    ),
    "extraArgs twice": (
        engine(extraArgs=["--seed=1", "--seed=2"]),
        "must not hold the same argument twice",
    ),
    "replicas with autoscaling": (
        {"replicas": 2, **scaled()},
        "spec.replicas and spec.autoscaling exclude each other",
    ),
    "min over max": (scaled(minReplicas=9), "must not exceed autoscaling.maxReplicas"),
    "latency alone": (scaled(metrics=[TTFT]), "autoscaling.metrics needs InFlightRequests"),
    "latency with average": (
        scaled(metrics=[IN_FLIGHT, {"type": "TTFT", "target": {"averageValue": 5}}]),
        "TTFT and TPOT need target.p95Milliseconds",
    ),
    "metric twice": (scaled(metrics=[IN_FLIGHT, IN_FLIGHT]), "Duplicate value"),
    "steps without canary": (
        {"rollout": {"strategy": "RollingUpdate", "steps": [{"setWeight": 5}]}},
        "rollout.steps are only used by strategy Canary",
    ),
    "step of two kinds": (
        {"rollout": {"steps": [{"setWeight": 5, "pause": {}}]}},
        "a rollout step needs exactly one of setWeight, pause, analysis, setHeaderRoute",
    ),
    "empty step": ({"rollout": {"steps": [{}]}}, "needs exactly one of setWeight"),
    "weight over 100": ({"rollout": {"steps": [{"setWeight": 101}]}}, "setWeight"),
    "too many steps": (
        {"rollout": {"steps": [{"setWeight": 5}] * 51}},
        "spec.rollout.steps: Too many: 51: must have at most 50 items",
    ),
    "two sizes of a canary": (
        steps({"setCanaryScale": {"replicas": 2, "percent": 50}}),
        "setCanaryScale needs exactly one of replicas, percent and matchTrafficWeight",
    ),
    "no size of a canary": (steps({"setCanaryScale": {}}), "setCanaryScale needs exactly one"),
    "copies over 100": (steps({"setMirror": {"percent": 101}}), "setMirror.percent"),
    "copies of nothing said": (steps({"setMirror": {}}), "setMirror.percent: Required value"),
    "header in capitals": (
        steps(header_step(name="X-Tester", exact="1")),
        "must be the name of a header in lower case",
    ),
    "header of ours": (
        steps(header_step(name="x-llmfleet-token", exact="1")),
        "not begin with x-llmfleet-",
    ),
    "header without value": (steps(header_step(name="x-a")), "exactly one of exact and prefix"),
    "header with two values": (
        steps(header_step(name="x-a", exact="1", prefix="1")),
        "exactly one of exact and prefix",
    ),
    "header with a control character": (
        steps(header_step(name="x-a", exact="a\nb")),
        "must be printable ASCII",
    ),
    "weights go down": (
        steps({"setWeight": 50}, {"setWeight": 5}),
        "must not go down: a canary goes back by",
    ),
    "pause of no time": (steps({"pause": {"duration": "0s"}}), "must be a duration from 1s"),
    "pause in words": (steps({"pause": {"duration": "a while"}}), "must be a duration from 1s"),
    "blue-green on a canary": (
        {"rollout": {"blueGreen": {"promotion": "Manual"}}},
        "rollout.blueGreen is only used by strategy BlueGreen",
    ),
    "blue-green with steps": (
        {"rollout": {"strategy": "BlueGreen", "steps": [{"setWeight": 5}]}},
        "rollout.steps are only used by strategy Canary",
    ),
    "unknown promotion": (
        {"rollout": {"strategy": "BlueGreen", "blueGreen": {"promotion": "Later"}}},
        "blueGreen.promotion: Unsupported value",
    ),
    "surge over 100 %": ({"rollout": {"maxSurge": "250%"}}, "must be a count from 0 to 1000"),
    "surge in words": ({"rollout": {"maxSurge": "some"}}, "or a percentage from 0% to 100%"),
    "duration in words": (
        {"drain": {"timeout": "5 minutes"}},
        "must be a duration from 10s to 24h, such as 300s, 5m or 1h30m",
    ),
    "duration out of range": ({"drain": {"timeout": "1s"}}, "spec.drain.timeout"),
    "effect without percent": (
        {"rollout": {"analysis": {"metrics": [{"name": "TTFT", "minEffect": "0.2"}]}}},
        "minEffect",
    ),
    "alpha of one": ({"rollout": {"analysis": {"alpha": 1}}}, "spec.rollout.analysis.alpha"),
    "alpha of zero": ({"rollout": {"analysis": {"alpha": 0}}}, "spec.rollout.analysis.alpha"),
    "size in words": ({"router": {"bodyLimit": "8MB"}}, "must be a size from 1Ki to 1Gi"),
    "size out of range": ({"router": {"bodyLimit": "4Gi"}}, "must be a size from 1Ki to 1Gi"),
    "no routers": ({"router": {"replicas": 0}}, "spec.router.replicas"),
    "hostPath": (
        pod(volumes=[{"name": "x", "hostPath": {"path": "/"}}]),
        "a volume needs exactly one of configMap, secret, emptyDir and persistentVolumeClaim",
    ),
    "reserved volume": (pod(volumes=[{"name": "llmfleet-x", "emptyDir": {}}]), "choose another"),
    "mount of nothing": (
        pod(mounts=[{"name": "x", "mountPath": "/data"}]),
        "podTemplate.mounts must name volumes listed in podTemplate.volumes",
    ),
    "mount in models": (mount("/models/x"), "lies in or over a directory that llmfleet uses"),
    "mount over the configuration": (mount("/etc"), "lies in or over a directory"),
    "mount over the program": (mount("/opt"), "lies in or over a directory"),
    "mount by two slashes": (mount("//etc/llmfleet"), "no '//'"),
    "mount by a dot": (mount("/./etc/llmfleet"), "no '/.'"),
    "mount by a slash at the end": (mount("/etc/llmfleet/"), "no '/' at its end"),
    "mount of the root": (mount("/"), "mountPath"),
    "reserved env": (
        pod(env=[{"name": "HF_HOME", "value": "/x"}]),
        "HF_HOME is set by llmfleet itself: remove it",
    ),
    "reserved env prefix": (
        pod(env=[{"name": "LLMFLEET_X", "value": "1"}]),
        "LLMFLEET_X is set by llmfleet itself",
    ),
    "env of two kinds": (
        pod(env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
        "an env entry takes value or valueFrom, not both",
    ),
    "env from two places": (
        pod(
            env=[
                {
                    "name": "A",
                    "valueFrom": {
                        "fieldRef": {"fieldPath": "x"},
                        "secretKeyRef": {"name": "s", "key": "k"},
                    },
                }
            ]
        ),
        "valueFrom needs exactly one of",
    ),
    "own labels": (
        pod(metadata={"labels": {"llmfleet.dev/revision": "x"}}),
        "labels under llmfleet.dev/ and app.kubernetes.io/managed-by are the operator's",
    ),
    "accelerator as resource": (
        pod(resources={"limits": {"nvidia.com/gpu": 1}}),
        "podTemplate.resources must not name the accelerator",
    ),
    "malformed quantity": (pod(resources={"limits": {"memory": "much"}}), "limits.memory"),
    "negative quantity": (pod(resources={"limits": {"memory": "-1"}}), "limits.memory"),
    "two suffixes": (pod(resources={"limits": {"memory": "1Kim"}}), "limits.memory"),
}


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda name: name.replace(" ", "-"))
def test_apply_when_valid_then_stored_as_given(
    api_server: ApiServer, namespace: str, case: str
) -> None:
    body = deployment(**ACCEPTED[case])
    answer = apply_dry(api_server, namespace, body)
    assert answer.status_code == 201, answer.text
    stored = answer.json()
    assert _contains(stored["spec"], body["spec"]), "a field was pruned or changed"
    assert isinstance(parse(stored), LLMDeployment)
    assert hash_payload(stored["spec"]) == hash_payload(body["spec"]), "defaults changed the hash"


@pytest.mark.parametrize("case", REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_apply_when_invalid_then_refused_with_a_sentence(
    api_server: ApiServer, namespace: str, case: str
) -> None:
    spec, sentence = REFUSED[case]
    answer = apply_dry(api_server, namespace, deployment(**spec))
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["message"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a" * 41, "metadata.name must have at most 40 characters"),
        ("7b", "must be a DNS label that starts with a letter"),
        ("a.b", "must be a DNS label that starts with a letter"),
    ],
)
def test_apply_when_name_is_unfit_then_refused(
    api_server: ApiServer, namespace: str, name: str, sentence: str
) -> None:
    answer = apply_dry(api_server, namespace, deployment(name))
    assert answer.status_code == 422
    assert sentence in answer.json()["message"]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=str)
def test_example_when_applied_then_accepted_without_a_word(
    api_server: ApiServer, namespace: str, path: Path
) -> None:
    for body in yaml.safe_load_all(path.read_text()):
        if body["kind"] == "LLMDeployment":
            body["metadata"].pop("namespace", None)
            answer = apply_dry(api_server, namespace, body)
            assert answer.status_code == 201, answer.text
            assert unbuilt_fields(answer.json()) == ()


def test_apply_when_served_name_changes_then_refused(api_server: ApiServer, namespace: str) -> None:
    stored = api_server.create(COLLECTION.format(namespace), deployment())
    stored["spec"]["model"]["servedName"] = "other"
    answer = api_server.request("PUT", COLLECTION.format(namespace) + "/chat", stored)
    assert answer.status_code == 422
    assert "servedName is immutable" in answer.json()["message"]


def test_apply_when_aliases_change_then_accepted(api_server: ApiServer, namespace: str) -> None:
    stored = api_server.create(COLLECTION.format(namespace), deployment())
    stored["spec"]["model"]["aliases"] = ["chat-default"]
    answer = api_server.request("PUT", COLLECTION.format(namespace) + "/chat", stored)
    assert answer.status_code == 200, answer.text


def test_create_when_minimal_then_defaults_are_filled_in(
    api_server: ApiServer, namespace: str
) -> None:
    stored = api_server.create(COLLECTION.format(namespace), deployment())
    spec = stored["spec"]
    assert spec["rollout"]["strategy"] == "Canary"
    assert spec["rollout"]["maxSurge"] == "25%"
    assert spec["accelerator"] == {"resource": "nvidia.com/gpu", "count": 1}
    assert spec["router"] == {
        "replicas": 2,
        "policy": "PrefixHash",
        "prefixBytes": 4096,
        "bodyLimit": "8Mi",
        "drainTimeout": "600s",
    }
    assert spec["drain"] == {"timeout": "300s"}
    assert spec["podTemplate"] == {}
    assert "replicas" not in spec, "a default would stand against autoscaling"
    assert unbuilt_fields(stored) == ()


def test_create_when_new_then_status_says_nothing_was_observed(
    api_server: ApiServer, namespace: str
) -> None:
    api_server.create(COLLECTION.format(namespace), deployment())
    stored = api_server.request("GET", COLLECTION.format(namespace) + "/chat").json()
    assert stored["status"] == {"observedGeneration": -1}


def test_status_when_written_then_read_back_unchanged(
    api_server: ApiServer, namespace: str
) -> None:
    path = COLLECTION.format(namespace)
    stored = api_server.create(path, deployment())
    status = {
        "observedGeneration": 1,
        "schema": 1,
        "phase": "Progressing",
        "ready": "1/2",
        "canaryWeight": 25,
        "traffic": [{"revision": "5d41c0ffee", "weight": 100}],
        "routing": {
            "headerRoute": {
                "revision": "9a0b",
                "headers": [{"name": "x-tester", "exact": "1"}],
            },
            "mirror": {"revision": "9a0b", "percent": 10},
            "preview": "9a0b",
            "stickiness": "Session",
        },
        "trafficGeneration": 2**40,
        "rollout": {"id": 1, "revision": "5d41c0ffee", "plan": {"any": {"thing": [1]}}},
        "rejectedRevisions": [
            {"hash": "9a0b", "reason": "EngineError", "at": "2026-01-01T00:00:00Z"}
        ],
        "handledActs": {"retry": "9a0b@1712"},
        "replicas": 2,
        "selector": "llmfleet.dev/deployment=chat",
        "conditions": [
            {
                "type": "Ready",
                "status": "Unknown",
                "reason": "Progressing",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "observedGeneration": 1,
            }
        ],
    }
    answer = api_server.request("PUT", f"{path}/chat/status", {**stored, "status": status})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == status


def test_scale_when_replicas_are_set_then_changes_them(
    api_server: ApiServer, namespace: str
) -> None:
    path = COLLECTION.format(namespace)
    api_server.create(path, deployment(replicas=2))
    api_server.kubectl("-n", namespace, "scale", "llmdep/chat", "--replicas=5")
    assert api_server.request("GET", f"{path}/chat").json()["spec"]["replicas"] == 5


def test_scale_when_autoscaling_then_refused(api_server: ApiServer, namespace: str) -> None:
    path = COLLECTION.format(namespace)
    stored = api_server.create(path, deployment(**scaled()))
    metadata = {key: stored["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    scale = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": 5},
    }
    answer = api_server.request("PUT", f"{path}/chat/scale", scale)
    assert answer.status_code >= 400
    assert "spec.replicas and spec.autoscaling exclude each other" in answer.text


def test_kubectl_get_then_prints_the_columns(api_server: ApiServer, namespace: str) -> None:
    api_server.create(COLLECTION.format(namespace), deployment())
    lines = api_server.kubectl("-n", namespace, "get", "llmdep").stdout.splitlines()
    assert lines[0].split() == ["NAME", "MODEL", "READY", "PHASE", "WEIGHT", "URL", "AGE"]
    assert lines[1].split()[:2] == ["chat", "tiny"]


def test_kubectl_explain_then_reads_like_documentation(api_server: ApiServer) -> None:
    text = api_server.kubectl("explain", "llmdep.spec.engine").stdout
    assert "Typed settings of the inference engine." in " ".join(text.split())
    assert "speculativeDecoding" in text
    assert "Guess several tokens at once" in " ".join(text.split())
    assert "<no description>" not in api_server.kubectl("explain", "llmdep", "--recursive").stdout


def test_kubectl_apply_when_field_is_unknown_then_refused(
    api_server: ApiServer, namespace: str
) -> None:
    body = yaml.safe_dump(deployment(engine={"maxModelLength": 5}))
    done = api_server.kubectl("-n", namespace, "apply", "-f", "-", text=body, check=False)
    assert done.returncode != 0
    assert 'unknown field "spec.engine.maxModelLength"' in done.stderr


def test_update_of_the_crd_when_unchanged_then_accepted(api_server: ApiServer) -> None:
    crd = yaml.safe_load(CRD_PATH.read_text())
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    conditions = api_server.request("GET", path).json()["status"]["conditions"]
    assert {each["type"]: each["status"] for each in conditions} == {
        "NamesAccepted": "True",
        "Established": "True",
    }, "NonStructuralSchema or others would show here"


def _contains(stored: Any, given: Any) -> bool:
    """Whether everything given was stored, defaults added or not."""
    match given:
        case dict():
            return all(
                key in stored and _contains(stored[key], value) for key, value in given.items()
            )
        case list():
            return len(stored) == len(given) and all(map(_contains, stored, given))
        case _:
            return bool(stored == copy.copy(given))
