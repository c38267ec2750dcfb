"""Every pod that llmfleet runs meets Pod Security "restricted"."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hack.security.rendered import chart, children, resources

from tests.unit.chart.test_chart import HELM
from tests.unit.security.restricted import violations

JSON = dict[str, Any]
RESOURCES = dict(resources())


def pods(bodies: Any) -> list[JSON]:
    return [body["spec"]["template"]["spec"] for body in bodies if body["kind"] == "Deployment"]


@pytest.mark.parametrize("name", RESOURCES)
def test_pods_when_rendered_then_they_are_restricted(name: str) -> None:
    rendered = pods(children(RESOURCES[name]))
    assert len(rendered) == 2
    assert [list(violations(pod)) for pod in rendered] == [[], []]


@pytest.mark.skipif(HELM is None, reason="no helm yet: `make cluster-build` builds it")
def test_operator_when_rendered_then_it_is_restricted() -> None:
    assert HELM is not None
    (operator,) = pods(chart(HELM))
    assert list(violations(operator)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostNetwork",), True),
        (("volumes", 0), {"name": "x", "hostPath": {"path": "/"}}),
        (("containers", 0, "securityContext"), {}),
        (("containers", 0, "securityContext", "privileged"), True),
        (("containers", 0, "securityContext", "runAsUser"), 0),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"]),
        (("containers", 0, "ports", 0, "hostPort"), 80),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
    ],
    ids=str,
)
def test_pod_when_it_is_loosened_then_it_is_a_violation(path: tuple[Any, ...], value: Any) -> None:
    pod = copy.deepcopy(pods(children(RESOURCES["smallest"]))[0])
    at: Any = pod
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert list(violations(pod))
