"""What the operator's account may do, and what whoever asks may do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llmfleet.api import GROUP, PLURAL
from llmfleet.api.installed_crd import CRD_NAME
from llmfleet.cli.doctor.asking import JSON
from llmfleet.cli.doctor.finding import Finding, UnknownError, missing, ok, unknown
from llmfleet.cli.doctor.operators import Installation, Operator
from llmfleet.cli.leading import LEASE

REVIEWS: Final = "/apis/authorization.k8s.io/v1/"
MOST_TOLD: Final = 5
WHAT: Final = "ask for the rights of the operator's account (create subjectaccessreviews)"
WHO_MAY_ASK: Final = (
    "ask a cluster administrator, or whoever may create subjectaccessreviews, to run this"
)


class Scope(StrEnum):
    """Where a right is needed."""

    SERVED = "Served"
    """In every namespace that is served."""
    OWN = "Own"
    """In the operator's namespace."""
    CLUSTER = "Cluster"


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on a resource, and what they are needed for."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    needed: str
    scope: Scope = Scope.SERVED
    name: str = ""
    """Of the one object that it is needed on; "" = all."""


_READ: Final = ("get", "list", "watch")
_KEEP: Final = (*_READ, "create", "patch")
_OWN_KIND: Final = (*_KEEP, "delete")
RIGHTS: Final = (
    Right(GROUP, PLURAL, _READ, "see LLMDeployments"),
    Right(GROUP, f"{PLURAL}/status", ("patch",), "record decisions"),
    Right(GROUP, f"{PLURAL}/memory", ("update",), "write what it makes"),
    Right("apps", "deployments", _OWN_KIND, "run engines and routers"),
    Right("apps", "controllerrevisions", _OWN_KIND, "keep revisions"),
    Right("apps", "replicasets", ("list", "watch"), "know whose a pod is"),
    Right("", "services", _OWN_KIND, "give addresses"),
    Right("", "serviceaccounts", _KEEP, "run engines and routers"),
    Right("", "configmaps", _KEEP, "remember rejections"),
    Right("networking.k8s.io", "networkpolicies", _OWN_KIND, "close engines to others"),
    Right("policy", "poddisruptionbudgets", _KEEP, "protect pods from drains"),
    Right("rbac.authorization.k8s.io", "roles", _KEEP, "let routers see their object"),
    Right("rbac.authorization.k8s.io", "rolebindings", _KEEP, "let routers see their object"),
    Right("discovery.k8s.io", "endpointslices", ("list", "watch"), "let routers see endpoints"),
    Right("", "pods", ("list", "watch", "delete"), "see and restart pods"),
    Right("", "secrets", ("create",), "make the engine token"),
    Right("", "events", ("list",), "say why a pod does not begin"),
    Right("events.k8s.io", "events", ("create",), "tell what it does"),
    Right("apiextensions.k8s.io", "customresourcedefinitions", ("get",), "compare the CRD",
          Scope.CLUSTER, CRD_NAME),
    Right("", "nodes", ("get",), "tell a lost node from a slow pod", Scope.CLUSTER),
    Right("coordination.k8s.io", "leases", ("create",), "lead", Scope.OWN),
    Right("coordination.k8s.io", "leases", ("get", "update"), "lead", Scope.OWN, LEASE),
)  # fmt: skip
"""As the chart gives them (docs/operator.md says why, verb by verb)."""

ACTIVITIES: Final = (
    ("look at LLMDeployments", PLURAL, "list"),
    ("change them", PLURAL, "patch"),
    ("promote, abort, retry, undo and restart", f"{PLURAL}/rollout", "update"),
    ("forget what was rejected", f"{PLURAL}/memory", "update"),
)
"""What people do, and the right that it needs."""


def check_operator_rights(installation: Installation) -> Iterator[Finding]:
    """Whether each operator's account may do what it needs."""
    for operator in installation.operators:
        yield from _Reviewer(installation, operator).check()


def check_own_rights(installation: Installation) -> Iterator[Finding]:
    """What whoever asks may do in the namespace he works in."""
    api, where = installation.api, installation.namespace
    may: list[str] = []
    refused: list[str] = []
    for activity, resource, verb in ACTIVITIES:
        asked = _attributes(GROUP, resource, verb, where)
        path = f"{REVIEWS}selfsubjectaccessreviews"
        answer = api.create(
            "ask for your own rights", path, {"spec": {"resourceAttributes": asked}}
        )
        (may if _is_allowed(answer) else refused).append(f"{activity} ({verb} {resource})")
    if ACTIVITIES[0][0] in " ".join(may):
        text = f"in {where} you may {', '.join(may)}"
        yield ok("you", text + (f"; you may not {', '.join(refused)}" if refused else ""))
    else:
        yield missing(
            "you",
            f"in {where} you may not {', '.join(refused)}",
            f"have the role view, edit or admin bound to you in {where}; the chart value"
            " rbac.aggregate=true puts LLMDeployments into them",
        )


