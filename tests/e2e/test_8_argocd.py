"""A real Argo CD brings the resource, shows its rollout, and cannot undo a rollback by accident.

One story, told by fixtures of which each needs the one before: synced from Git, a canary aborted
through Argo CD's action, everything that must not roll it out again, and a prune. Argo CD syncs,
prunes and heals by itself all the time. The engine is a stub that starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hack.argocd.running import ArgoCD, running_argocd
from hack.cluster.__main__ import choose_flavour
from hack.cluster.settings import read_settings
from hack.kube.kubectl import get, list_objects, wait_for

from tests.e2e.fleet import Fleet, manifest
from tests.e2e.gitops import Application, Repository, Watch
from tests.e2e.stub import pod_template

JSON = dict[str, Any]
NAME = "gitops"
FILE = "llmdeployment.yaml"
ABOUT: JSON = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "about"},
    "data": {"owner": "team"},
}
"""Another object of the Application: without any, Argo CD would refuse to prune."""


@dataclass
class Story:
    """What the tests look at: Argo CD, the repository, and the fleet."""

    argocd: ArgoCD
    repository: Repository
    application: Application
    watch: Watch
    fleet: Fleet
    wanted: JSON
    """The LLMDeployment in Git."""
    commits: list[str] = field(default_factory=list)
    syncs_asked_for: int = 0

    def commit(self, files: dict[str, JSON | None], message: str) -> None:
        """Pushes, and waits until Argo CD has synced it."""
        self.commits.append(self.repository.commit(files, message))
        self.application.follow(self.commits[-1])

    def edit(self, message: str, **spec: Any) -> None:
        """Changes top-level keys of spec in Git."""
        self.wanted["spec"] |= spec
        self.commit({FILE: self.wanted}, message)

    @property
    def resource(self) -> dict[str, str]:
        """The LLMDeployment in the words of Argo CD's API."""
        return {
            "namespace": self.fleet.namespace,
            "resourceName": self.fleet.name,
            "group": "llmfleet.dev",
            "version": "v1alpha1",
            "kind": "LLMDeployment",
        }

    def memory(self) -> JSON:
        """What outlives the resource."""
        found = get("configmap", f"{self.fleet.name}-llmfleet-memory", self.fleet.namespace)
        assert found is not None
        data: JSON = found["data"]
        return data

    def wait_until_seen(self) -> JSON:
        """Waits until the operator has seen the present spec, and returns the status."""
        return wait_for(
            "the operator to see the spec",
            lambda: self.fleet.status() or None,
            timeout_seconds=60,
            describe=self.fleet.describe,
        )


