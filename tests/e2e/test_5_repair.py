"""Children edited by hand are put back, added fields included."""

from __future__ import annotations

import json

from hack.kube.kubectl import get, kubectl, wait_for

from tests.e2e.fleet import Fleet


def test_children_when_edited_by_hand_then_they_are_put_back(fleet: Fleet) -> None:
    revision = fleet.wait_until_healthy()["servedRevision"]
    engine, namespace = f"{fleet.name}-rev-{revision}", fleet.namespace

    service = {"spec": {"ports": [{"name": "extra", "port": 9999}], "selector": {"extra": "yes"}}}
    kubectl("patch", "service", fleet.name, "-n", namespace, "-p", json.dumps(service))
    kubectl("scale", "deployment", engine, "-n", namespace, "--replicas=2")
    kubectl(
        "patch", "deployment", f"{fleet.name}-router", "-n", namespace, "--type=merge",
        "-p", '{"spec":{"minReadySeconds":7,"progressDeadlineSeconds":77}}',
    )  # fmt: skip

    def put_back() -> bool:
        live = get("service", fleet.name, namespace) or {}
        ports = [port["port"] for port in live["spec"]["ports"]]
        router = get("deployment", f"{fleet.name}-router", namespace) or {}
        return (
            ports == [80]
            and "extra" not in live["spec"]["selector"]
            and (get("deployment", engine, namespace) or {})["spec"]["replicas"] == 1
            and "minReadySeconds" not in router["spec"]
            and router["spec"].get("progressDeadlineSeconds") != 77
        )

    wait_for(
        "the edited children to be as they were",
        put_back,
        timeout_seconds=30,
        describe=lambda: json.dumps((get("service", fleet.name, namespace) or {}).get("spec")),
    )
    fleet.wait_for_engines(1)
    events = kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}")
    assert "ChildEdited" in events


def test_child_when_deleted_by_hand_then_it_is_made_again(fleet: Fleet) -> None:
    before = get("service", fleet.name, fleet.namespace)
    assert before is not None
    kubectl("delete", "service", fleet.name, "-n", fleet.namespace)

    wait_for(
        "the Service to be made again",
        lambda: (
            (found := get("service", fleet.name, fleet.namespace)) is not None
            and found["metadata"]["uid"] != before["metadata"]["uid"]
        ),
        timeout_seconds=30,
    )
    fleet.wait_until_healthy()
