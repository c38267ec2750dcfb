"""Installs the chart and makes the models once; keeps what is needed to explain a failure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hack.cluster.local import LocalCluster
from hack.cluster.settings import read_settings
from hack.kube import chart, local, models
from hack.kube.kubectl import KubectlError, kubectl

from tests.e2e.fleet import Fleet
from tests.e2e.prober import Prober
from tests.e2e.stub import StubFleet
from tests.zerolost.rig import stub_image

NAMESPACE = "e2e"
RESULTS = local.ROOT / "results"
FIGURES = pytest.StashKey[list[str]]()

DUMPS = {
    "objects.txt": "get llmdep,deploy,rs,pods,svc,endpointslices,controllerrevisions,cm,jobs,pdb "
    "-A -o wide",
    "llmdeployments.yaml": "get llmdep -A -o yaml",
    "llmdeployments.txt": "describe llmdep -A",
    "pods.txt": f"describe pods -n {NAMESPACE}",
    "events.txt": "get events -A --sort-by=.lastTimestamp",
    "nodes.txt": "describe nodes",
    "operator.log": f"logs -n {chart.NAMESPACE} -l app.kubernetes.io/name=llmfleet --tail=-1 "
    "--prefix --max-log-requests=10",
    "engines.log": f"logs -n {NAMESPACE} -l llmfleet.dev/component=engine --tail=2000 --prefix "
    "--max-log-requests=20",
    "routers.log": f"logs -n {NAMESPACE} -l llmfleet.dev/component=router --tail=2000 --prefix "
    "--max-log-requests=20",
    "prober.log": f"logs -n {NAMESPACE} prober --tail=50",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cluster and may take as long as several engine starts."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def images() -> chart.Images:
    """The images in the cluster; fails with the command to run when there is none."""
    try:
        local.enter()
        return local.images()
    except KubectlError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def namespace(images: chart.Images) -> str:
    """A fresh namespace with the operator installed and the models on the claim ``models``."""
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_seconds=240)
    chart.install(images)
    models.ensure(NAMESPACE, images.runtime)
    return NAMESPACE


@pytest.fixture(scope="session")
def fleet(namespace: str) -> Fleet:
    """The shared LLMDeployment: applied once, one replica, Healthy."""
    shared = Fleet("chat", namespace)
    shared.apply()
    shared.wait_until_healthy(timeout_seconds=240)
    return shared


@pytest.fixture
def prober(fleet: Fleet, images: chart.Images) -> Iterator[Prober]:
    """Not started yet; its pod is removed afterwards."""
    probe = Prober(fleet.namespace, fleet.name, fleet.model, images.operator)
    yield probe
    probe.remove()


@pytest.fixture
def other(namespace: str) -> Iterator[Callable[[str], Fleet]]:
    """Makes further LLMDeployments, which are deleted afterwards."""
    made: list[Fleet] = []

    def make(name: str) -> Fleet:
        made.append(Fleet(name, namespace))
        return made[-1]

    yield make
    for one in made:
        one.delete()


@pytest.fixture(scope="session")
def stub_engine(namespace: str) -> str:
    """Reference of the stub engine's image, built and loaded."""
    return stub_image(LocalCluster(read_settings()))


@pytest.fixture
def releases(
    namespace: str, stub_engine: str, request: pytest.FixtureRequest
) -> Iterator[StubFleet]:
    """An LLMDeployment with stub engines, not applied yet, with a name of its own.

    What is rejected stays rejected under a name, whatever becomes of the object.
    """
    number = sum(map(ord, request.node.nodeid)) % 10_000
    made = StubFleet(f"rel-{number}", namespace, stub_engine)
    yield made
    made.delete()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Writes what the cluster looked like at each failure to results/."""
    report = yield
    if report.failed:
        folder = RESULTS / "e2e-failure" / item.name[:80].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for name, command in DUMPS.items():
            try:
                text = kubectl(*command.split(), timeout_seconds=30)
            except (KubectlError, OSError) as error:
                text = f"{error}\n"
            (folder / name).write_text(text)
        report.sections.append(("cluster at the failure", f"written to {folder}"))
    return report


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a measured figure as a line, which is printed after the tests whatever happens."""
    lines = request.config.stash.setdefault(FIGURES, [])
    return lines.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures and the counts of earlier phases, so that the end tells the whole run."""
    for line in terminalreporter.config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)
    for path in sorted(RESULTS.glob("*.xml")):
        if path.name != "e2e.xml":
            suite = next(ET.parse(path).getroot().iter("testsuite"))
            count = {
                key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
            }
            passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
            terminalreporter.write_line(
                f"{path.stem}: {passed} passed, {count['failures'] + count['errors']} failed, "
                f"{count['skipped']} skipped in {float(suite.get('time', 0)):.0f} s"
            )
