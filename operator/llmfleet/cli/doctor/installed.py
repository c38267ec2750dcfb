"""Whether the CRD is there and recent, and whether an operator runs and leads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from llmfleet import __version__
from llmfleet.api import CRD_SCHEMA, GROUP, SCHEMA_ANNOTATION, VERSION, clean_line
from llmfleet.api.crd import build_crd
from llmfleet.api.installed_crd import CRD_NAME, CRD_PATH, outdated_reasons
from llmfleet.cli.doctor.asking import JSON
from llmfleet.cli.doctor.finding import Finding, UnknownError, chart_value, missing, ok
from llmfleet.cli.doctor.operators import Installation, Operator, holder_pod
from llmfleet.cli.leading import find_problem

INSTALL: Final = (
    "helm install llmfleet charts/llmfleet --namespace llmfleet-system --create-namespace"
)
MOST_TOLD: Final = 5
METRICS_PORT: Final = 8080
"""Of operator pods (docs/contract.md)."""
_CRD_FIX: Final = (
    "kubectl apply --server-side -f crds/ of the operator's version, or set the chart value"
    " crds.install=true and helm upgrade"
)


def check_crd(installation: Installation) -> Iterator[Finding]:
    """Every field that is written must be known to the API server."""
    api = installation.api
    try:
        found = api.get("read CustomResourceDefinitions", f"{CRD_PATH}/{CRD_NAME}")
    except UnknownError as error:
        if api.get("see what kinds there are", f"/apis/{GROUP}/{VERSION}") is not None:
            text = f"{error}: {CRD_NAME} is installed, but it may be older than the operator"
            raise UnknownError(text) from error
        found = None
    if found is None:
        yield missing("crd", f"the CRD {CRD_NAME} is not installed", _CRD_FIX)
        return
    annotations = found["metadata"].get("annotations") or {}
    schema = f"schema {annotations.get(SCHEMA_ANNOTATION, 'unknown')}"
    lacking = outdated_reasons(found, build_crd())
    if lacking:
        shown = ", ".join(lacking[:MOST_TOLD]) + (" …" if len(lacking) > MOST_TOLD else "")
        text = f"the CRD {CRD_NAME} ({schema}) is older than {__version__}, it lacks {shown}"
        yield missing("crd", text, _CRD_FIX)
    else:
        yield ok("crd", f"the CRD {CRD_NAME} ({schema}) has all that {__version__} writes")


def check_operator(installation: Installation) -> Iterator[Finding]:
    """Whether its pods run and are ready."""
    if not installation.operators:
        yield missing("operator", "no operator is installed where you may look", INSTALL)
    for operator in installation.operators:
        yield _check_pods(installation, operator)
        if operator.version and operator.version != __version__:
            yield missing(
                "version",
                f"the operator {operator.place} is {operator.version}, this program is"
                f" {__version__}: what one writes the other may not know",
                "use the kubectl llmfleet of the operator's version, or helm upgrade",
            )


def check_lease(installation: Installation) -> Iterator[Finding]:
    """Whether somebody keeps what statuses say."""
    leases = installation.leases
    problem = find_problem(leases, installation.api.now())
    if problem is None:
        holders = [each for each in leases if (each.get("spec") or {}).get("holderIdentity")]
        yield ok("lease", "; ".join(_describe_holder(installation, each) for each in holders))
        return
    where = leases[0]["metadata"]["namespace"] if leases else "llmfleet-system"
    logs = installation.kubectl(
        where, "logs", "--selector", "app.kubernetes.io/component=operator", "--tail=50"
    )
    yield missing("lease", problem, f"{logs} says what the operator waits for")


def check_served(installation: Installation, namespace: str) -> Iterator[Finding]:
    """Whether an operator serves a namespace."""
    serving = [each for each in installation.operators if each.serves(namespace)]
    if not installation.operators:
        return
    if not serving:
        first = installation.operators[0]
        yield missing(
            "served",
            f"no operator serves the namespace {namespace}: {first.place} serves"
            f" {', '.join(first.watched)}",
            chart_value("watchNamespaces", f"{{{','.join((*first.watched, namespace))}}}"),
        )
    elif len(serving) > 1:
        names = ", ".join(each.place for each in serving)
        yield missing(
            "served",
            f"{len(serving)} operators serve the namespace {namespace} ({names}), and both write",
            "give each release namespaces of its own: the chart value watchNamespaces",
        )
    else:
        yield ok("served", f"the operator {serving[0].place} serves the namespace {namespace}")


def check_seen(installation: Installation, raw: JSON) -> Iterator[Finding]:
    """Whether the operator has seen an LLMDeployment as it is now."""
    meta, status = raw["metadata"], raw.get("status") or {}
    name = meta["name"]
    status_command = installation.commands.llmfleet("status", name)
    schema = status.get("schema")
    if isinstance(schema, int) and schema > CRD_SCHEMA:
        yield missing(
            "seen",
            f"the status of {name} was written by a newer operator (schema {schema})",
            "helm upgrade to the newest release that has run here",
        )
    elif status.get("observedGeneration") != meta.get("generation"):
        yield missing(
            "seen",
            f"the newest spec of {name} is not yet seen by an operator",
            f"see to operator and lease above; then {status_command}",
        )
    else:
        yield ok("seen", f"the operator has seen the newest spec of {name}")


def check_routers(raw: JSON) -> Iterator[Finding]:
    """Whether its routers tell the operator what they serve."""
    conditions = (raw.get("status") or {}).get("conditions") or []
    found = next((each for each in conditions if each.get("type") == "RoutersConfirmed"), None)
    if found is None:
        raise UnknownError("its status does not say yet whether its routers confirm what they do")
    message = clean_line(str(found.get("message") or found.get("reason")))
    if found.get("status") == "True":
        yield ok("routers", message)
        return
    name = raw["metadata"]["name"]
    yield missing(
        "routers",
        message,
        "let the operator's pods reach port 9090 of router pods (chart value"
        f" networkPolicies.enabled), and look at them: kubectl get pods -l"
        f" llmfleet.dev/deployment={name},llmfleet.dev/component=router",
    )


def _check_pods(installation: Installation, operator: Operator) -> Finding:
    counts = f"{operator.ready} of {operator.wanted} operator pods of {operator.place} are ready"
    if operator.wanted == 0:
        return missing("operator", counts, chart_value("replicas", "2"))
    if operator.ready >= operator.wanted:
        return ok("operator", counts)
    describe = installation.kubectl(operator.namespace, "describe", "deployment", operator.name)
    try:
        reasons = [
            reason
            for pod in installation.pods(operator)
            if (reason := _why_not_ready(installation, operator, pod))
        ]
    except UnknownError as error:
        return missing("operator", f"{counts}; why cannot be known, because {error}", describe)
    text = "; ".join([counts, *reasons[:MOST_TOLD]])
    return missing("operator", text, describe)


def _why_not_ready(installation: Installation, operator: Operator, pod: JSON) -> str | None:
    """In the kubelet's, the scheduler's or the operator's own words."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    conditions = {each.get("type"): each for each in status.get("conditions") or []}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return None
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"{name}: {scheduled.get('message') or scheduled.get('reason')}"
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        waiting = state.get("waiting")
        if waiting:
            return f"{name}: {waiting.get('reason')}: {waiting.get('message') or ''}"
        if "running" in state:
            return _readiness(installation, operator, name)
    return f"{name} has not begun"


def _readiness(installation: Installation, operator: Operator, pod: str) -> str:
    path = f"/api/v1/namespaces/{operator.namespace}/pods/{pod}:{METRICS_PORT}/proxy/readyz"
    try:
        code, said = installation.api.text(f"ask {pod}", path)
    except UnknownError as error:
        return f"{pod} runs, and is not ready; {error}"
    return f"{pod} says: {said.strip()}" if code == 503 else f"{pod} runs, and is not ready"


def _describe_holder(installation: Installation, lease: JSON) -> str:
    meta = lease["metadata"]
    pod = holder_pod(installation, lease)
    holder = pod["metadata"]["name"] if pod else lease["spec"]["holderIdentity"]
    return f"{holder} holds the Lease {meta['namespace']}/{meta['name']}"
