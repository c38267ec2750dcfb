"""A node is lost in the middle of a canary, a blue-green and an undo: it goes on, nothing is lost.

Three replicas, default surge. *Stopped* is a node whose kubelet ended: its pods serve on, and not
one request may fail. *Lost* is one that is cut off as well: what it was answering fails. So does a
request that was sent on a connection which was idle when the node went, at most one on each; all
others are answered.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from hack.cluster.local import LocalCluster
from hack.cluster.settings import NODE_NAME, read_settings
from hack.kube import chart
from hack.kube.kubectl import wait_for

from tests.e2e.nodes.second import NAME, NodeFleet, SecondNode, losses, only
from tests.e2e.prober import Prober
from tests.zerolost.rig import SCRIPT
from tests.zerolost.scenarios import is_ready

JSON = dict[str, Any]
RATE = 5
GOES_ON_SECONDS = 60
"""After the pods' grace at the latest; how long engines then take to start is another matter."""
ENDS_SECONDS = 240
NOTICED_SECONDS = 120
"""Kubernetes takes 40 s to miss a node, and 5 s more to evict its pods."""
PAUSE: JSON = {"pause": {"duration": "20s"}}
CANARY: JSON = {
    "strategy": "Canary",
    "scaleDownDelay": "10s",
    "steps": [{"setWeight": 25}, PAUSE, {"setWeight": 60}, PAUSE],
}
BLUE_GREEN: JSON = {
    "strategy": "BlueGreen",
    "blueGreen": {"promotion": "Automatic"},
    "scaleDownDelay": "10s",
}
ROLLING: JSON = {"strategy": "RollingUpdate", "scaleDownDelay": "5s"}


@pytest.fixture
def second(images: chart.Images, stub_engine: str) -> Iterator[SecondNode]:
    """The second node, with the images that are loaded by now."""
    node = SecondNode(LocalCluster(read_settings()))
    node.add()
    yield node
    node.remove()


@pytest.fixture
def engines(
    namespace: str, stub_engine: str, second: SecondNode, request: pytest.FixtureRequest
) -> Iterator[NodeFleet]:
    """Not applied yet."""
    made = NodeFleet(f"node-{sum(map(ord, request.node.nodeid)) % 10_000}", namespace, stub_engine)
    yield made
    second.remove()  # else its pods would never be gone
    made.delete()


@pytest.fixture
def load(engines: NodeFleet, images: chart.Images) -> Iterator[Prober]:
    """Constant load through the Service; not started yet."""
    environment = {"TOKENS": "8", "LONG_TOKENS": "100", "LONG_EVERY": "20"}
    probe = Prober(
        engines.namespace, engines.name, engines.model, images.router,
        script=SCRIPT, environment=environment,
    )  # fmt: skip
    yield probe
    probe.remove()


class Trouble:
    """The node goes, and what is lost with it is counted."""

    def __init__(self, second: SecondNode, engines: NodeFleet, load: Prober) -> None:
        self._second, self._fleet, self._load = second, engines, load
        self._open = 0

    def strike(self, how: str) -> None:
        """Now."""
        if how == "stopped":
            self._second.stop()
            return
        self._second.lose()
        self._open = self._second.connections(self._fleet)

    def wait_for_grace(self) -> float:
        """Until its pods are told to end; when their grace is over, in seconds since 1970."""

        def ends() -> float | None:
            pods = self._fleet.there()
            told = [pod["metadata"].get("deletionTimestamp") for pod in pods]
            if not told or not all(told):
                return None
            return max(datetime.fromisoformat(each).timestamp() for each in told)

        return wait_for(
            "the pods of the lost node to be told to end", ends,
            timeout_seconds=NOTICED_SECONDS, describe=self._fleet.describe,
        )  # fmt: skip

    def wait_until(self, what: str, goes_on: Callable[[], bool]) -> str:
        """Until it goes on, a minute after the grace at the latest; how long after it, in words."""
        grace = self.wait_for_grace()
        wait_for(
            what, goes_on, timeout_seconds=grace + GOES_ON_SECONDS - time.time(),
            describe=self._fleet.describe,
        )  # fmt: skip
        return f"{what} {time.time() - grace:.0f} s after the grace of its pods"

    def count(self) -> str:
        """The load's end: nothing is lost but on connections to the lost node; in words."""
        self._load.wait_for_successes(20)
        counts = self._load.stop()
        lost = losses(self._load)
        assert counts["sent"] == counts["succeeded"] + len(lost)
        assert len(lost) <= self._open, lost
        return f"{counts['sent']} sent, {len(lost)} lost of {self._open} open connections"


@pytest.fixture
def trouble(second: SecondNode, engines: NodeFleet, load: Prober) -> Trouble:
    return Trouble(second, engines, load)


def start(engines: NodeFleet, rollout: JSON) -> str:
    """Three replicas, one of them on the second node; their revision."""
    with only(NODE_NAME):
        first = engines.start(rollout)
    with only(NAME):
        engines.scale(3)
        engines.wait_for_engines(3)
    assert engines.revisions_there() == {first}
    return first


def ready(engines: NodeFleet) -> dict[str, int]:
    """Ready engine pods by revision."""
    pods = filter(is_ready, engines.pods("engine"))
    return dict(Counter(map(revision_of, pods)))


def revision_of(pod: JSON) -> str:
    return str(pod["metadata"]["labels"]["llmfleet.dev/revision"])


