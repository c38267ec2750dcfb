"""All children that must exist, and those that must go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from llmfleet.planning.children.budgets import build_engine_budget
from llmfleet.planning.children.naming import (
    CORE,
    controller_revision_key,
    deployment_key,
    is_orphan,
    is_ours,
    service_key,
    token_name,
)
from llmfleet.planning.children.network import build_network_policies, policy_keys
from llmfleet.planning.children.pools import build_engine_deployment, build_engine_service
from llmfleet.planning.children.router import build_router, build_token_secret, preview_key
from llmfleet.planning.plan import Child, Deletion
from llmfleet.planning.revisions.keeping import Keeping
from llmfleet.planning.revisions.memory import Memory, build_memory
from llmfleet.planning.revisions.revision import (
    Revision,
    build_controller_revision,
    return_owner,
)
from llmfleet.planning.snapshot import ObjectKey, ObservedObject, ObservedPod, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """The children of a decision."""

    children: tuple[Child, ...]
    deletions: tuple[Deletion, ...]
    foreign: tuple[ObservedObject, ...]
    """Objects of somebody else that have a name among them; they are left alone."""
    refused: tuple[str, ...]
    """Sentences about children that the API server refused at the last attempt."""
    lost: tuple[str, ...]
    """Revisions that serve although only their Deployment holds their pod template still."""


def decide_children(
    snapshot: Snapshot,
    history: Keeping,
    memory: Memory | None,
    *,
    replicas: Mapping[str, int],
    removed: Iterable[str],
    replaced: Iterable[ObservedPod] = (),
) -> Intended:
    """Render everything that must exist.

    Args:
        snapshot: everything observed.
        history: the revisions, with their frozen templates.
        memory: what outlives the resource; None = it is left as it is.
        replicas: of every revision that has a Deployment.
        removed: revisions whose Deployment and Service go.
        replaced: pods that go, for their ReplicaSet to make new ones.
    """
    children = _children(snapshot, history, memory, replicas)
    foreign = [child.key for child in children if _is_foreign(snapshot, child.key)]
    kept = tuple(child for child in children if child.key not in foreign)
    deletions = _deletions(snapshot, removed, history.pruned)
    deletions += tuple(_pod_deletion(pod) for pod in replaced)
    served = {share.revision for share in snapshot.deployment.status.traffic}
    return Intended(
        children=kept,
        deletions=deletions,
        foreign=tuple(snapshot.objects[key] for key in foreign),
        refused=_refused(snapshot, (*kept, *deletions)),
        lost=tuple(sorted(served & replicas.keys() - history.known.keys())),
    )


def _children(
    snapshot: Snapshot, history: Keeping, memory: Memory | None, replicas: Mapping[str, int]
) -> list[Child]:
    deployment, known = snapshot.deployment, history.known
    children: list[Child] = []
    token = deployment.status.token_secret
    if token is None or token.name != token_name(deployment):
        children.append(build_token_secret(deployment))
    # Engines first: they are what takes minutes to start, and refuse everybody but the routers.
    if history.made is not None:
        children.append(build_controller_revision(deployment, history.made))
    children += _orphaned_revisions(snapshot, history)
    sizes = [(name, wanted) for name, wanted in sorted(replicas.items()) if name in known]
    for name, wanted in sizes:
        children.append(build_engine_deployment(deployment, name, known[name].template, wanted))
    children += _resized(snapshot, known, replicas)
    if memory is not None:
        children.append(build_memory(deployment, memory))
    children += [build_engine_service(deployment, name) for name, _ in sizes]
    if snapshot.settings.network is not None:
        children += build_network_policies(deployment, snapshot.settings.network)
    children.append(build_engine_budget(deployment))
    children += build_router(deployment, snapshot.settings)
    return children


def _orphaned_revisions(snapshot: Snapshot, history: Keeping) -> Iterator[Child]:
    """ControllerRevisions without their owner; all else gets it back like any other field.

    Those that cannot be used get none: it would only be a promise that they are ours.
    """
    deployment = snapshot.deployment
    for revision in sorted(history.known.keys() - set(history.pruned)):
        key = controller_revision_key(deployment.metadata.name, revision)
        found = snapshot.objects.get(key)
        if found is None or found.deleting or not is_orphan(found):
            continue
        if is_ours(deployment, found):
            yield return_owner(deployment, found)


def _resized(
    snapshot: Snapshot, known: Mapping[str, Revision], replicas: Mapping[str, int]
) -> Iterator[Child]:
    """Deployments whose template only they hold still: they are scaled, and else left as they are.

    A rollout away from such a revision would otherwise wait for ever for the pods it gives up.
    """
    deployment = snapshot.deployment
    for name, wanted in sorted(replicas.items()):
        found = snapshot.objects.get(deployment_key(deployment.metadata.name, name))
        if name in known or found is None or not is_ours(deployment, found):
            continue
        spec = found.body["spec"]
        if spec.get("replicas") != wanted:
            yield build_engine_deployment(deployment, name, spec["template"], wanted)


def _is_foreign(snapshot: Snapshot, key: ObjectKey) -> bool:
    found = snapshot.objects.get(key)
    return found is not None and not is_ours(snapshot.deployment, found)


def _refused(snapshot: Snapshot, intended: Iterable[Child | Deletion]) -> tuple[str, ...]:
    found = ((each.key, snapshot.refusals.get(each.key)) for each in intended)
    return tuple(f"{key.kind} {key.name} was refused: {text}" for key, text in found if text)


def _pod_deletion(pod: ObservedPod) -> Deletion:
    """Its age was what mattered, and its status changes all the time: the uid alone is checked."""
    key = ObjectKey(api_version=CORE, kind="Pod", name=pod.name)
    return Deletion(key=key, uid=pod.uid, resource_version=None)


def _deletions(
    snapshot: Snapshot, removed: Iterable[str], pruned: Iterable[str]
) -> tuple[Deletion, ...]:
    name = snapshot.deployment.metadata.name
    keys: list[ObjectKey] = [controller_revision_key(name, revision) for revision in pruned]
    if snapshot.settings.network is None:
        keys += policy_keys(name)
    if snapshot.deployment.preview_url is None:
        keys.append(preview_key(name))
    for revision in removed:
        keys += [deployment_key(name, revision), service_key(name, revision)]
    found = (snapshot.objects.get(key) for key in keys)
    return tuple(
        Deletion(key=each.key, uid=each.uid, resource_version=each.resource_version)
        for each in found
        if each is not None and not each.deleting and is_ours(snapshot.deployment, each)
    )