@pytest.fixture(scope="module")
def story(
    namespace: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """An Application that is Synced and Healthy at its first commit."""
    if choose_flavour() != "local":
        pytest.skip("the stub engine's image is made for the local cluster only")
    image: str = request.getfixturevalue("stub_engine")
    folder: Path = tmp_path_factory.mktemp("argocd")
    fleet = Fleet(NAME, namespace)
    repository = Repository(folder)
    application = Application(NAME, repository, namespace)
    with running_argocd(folder, read_settings().kubeconfig) as argocd:
        wanted = _first_spec(fleet, image)
        commit = repository.commit({FILE: wanted, "about.yaml": ABOUT}, "the first model")
        application.create()
        watch = Watch(application)
        made = Story(argocd, repository, application, watch, fleet, wanted, [commit])
        try:
            application.follow(commit)
            application.wait_for_health("Healthy")
            yield made
        finally:
            watch.stop()
    fleet.delete()


def _first_spec(fleet: Fleet, image: str) -> JSON:
    document = manifest(fleet.name, fleet.namespace)
    spec = document["spec"]
    document["spec"] = {
        **spec,
        "engine": {**spec["engine"], "image": image},
        "rollout": {
            "strategy": "Canary",
            "steps": [{"setWeight": 50}, {"pause": {}}],
            "maxSurge": 1,
            "scaleDownDelay": "1s",
        },
        "podTemplate": pod_template("1"),
    }
    return document


@dataclass(frozen=True)
class Rejection:
    """What was seen while a canary came and was aborted."""

    stable: str
    canary: str
    actions_at_pause: dict[str, bool]
    message_at_pause: str
    actions_after: dict[str, bool]
    rollout_id: str


@pytest.fixture(scope="module")
def rejection(story: Story) -> Rejection:
    """A canary came from Git and was aborted through Argo CD's action."""
    stable = story.wait_until_seen()["servedRevision"]
    story.edit("shorter queues", engine={**story.wanted["spec"]["engine"], "maxNumSeqs": 8})
    story.application.wait_for_health("Suspended")
    message = story.argocd.health(NAME, "LLMDeployment")["message"]
    at_pause = story.argocd.list_actions(NAME, story.resource)
    canary = story.fleet.status()["rollout"]["revision"]
    story.argocd.run_action(NAME, story.resource, "abort")
    story.application.wait_for_health("Degraded")
    story.fleet.wait_for_engines(1)
    return Rejection(
        stable=stable,
        canary=canary,
        actions_at_pause=at_pause,
        message_at_pause=message,
        actions_after=story.argocd.list_actions(NAME, story.resource),
        rollout_id=story.memory()["rolloutId"],
    )


def assert_still_rejected(story: Story, rejection: Rejection) -> None:
    """Stable is served, and no rollout has begun since the abort."""
    status = story.wait_until_seen()
    assert status["servedRevision"] == rejection.stable
    assert status["traffic"] == [{"revision": rejection.stable, "weight": 100}]
    assert status["specRevision"] == rejection.canary
    assert [each["hash"] for each in status["rejectedRevisions"]] == [rejection.canary]
    assert "rollout" not in status
    selector = f"llmfleet.dev/deployment={NAME},llmfleet.dev/component=engine"
    found = list_objects("deployments", story.fleet.namespace, selector)
    assert [each["metadata"]["name"] for each in found] == [f"{NAME}-rev-{rejection.stable}"]


def test_sync_when_git_has_the_resource_then_argo_cd_says_healthy_in_the_operators_words(
    story: Story,
) -> None:
    health = story.argocd.health(NAME, "LLMDeployment")
    assert health == {"status": "Healthy", "message": story.fleet.status()["message"]}
    actions = story.argocd.list_actions(NAME, story.resource)
    assert {name for name, enabled in actions.items() if enabled} == {"pause"}


def test_canary_when_it_comes_from_git_then_argo_cd_shows_it_and_its_action_aborts_it(
    story: Story, rejection: Rejection
) -> None:
    health = [each.health for each in story.watch.seen if each.revision == story.commits[1]]
    assert rejection.message_at_pause.startswith(f"canary {rejection.canary} at 50 % waits")
    assert rejection.message_at_pause.startswith(f"canary {rejection.canary} at 50 % waits")
    assert health.index("Progressing") < health.index("Suspended") < health.index("Degraded")
    offered = {name for name, enabled in rejection.actions_at_pause.items() if enabled}
    assert offered == {"promote", "promote-full", "abort", "pause"}
    offered = {name for name, enabled in rejection.actions_after.items() if enabled}
    assert offered == {"retry", "pause"}
    assert_still_rejected(story, rejection)
    assert [each["reason"] for each in story.fleet.status()["rejectedRevisions"]] == ["UserAbort"]
    with story.fleet.client() as client:
        answer = client.chat.completions.create(
            model=story.fleet.model, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
    assert answer.choices


def test_rejected_revision_when_git_is_synced_again_then_it_is_not_rolled_out(
    story: Story, rejection: Rejection
) -> None:
    story.application.sync_again()
    story.syncs_asked_for += 1
    assert_still_rejected(story, rejection)
    assert story.memory()["rolloutId"] == rejection.rollout_id


def test_rejected_revision_when_other_fields_change_in_git_then_it_is_not_rolled_out(
    story: Story, rejection: Rejection
) -> None:
    story.wanted["metadata"]["labels"] = {"team": "chat"}
    story.edit("two replicas, and a label", replicas=2)
    story.fleet.wait_for_engines(2)
    assert story.fleet.object()["metadata"]["labels"]["team"] == "chat"
    assert_still_rejected(story, rejection)
    assert story.memory()["rolloutId"] == rejection.rollout_id
    story.edit("one again", replicas=1)
    story.fleet.wait_for_engines(1)
    assert_still_rejected(story, rejection)


def test_rejected_revision_when_pruned_and_created_again_then_it_is_remembered(
    story: Story, rejection: Rejection
) -> None:
    before = story.fleet.object()["metadata"]["uid"]
    story.commit({FILE: None}, "without the model")
    wait_for(
        "Argo CD to prune the LLMDeployment",
        lambda: not story.fleet.object(),
        timeout_seconds=60,
        describe=story.fleet.describe,
    )
    assert json.loads(story.memory()["rejected"]) == [[rejection.canary, "UserAbort"]]

    story.commit({FILE: story.wanted}, "with it again")
    story.application.wait_for_health("Degraded")
    story.fleet.wait_for_engines(1)
    story.fleet.wait_for_condition("Available", "True", "ReadyReplicas")

    assert story.fleet.object()["metadata"]["uid"] != before
    assert_still_rejected(story, rejection)
    assert story.fleet.condition("RolledBack")["status"] == "True"


def test_diff_when_all_this_has_happened_then_argo_cd_never_saw_one_it_had_not_been_given(
    story: Story, rejection: Rejection
) -> None:
    del rejection
    # Every sync was one that a commit or a person asked for: nothing had to be healed.
    assert len(story.application.history()) == len(story.commits) + story.syncs_asked_for
    for commit in story.commits:
        syncs = [each.sync for each in story.watch.seen if each.revision == commit]
        assert "Synced" in syncs
        assert set(syncs[syncs.index("Synced") :]) == {"Synced"}, syncs
    assert "ignoreDifferences" not in story.application.object()["spec"]