def move_one(engines: NodeFleet, revision: str) -> None:
    """One of a revision's three pods comes to the second node."""
    with only(NAME):
        engines.replace_one(revision)
        until_ready(engines, revision, 3)


def until_ready(engines: NodeFleet, revision: str, count: int) -> None:
    """Waits until so many pods of a revision are ready and have requests where they get any."""
    wait_for(
        f"{count} ready pods of {revision}", lambda: ready(engines).get(revision) == count,
        timeout_seconds=120, describe=engines.describe,
    )  # fmt: skip


def until_weighted(engines: NodeFleet, revision: str) -> None:
    """Waits until a revision gets requests."""
    wait_for(
        f"requests for {revision}", lambda: engines.weights().get(revision),
        timeout_seconds=120, describe=engines.describe,
    )  # fmt: skip


def until_promoted(engines: NodeFleet, revision: str) -> None:
    """Waits until it is the served one, and nothing moves."""

    def is_promoted() -> bool:
        status = engines.status()
        return (status.get("servedRevision"), status.get("phase")) == (revision, "Healthy")

    wait_for(
        f"{revision} to be promoted", is_promoted,
        timeout_seconds=ENDS_SECONDS, describe=engines.describe,
    )  # fmt: skip


def all_made(engines: NodeFleet, revision: str) -> Callable[[], bool]:
    """Whether all three pods of a revision are there, ready or not: there was room for the last."""

    def made() -> bool:
        return sum(revision_of(pod) == revision for pod in engines.pods("engine")) == 3

    return made


def test_canary_when_the_node_of_a_served_pod_is_lost_then_it_goes_on_to_its_promotion(
    engines: NodeFleet, load: Prober, trouble: Trouble, figure: Callable[[str], None]
) -> None:
    start(engines, CANARY)
    load.start(RATE)
    with only(NODE_NAME):
        new = engines.release("2")
        until_weighted(engines, new)
    trouble.strike("lost")
    goes_on = trouble.wait_until("its last pod is made", all_made(engines, new))
    until_promoted(engines, new)
    figure(f"node of a served pod lost in a canary: {goes_on}, {trouble.count()}")
    assert "rejectedRevisions" not in engines.status()


def test_canary_when_the_node_of_its_only_pod_is_lost_then_it_goes_back_and_is_not_rejected(
    engines: NodeFleet, load: Prober, trouble: Trouble, figure: Callable[[str], None]
) -> None:
    old = start(engines, CANARY)
    load.start(RATE)
    with only(NAME):
        new = engines.release("2")
        until_weighted(engines, new)
    assert engines.revisions_there() == {old, new}
    trouble.strike("lost")
    goes_on = trouble.wait_until(
        "its traffic is back",
        lambda: engines.status().get("rollout", {}).get("state") == "BackingOff",
    )
    figure(f"node of a canary's only pod lost: {goes_on}, {trouble.count()}")
    assert engines.weights() == {old: 100}
    assert "rejectedRevisions" not in engines.status()


def test_canary_when_its_nodes_kubelet_stops_then_it_goes_on_and_no_request_fails(
    engines: NodeFleet, load: Prober, trouble: Trouble, figure: Callable[[str], None]
) -> None:
    old = start(engines, CANARY)
    load.start(RATE)
    with only(NAME):
        new = engines.release("2")
        until_weighted(engines, new)
    assert engines.revisions_there() == {old, new}
    trouble.strike("stopped")
    goes_on = trouble.wait_until("its last pod is made", all_made(engines, new))
    until_promoted(engines, new)
    figure(f"kubelet stopped in a canary: {goes_on}, {trouble.count()}")


@pytest.mark.parametrize("how", ["lost", "stopped"])
def test_blue_green_when_a_node_of_both_sets_goes_then_it_is_made_whole_and_switched(
    engines: NodeFleet,
    load: Prober,
    trouble: Trouble,
    figure: Callable[[str], None],
    how: str,
) -> None:
    old = start(engines, BLUE_GREEN)
    load.start(RATE)
    with only(NODE_NAME):
        new = engines.release("2")
        until_ready(engines, new, 3)
    move_one(engines, new)
    assert engines.revisions_there() == {old, new}
    trouble.strike(how)
    goes_on = trouble.wait_until("the set is whole again", all_made(engines, new))
    until_promoted(engines, new)
    figure(f"node {how} in a blue-green: {goes_on}, {trouble.count()}")


@pytest.mark.parametrize("how", ["lost", "stopped"])
def test_undo_when_a_node_of_both_revisions_goes_then_it_goes_on_to_its_end(
    engines: NodeFleet,
    load: Prober,
    trouble: Trouble,
    figure: Callable[[str], None],
    how: str,
) -> None:
    old = start(engines, ROLLING)
    with only(NODE_NAME):
        new = engines.release("2")
        until_promoted(engines, new)
    move_one(engines, new)
    wait_for(
        "the old pods to be gone", lambda: set(ready(engines)) == {new},
        timeout_seconds=90, describe=engines.describe,
    )  # fmt: skip
    load.start(RATE)
    with only(NAME):
        engines.act("undo", f"{old}@e2e")
        until_weighted(engines, old)
    assert engines.revisions_there() == {old, new}
    trouble.strike(how)
    goes_on = trouble.wait_until("the last pod is made", all_made(engines, old))
    wait_for(
        "all traffic to be where it was asked for", lambda: engines.weights() == {old: 100},
        timeout_seconds=ENDS_SECONDS, describe=engines.describe,
    )  # fmt: skip
    figure(f"node {how} in an undo: {goes_on}, {trouble.count()}")
