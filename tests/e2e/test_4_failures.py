"""What can go wrong: a condition says what to do, and serving goes on."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from hack.demo import conversation
from hack.kube.kubectl import KubectlError, apply, delete, kubectl, wait_for

from tests.e2e.fleet import Fleet

FINISHED = re.compile(r'"finishedAt": "([^"]+)"')


def test_rollout_when_the_model_is_missing_then_a_condition_says_so_and_the_old_one_serves(
    fleet: Fleet, figure: Callable[[str], None]
) -> None:
    good = fleet.wait_until_healthy()["servedRevision"]
    source = fleet.object()["spec"]["model"]["source"]

    # A watch, since the pod goes as soon as its revision is rejected.
    with _watching_exits(fleet) as exits:
        fleet.patch({"model": {"source": "pvc://models/does-not-exist"}})
        wait_for("the new engine's exit", lambda: bool(exits), timeout_seconds=150)
    exited = max(exits)
    said = wait_for(
        "a condition with the engine's last error",
        lambda: next(
            (
                entry
                for entry in fleet.status().get("conditions", [])
                if "does-not-exist" in entry["message"]
            ),
            None,
        ),
        timeout_seconds=30,
        describe=lambda: str(fleet.status().get("conditions")),
    )
    delay = (datetime.fromisoformat(said["lastTransitionTime"]) - exited).total_seconds()

    figure(f"engine's last error in a condition: {delay:.0f} s after its exit (target 30 s)")
    assert delay <= 30
    rejected = wait_for(
        "the rejection", lambda: fleet.status().get("rejectedRevisions"), timeout_seconds=30
    )
    assert rejected[-1]["reason"] == "ModelNotFound"
    assert fleet.status()["servedRevision"] == good
    assert fleet.condition("Available")["status"] == "True"
    with fleet.client() as client:
        assert conversation.chat(client, fleet.model, "Are you there?", max_tokens=8).tokens > 0

    fleet.patch({"model": {"source": source}})
    assert fleet.wait_until_healthy()["servedRevision"] == good


def test_engine_when_the_kernel_kills_it_for_memory_then_a_condition_says_so(
    fleet: Fleet, figure: Callable[[str], None]
) -> None:
    fleet.wait_until_healthy()
    (pod,) = fleet.pods("engine")
    name = pod["metadata"]["name"]

    # Files in a memory volume count against the container's limit but belong to no process, so the
    # kernel kills the largest: vLLM's engine, whose supervisor then tells, or the container.
    try:
        with contextlib.suppress(KubectlError):  # the shell may die with the container
            kubectl(
                "exec", name, "-n", fleet.namespace, "--", "python", "-c",
                "f = open('/dev/shm/fill', 'wb')\nfor _ in range(6144): f.write(bytes(1 << 20))",
                timeout_seconds=120,
            )  # fmt: skip
        exited = wait_for("the engine's exit", lambda: _last_exit(fleet), timeout_seconds=60)
        said = fleet.wait_for_condition("Progressing", "False", "OutOfMemory", timeout_seconds=30)
        delay = (datetime.fromisoformat(said["lastTransitionTime"]) - exited).total_seconds()
        figure(f"kernel's out-of-memory kill in a condition: {delay:.0f} s after the exit")
        assert "podTemplate.resources.limits.memory" in said["message"]
    finally:
        # A memory volume outlives the container, so only another pod is free of the file.
        kubectl("delete", "pod", name, "-n", fleet.namespace, "--now", timeout_seconds=120)
        fleet.wait_until_healthy()


def test_apply_when_something_it_needs_is_missing_then_a_condition_names_it(
    fleet: Fleet, other: Callable[[str], Fleet]
) -> None:
    model = {"servedName": "tiny-llama", "source": "pvc://models/tiny-llama"}
    claim, secret, gpus, taken = (
        other(f"no-{what}") for what in ("claim", "secret", "gpu", "name")
    )
    apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": taken.name, "namespace": fleet.namespace, "labels": {"of": "us"}},
            "spec": {"ports": [{"port": 80}], "selector": {"of": "us"}},
        }
    )
    claim.apply(model=model | {"source": "pvc://absent/tiny-llama"})
    secret.apply(model=model | {"secretRef": {"name": "absent"}})
    gpus.apply(model=model, accelerator={"resource": "nvidia.com/gpu", "count": 64})
    taken.apply(model=model)

    def said(one: Fleet, reason: str, word: str) -> None:
        wait_for(
            f"{one.name} to have a condition with reason {reason} naming {word}",
            lambda: any(
                entry["reason"] == reason and word in entry["message"]
                for entry in one.status().get("conditions", [])
            ),
            timeout_seconds=60,
            describe=lambda: str(one.status().get("conditions")),
        )

    said(taken, "NameTaken", "no-name")
    delete("llmdep", taken.name, taken.namespace, wait=False)  # its engine loads for nobody
    said(claim, "ClaimMissing", "absent")
    said(secret, "SecretMissing", "absent")
    said(gpus, "Unschedulable", "nvidia.com/gpu")
    assert fleet.status()["phase"] == "Healthy"


@contextlib.contextmanager
def _watching_exits(fleet: Fleet) -> Iterator[list[datetime]]:
    """Ends of engine containers from now on, as they are told."""
    selector = f"llmfleet.dev/deployment={fleet.name},llmfleet.dev/component=engine"
    command = ["kubectl", "get", "pods", "-n", fleet.namespace, "-l", selector, "--watch-only"]
    found: list[datetime] = []
    begun = datetime.now(UTC).replace(microsecond=0)  # Kubernetes' times are whole seconds
    with subprocess.Popen([*command, "-o", "json"], stdout=subprocess.PIPE, text=True) as watch:

        def read() -> None:
            for line in watch.stdout or ():
                told = FINISHED.search(line)
                ended = datetime.fromisoformat(told[1]) if told else None
                if ended is not None and ended >= begun:
                    found.append(ended)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield found
        finally:
            watch.terminate()
            reader.join(10)


def _last_exit(fleet: Fleet) -> datetime | None:
    """When an engine container last ended, None while none has."""
    ends = []
    for pod in fleet.pods("engine"):
        for container in pod["status"].get("containerStatuses") or []:
            for state in (container["state"], container.get("lastState") or {}):
                ended = state.get("terminated")
                ends += [datetime.fromisoformat(ended["finishedAt"])] if ended else []
    return max(ends) if ends else None
