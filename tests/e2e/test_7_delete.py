"""Deleting needs no operator, and leaves nothing but the memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hack.kube import chart
from hack.kube.kubectl import kubectl, list_objects, wait_for

from tests.e2e.fleet import Fleet

KINDS = (
    "deployments,replicasets,pods,services,endpointslices,controllerrevisions,configmaps,"
    "secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
)


@pytest.fixture
def no_operator(fleet: Fleet) -> Iterator[None]:
    """The operator scaled to zero during the test."""
    where = ("-n", chart.NAMESPACE)
    kubectl("scale", "deployment", chart.OPERATOR, *where, "--replicas=0")
    kubectl(
        "wait", "pod", *where, "-l", "app.kubernetes.io/name=llmfleet", "--for=delete",
        "--timeout=60s", timeout_seconds=90,
    )  # fmt: skip
    yield
    kubectl("scale", "deployment", chart.OPERATOR, *where, "--replicas=2")


@pytest.mark.alone
@pytest.mark.usefixtures("no_operator")
def test_delete_when_the_operator_is_gone_then_only_the_memory_stays(fleet: Fleet) -> None:
    memory = f"{fleet.name}-llmfleet-memory"
    assert "finalizers" not in fleet.object()["metadata"]

    def remains() -> set[str]:
        return {
            f"{one['kind']}/{one['metadata']['name']}"
            for one in list_objects(KINDS, fleet.namespace)
            if one["metadata"]["name"].startswith(f"{fleet.name}-")
            or one["metadata"]["name"] == fleet.name
        }

    assert f"ConfigMap/{memory}" in remains()
    kubectl("delete", "llmdep", fleet.name, "-n", fleet.namespace, "--timeout=30s")

    wait_for(
        "everything but the memory to be gone",
        lambda: remains() == {f"ConfigMap/{memory}"},
        timeout_seconds=150,
        describe=lambda: ", ".join(sorted(remains())),
    )
