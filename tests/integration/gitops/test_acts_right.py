"""Argo CD's API server gets the right to write acts, and no other one."""

from __future__ import annotations

import pytest
from hack.argocd.customizations import ROOT
from hack.controlplane.apiserver import ApiServer

ACCOUNT = "system:serviceaccount:argocd:argocd-server"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def may(server: ApiServer, verb: str, subresource: str) -> bool:
    attributes = {
        "namespace": "team-a",
        "group": "llmfleet.dev",
        "resource": "llmdeployments",
        "subresource": subresource,
        "verb": verb,
    }
    review = {"spec": {"user": ACCOUNT, "resourceAttributes": attributes}}
    answer = server.create(REVIEWS, {"apiVersion": "authorization.k8s.io/v1", **review})
    return bool(answer["status"]["allowed"])


@pytest.fixture
def granted(api_server: ApiServer) -> ApiServer:
    """An API server with argocd/acts-rbac.yaml applied, as docs/gitops.md tells."""
    assert not may(api_server, "update", "rollout")
    api_server.kubectl("apply", "-f", str(ROOT / "argocd" / "acts-rbac.yaml"))
    return api_server


def test_account_when_the_role_is_applied_then_it_may_act_and_nothing_else(
    granted: ApiServer,
) -> None:
    assert may(granted, "update", "rollout")
    others = [("update", ""), ("update", "status"), ("patch", "rollout"), ("delete", "")]
    assert [each for each in others if may(granted, *each)] == []
