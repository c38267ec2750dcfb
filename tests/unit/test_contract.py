"""What operator, runtime and router agree on (docs/contract.md), held against all of them.

The three share no code, so each test builds one side's words and gives them to the other.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from llmfleet.api import ALLOWED_EXTRA_ARGS, parse
from llmfleet.api.crd import build_crd
from llmfleet.cluster import pods
from llmfleet.cluster import routers as polling
from llmfleet.planning.children import router_pod
from llmfleet.planning.children.engines import pod as engine
from llmfleet.planning.children.naming import RUNTIME_CONFIG_ANNOTATION
from llmfleet.planning.plan import Child
from llmfleet.planning.rollout import ends
from llmfleet_router import __main__ as router_main
from llmfleet_router.counters import Counts
from llmfleet_router.port import CountsCollector
from llmfleet_router.routing import Routing, parse_routing, routing_as_json
from llmfleet_router.settings import Policy, Settings, read_settings
from llmfleet_runtime import __main__ as runtime_main
from llmfleet_runtime import config as runtime_config
from llmfleet_runtime import engine_args, errors, media
from tests.unit.planning.fleet import Fleet, resource
from tests.unit.planning.test_manifests import SPECS

CONTRACT = Path(__file__).parents[2] / "docs" / "contract.md"


def child(kind: str, name: str, **spec: Any) -> Child:
    """One child of a first plan."""
    made = Fleet(resource(**spec)).decide().children
    return next(one for one in made if one.key.kind == kind and name in one.key.name)


def engine_template(**spec: Any) -> dict[str, Any]:
    template: dict[str, Any] = child("Deployment", "-rev-", **spec).body["spec"]["template"]
    return template


def router_containers(**spec: Any) -> list[dict[str, Any]]:
    template = child("Deployment", "-router", **spec).body["spec"]["template"]
    containers: list[dict[str, Any]] = template["spec"]["containers"]
    return containers


def router_environment(part: int, **spec: Any) -> dict[str, str]:
    environment = router_containers(**spec)[part]["env"]
    return {one["name"]: one.get("value", "from the pod") for one in environment}


@pytest.mark.parametrize("name", SPECS)
def test_runtime_config_when_the_operator_renders_it_then_the_runtime_knows_every_key(
    name: str, tmp_path: Path
) -> None:
    template = engine_template(**SPECS[name])
    path = tmp_path / "runtime.json"
    path.write_text(template["metadata"]["annotations"][RUNTIME_CONFIG_ANNOTATION])

    config, unknown = runtime_config.load_config(path)

    assert unknown == ()
    labels = template["metadata"]["labels"]
    assert config.revision == labels["llmfleet.dev/revision"]
    wanted = parse(resource(**SPECS[name])).spec
    assert config.model.served_name == wanted.model.served_name
    assert config.drain_timeout_seconds == wanted.drain.timeout_seconds


def test_runtime_config_when_mounted_then_it_is_where_the_runtime_reads_it() -> None:
    pod = engine_template()["spec"]
    mounts = [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]]
    projected = [
        item["path"]
        for volume in pod["volumes"]
        for item in volume.get("downwardAPI", {}).get("items", [])
    ]
    paths = runtime_main.parse([])

    assert str(paths.config) in {f"{mount}/{path}" for mount in mounts for path in projected}
    assert paths.health_port == engine.HEALTH_PORT
    assert str(paths.token_file.parent) in mounts


def test_extra_args_when_the_operator_allows_one_then_so_does_the_runtime() -> None:
    assert set(ALLOWED_EXTRA_ARGS) == set(engine_args.ALLOWED_EXTRA_ARGS)


def test_media_hosts_when_the_operator_accepts_them_then_by_the_runtimes_own_pattern() -> None:
    version = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    engine_schema = version["properties"]["spec"]["properties"]["engine"]["properties"]
    hosts = engine_schema["media"]["properties"]["allowedDomains"]["items"]

    rules = [each["rule"] for each in hosts["x-kubernetes-validations"]]
    assert rules == [f"self.matches('{media.HOST_PATTERN}')"]


def test_termination_when_the_runtime_has_a_reason_then_the_operator_and_the_page_know_it() -> None:
    reasons = {str(one) for one in errors.Reason}

    assert reasons == ends.RUNTIME_REASONS
    page = CONTRACT.read_text()
    assert all(f"`{one}`" in page for one in reasons)


@pytest.mark.parametrize("policy", list(Policy))
def test_router_environment_when_the_operator_sets_it_then_the_router_reads_it(
    policy: Policy,
) -> None:
    spec = {"policy": str(policy), "prefixBytes": 512, "bodyLimit": "1Mi", "drainTimeout": "90s"}
    for part in range(2):
        settings = read_settings(router_environment(part, router=spec))

        assert (settings.name, settings.namespace) == ("chat", "team-a")
        assert settings.policy is policy
        assert settings.prefix_bytes == 512
        assert settings.body_limit_bytes == 1024 * 1024
        assert settings.drain_timeout_seconds == 90


def test_router_containers_when_the_operator_starts_them_then_the_router_knows_their_parts() -> (
    None
):
    page = CONTRACT.read_text()
    assert {one["name"] for one in router_containers()} == set(pods.ROUTER_CONTAINERS)
    for container in router_containers():
        (part,) = container["args"]
        assert part == container["name"]
        assert part in router_main.PARTS
        assert f"`{part}`" in page
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert str(Settings(namespace="n", name="m").xds_dir) in mounts


def test_ports_when_three_programs_name_them_then_they_are_the_same() -> None:
    settings = Settings(namespace="n", name="m")
    ports = {
        one["name"]: one["containerPort"]
        for one in engine_template()["spec"]["containers"][0]["ports"]
    }

    assert settings.http_port == router_pod.HTTP_PORT
    assert settings.agent_port == router_pod.AGENT_PORT == polling.AGENT_PORT
    assert f"| router | {settings.preview_port} | `preview` |" in CONTRACT.read_text()
    assert ports == {"http": engine.HTTP_PORT, "health": engine.HEALTH_PORT}


def test_state_when_the_page_shows_an_answer_then_the_operator_reads_it() -> None:
    page = CONTRACT.read_text().split("GET :9090/llmfleet/state", 1)[1]
    answer = json.loads(page.split("```json", 1)[1].split("```", 1)[0])

    asked = polling.Router(
        owner=(answer["object"]["namespace"], answer["object"]["name"]),
        owner_uid=answer["object"]["uid"],
        pod=answer["pod"],
        pod_uid=answer["podUid"],
        address="10.0.0.1",
    )
    assert polling.read_report(asked, answer).traffic_generation == 17
    with pytest.raises(ValueError, match="another router"):
        polling.read_report(dataclasses.replace(asked, pod_uid="another"), answer)


def test_routing_when_the_page_shows_one_then_the_router_reads_all_of_it() -> None:
    page = CONTRACT.read_text().split("`status.routing` is", 1)[1]
    shown = json.loads(page.split("```json", 1)[1].split("```", 1)[0])

    routing = parse_routing(shown)

    assert routing_as_json(routing) == shown
    assert len(shown) == len(dataclasses.fields(Routing))


def test_counters_when_the_router_shows_them_then_the_page_and_the_state_name_them() -> None:
    page = CONTRACT.read_text()
    counted = {"requests": 1, "errors": 2, "mirrored": 3}
    registry = CollectorRegistry()
    of_a = Counts(**counted, in_flight=0)
    registry.register(CountsCollector(Settings(namespace="n", name="m"), {"a": of_a}))

    labels = {"llmdeployment_namespace": "n", "llmdeployment": "m", "revision": "a"}
    for kind, value in counted.items():
        name = f"llmfleet_router_{kind}_total"
        assert registry.get_sample_value(name, labels) == value
        assert f"`{name}`" in page
        assert f'"{kind}":' in page
    assert all(f"`{label}`" in page for label in labels)