class _Reviewer:
    """Asks for the rights of one operator's account, as far as whoever asks may.

    Administrators of a namespace may ask for others' rights there and nowhere else.
    """

    def __init__(self, installation: Installation, operator: Operator) -> None:
        self._api = installation.api
        self._operator = operator
        self._namespace = installation.namespace
        self._refused: UnknownError | None = None
        """That nothing may be asked of the whole cluster."""

    def check(self) -> Iterator[Finding]:
        """What it may not do, and what nobody here may ask."""
        try:
            self._review(RIGHTS[0], RIGHTS[0].verbs[0], "")
        except UnknownError as error:
            self._refused = error
        lacking: list[str] = []
        asked: set[str] = set()
        refused: UnknownError | None = None
        for right in RIGHTS:
            for where in self._places(right):
                try:
                    lacking += self._lacks(right, where)
                    asked.add(where)
                except UnknownError as error:
                    refused = error
        if lacking:
            yield self._missing(lacking)
        elif asked:
            places = ", ".join(sorted(asked - {""})) if refused else self._served
            yield ok("rights", f"the account of {self._operator.place} may do all it needs in"
                     f" {places}")  # fmt: skip
        if refused is not None:
            rest = f"{refused}{' elsewhere' if asked else ''}"
            yield unknown("rights", UnknownError(rest, WHO_MAY_ASK))

    @property
    def _served(self) -> str:
        return ", ".join(self._operator.watched) or "all namespaces"

    def _missing(self, lacking: Sequence[str]) -> Finding:
        operator, more = self._operator, len(lacking) - MOST_TOLD
        return missing(
            "rights",
            f"the account of {operator.place} may not {'; '.join(lacking[:MOST_TOLD])}"
            + (f"; and {more} more" if more > 0 else ""),
            f"helm upgrade {operator.release} charts/llmfleet -n {operator.namespace}"
            " --reset-then-reuse-values: the chart of the operator's version brings its roles",
        )

    def _places(self, right: Right) -> Sequence[str]:
        """Namespaces; "" = all of them, or none."""
        match right.scope:
            case Scope.OWN:
                return (self._operator.namespace,)
            case Scope.CLUSTER:
                return ("",)
            case Scope.SERVED if self._refused is None:
                return self._operator.watched or ("",)
            case Scope.SERVED:
                return (self._namespace,) if self._operator.serves(self._namespace) else ()

    def _lacks(self, right: Right, where: str) -> Sequence[str]:
        verbs = [verb for verb in right.verbs if not self._may(right, verb, where)]
        if not verbs:
            return ()
        place = f" in {where}" if where else ""
        one = f" {right.name}" if right.name else ""
        return (f"{', '.join(verbs)} {right.resource}{one}{place} (to {right.needed})",)

    def _may(self, right: Right, verb: str, where: str) -> bool:
        if self._refused is not None and not where:
            raise self._refused
        return self._review(right, verb, where)

    def _review(self, right: Right, verb: str, where: str) -> bool:
        operator = self._operator
        spec = {
            "user": f"system:serviceaccount:{operator.namespace}:{operator.account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{operator.namespace}",
                "system:authenticated",
            ],
            "resourceAttributes": _attributes(right.group, right.resource, verb, where, right.name),
        }
        if self._refused is None:
            answer = self._api.create(WHAT, f"{REVIEWS}subjectaccessreviews", {"spec": spec})
        else:
            path = f"{REVIEWS}namespaces/{where}/localsubjectaccessreviews"
            answer = self._api.create(WHAT, path, {"metadata": {"namespace": where}, "spec": spec})
        return _is_allowed(answer)


def _attributes(group: str, resource: str, verb: str, namespace: str, name: str = "") -> JSON:
    kind, _, part = resource.partition("/")
    return {
        "group": group,
        "resource": kind,
        "subresource": part,
        "verb": verb,
        "namespace": namespace,
        "name": name,
    }


def _is_allowed(review: JSON) -> bool:
    return (review.get("status") or {}).get("allowed") is True
