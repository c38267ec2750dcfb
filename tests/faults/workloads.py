"""What users do, as workloads: an undisturbed beginning, and an action that faults strike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.run import Run

JSON = dict[str, Any]
Act = Callable[["Run"], Awaitable[None]]


def resource(**spec: Any) -> JSON:
    """An LLMDeployment that rolls without waiting."""
    return {
        "apiVersion": "llmfleet.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "model": {"source": "pvc://models/one", "servedName": "tiny"},
            "accelerator": {"type": "cpu"},
            "replicas": 2,
            "rollout": {"strategy": "RollingUpdate", "maxSurge": 1, "scaleDownDelay": "0s"},
            "router": {"replicas": 1},
            **spec,
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One thing that users do.

    Attributes:
        name: for plans.
        setup: undisturbed; it ends settled.
        action: while it runs a fault strikes.
        phase: how the resource ends; None when it is gone.
    """

    name: str
    setup: Act
    action: Act
    phase: str | None = "Healthy"
    keeps_engines: bool = False
    """No engine pod may be replaced by it."""


async def _nothing(_: Run) -> None:
    return


async def _occupied(run: Run) -> None:
    """Somebody else's Service has the name of the resource's."""
    await run.occupy("services", {"metadata": {"name": "chat"}, "spec": {"ports": [{"port": 80}]}})


async def _served(run: Run) -> None:
    await run.create(resource())
    await run.settle("Healthy")


def _canary(*steps: JSON) -> Act:
    async def act(run: Run) -> None:
        policy = {"strategy": "Canary", "maxSurge": 1, "scaleDownDelay": "0s", "steps": steps}
        await run.create(resource(rollout=policy))
        await run.settle("Healthy")

    return act


_TIMED = _canary({"setWeight": 50}, {"pause": {"duration": "1s"}})
_MANUAL = _canary({"setWeight": 50}, {"pause": {}})


def _decided_by_hand(act: str) -> Act:
    async def decide(run: Run) -> None:
        await run.edit({"spec": _model("two")})
        await run.settle("Paused")
        revision = run.status()["rollout"]["revision"]
        await run.edit({"metadata": {"annotations": {f"llmfleet.dev/{act}": f"{revision}@1"}}})

    return decide


async def _create(run: Run) -> None:
    await run.create(resource())


def _edit(**spec: Any) -> Act:
    async def act(run: Run) -> None:
        await run.edit({"spec": spec})

    return act


def _model(name: str) -> JSON:
    return {"model": {"source": f"pvc://models/{name}", "servedName": "tiny"}}


async def _scale_up_and_down(run: Run) -> None:
    await run.edit({"spec": {"replicas": 3}})
    await run.settle("Healthy")
    await run.edit({"spec": {"replicas": 1}})


async def _broken_then_fixed(run: Run) -> None:
    await run.edit({"spec": _model("broken")})
    await run.settle("Degraded")
    await run.edit({"spec": _model("one")})


async def _superseded(run: Run) -> None:
    await run.edit({"spec": _model("broken")})
    await run.settle("Degraded")
    await run.edit({"spec": _model("three")})


async def _deleted_and_made_again(run: Run) -> None:
    await run.delete()
    await run.create(resource())


async def _children_edited(run: Run) -> None:
    await run.merge("deployments", "chat-router", {"spec": {"replicas": 3}})
    await run.merge("services", "chat", {"metadata": {"labels": {"team": "other"}}})
    await run.merge("configmaps", "chat-llmfleet-memory", {"data": {"schema": "0"}})


async def _children_deleted(run: Run) -> None:
    await run.remove("services", "chat")
    await run.remove("configmaps", "chat-llmfleet-memory")
    await run.remove("deployments", "chat-router")


async def _upgraded(run: Run) -> None:
    """Another build of the operator: other images, and another way to render pods."""
    await run.upgrade()


async def _upgraded_in_a_rollout(run: Run) -> None:
    """Another build takes over once the new revision is frozen; before, it would be its own."""
    await run.edit({"spec": _model("two")})
    await run.until(lambda: len(run.room.objects["controllerrevisions"]) > 1)
    await run.upgrade()


WORKLOADS = (
    Workload(name="create", setup=_nothing, action=_create),
    Workload(name="scale", setup=_served, action=_scale_up_and_down),
    Workload(name="update", setup=_served, action=_edit(**_model("two"))),
    Workload(name="broken", setup=_served, action=_edit(**_model("broken")), phase="Degraded"),
    Workload(name="broken-then-fixed", setup=_served, action=_broken_then_fixed),
    Workload(name="superseded", setup=_served, action=_superseded),
    Workload(name="canary", setup=_TIMED, action=_edit(**_model("two"))),
    Workload(
        name="canary-broken", setup=_TIMED, action=_edit(**_model("broken")), phase="Degraded"
    ),
    Workload(name="canary-promoted", setup=_MANUAL, action=_decided_by_hand("promote")),
    Workload(
        name="canary-aborted", setup=_MANUAL, action=_decided_by_hand("abort"), phase="Degraded"
    ),
    Workload(
        name="edit-router",
        setup=_served,
        action=_edit(router={"bodyLimit": "1Mi"}),
        keeps_engines=True,
    ),
    Workload(name="edit-engine", setup=_served, action=_edit(engine={"maxNumSeqs": 8})),
    Workload(
        name="edit-pods",
        setup=_served,
        action=_edit(
            podTemplate={"nodeSelector": {"disk": "ssd"}},
            drain={"timeout": "60s"},
            accelerator={"resource": "nvidia.com/gpu", "count": 1, "type": None},
        ),
    ),
    Workload(
        name="edit-rollout",
        setup=_served,
        action=_edit(rollout={"revisionHistoryLimit": 1}),
        keeps_engines=True,
    ),
    Workload(name="delete", setup=_served, action=lambda run: run.delete(), phase=None),
    Workload(name="re-create", setup=_served, action=_deleted_and_made_again),
    Workload(name="children-edited", setup=_served, action=_children_edited, keeps_engines=True),
    Workload(name="children-deleted", setup=_served, action=_children_deleted, keeps_engines=True),
    Workload(name="name-taken", setup=_occupied, action=_create, phase="Degraded"),
    Workload(name="upgrade", setup=_served, action=_upgraded, keeps_engines=True),
    Workload(name="upgrade-in-a-rollout", setup=_served, action=_upgraded_in_a_rollout),
)
