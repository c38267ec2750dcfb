"""Installs the chart and makes the models once; keeps what is needed to explain a failure.

With ``-n 3`` the tests of the shared LLMDeployment follow each other in one worker, and the others
run beside them in namespaces of their own. A test marked ``alone`` comes last in its worker and has
the cluster to itself.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hack.cluster.local import LocalCluster
from hack.cluster.settings import read_settings
from hack.kube import chart, local, models
from hack.kube.kubectl import KubectlError, delete, kubectl, list_objects

from tests.e2e.fleet import Fleet
from tests.e2e.prober import Prober
from tests.e2e.sharing import NAMESPACE, SHARED, Lanes, is_ours, lane, once, turn
from tests.e2e.stub import StubFleet
from tests.zerolost.rig import stub_image

RESULTS = local.ROOT / "results"
RUN_FOLDER = pytest.StashKey[Path]()
FIGURE = "figure"

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
    "--all-containers --max-log-requests=20",
    "prober.log": f"logs -n {NAMESPACE} prober --tail=50",
}


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder that the workers of this run share."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is None:
        folder = tempfile.TemporaryDirectory(prefix="llmfleet-e2e-")
        config.add_cleanup(folder.cleanup)
        config.stash[RUN_FOLDER] = Path(folder.name)
    elif "run_folder" in given:
        config.stash[RUN_FOLDER] = Path(given["run_folder"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist which folder that is."""
    node.workerinput["run_folder"] = str(node.config.stash[RUN_FOLDER])


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    """By lane, whatever ``--dist`` says: no worker may meet the shared LLMDeployment of another."""
    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cluster and may take as long as several engine starts."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(600))
            if "fleet" in getattr(item, "fixturenames", ()) and lane(item.nodeid) != SHARED:
                raise pytest.UsageError(f"{item.nodeid} uses the shared LLMDeployment elsewhere")
    items.sort(key=_is_alone)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Takes the test's turn before its fixtures and its timeout begin."""
    with turn(_run_folder(item.config), alone=_is_alone(item)):
        return (yield)


def _run_folder(config: pytest.Config) -> Path:
    try:
        return config.stash[RUN_FOLDER]
    except KeyError:  # this file was unknown where the workers were started
        raise pytest.UsageError("to use pytest-xdist here, name tests/e2e as argument") from None


@pytest.fixture(scope="session")
def images() -> chart.Images:
    """The images in the cluster; fails with the command to run when there is none."""
    try:
        local.enter()
        return local.images()
    except KubectlError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest) -> Path:
    """The folder that the workers of this run share."""
    return _run_folder(request.config)


@pytest.fixture(scope="session")
def operator(images: chart.Images, run_folder: Path) -> None:
    """The operator, installed once, with nothing left of an earlier run."""

    def install() -> str:
        left = [each["metadata"]["name"] for each in list_objects("namespaces")]
        ours = [name for name in left if is_ours(name)]
        if ours:
            kubectl("delete", "namespace", *ours, timeout_seconds=240)
        chart.install(images)
        return images.operator

    once(run_folder, "operator", install)


@pytest.fixture(scope="session")
def namespace(images: chart.Images, operator: None) -> str:
    """A fresh namespace of this worker's, with the models on the claim ``models``."""
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
    for one in made:  # all at once: each takes as long as its pods need to end
        delete("llmdep", one.name, one.namespace, wait=False)
    for one in made:
        one.delete()


@pytest.fixture(scope="session")
def stub_engine(namespace: str, run_folder: Path) -> str:
    """Reference of the stub engine's image, built and loaded."""
    return once(run_folder, "stub-engine", lambda: stub_image(LocalCluster(read_settings())))


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

    def take(line: str) -> None:
        request.node.user_properties.append((FIGURE, line))  # goes with the report, if it must

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures and the counts of earlier phases, so that the end tells the whole run."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, line in report.user_properties:
                    if name == FIGURE:
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
