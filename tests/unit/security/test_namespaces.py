"""Whatever a resource names lies in its own namespace, and no Secret is ever read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.security.rendered import NAMESPACE, children, resources

ROOT = Path(__file__).resolve().parents[3]
JSON = dict[str, Any]
RESOURCES = dict(resources())
ALLOWED_IN_SCHEMA = {
    # Which pods of other namespaces a pod likes to be near: placement, no access.
    "namespaces",
    "namespaceSelector",
}


def properties(schema: JSON, path: str = "") -> Iterator[str]:
    for name, part in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from properties(part, f"{path}.{name}")
    for nested in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(nested, dict):
            yield from properties(nested, path)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{path}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, path)
    else:
        yield path, value


def test_schema_when_searched_then_no_field_of_spec_names_another_namespace() -> None:
    crd = yaml.safe_load((ROOT / "crds" / "llmfleet.dev_llmdeployments.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    names = [path for path in properties(spec) if "namespace" in path.rpartition(".")[2].lower()]
    others = [
        path
        for path in names
        if path.rpartition(".")[2] not in ALLOWED_IN_SCHEMA or ".affinity.pod" not in path.lower()
    ]
    assert len(list(properties(spec))) > 100
    assert others == []


@pytest.mark.parametrize("name", RESOURCES)
def test_children_when_rendered_then_each_lives_and_points_inside_the_namespace(name: str) -> None:
    for body in children(RESOURCES[name]):
        assert body["metadata"]["namespace"] == NAMESPACE
        assert body["kind"] not in {"ClusterRole", "ClusterRoleBinding", "Namespace", "Node"}
        found = [
            (path, value)
            for path, value in leaves(body)
            if path.endswith(".namespace") and value != NAMESPACE
        ]
        assert found == []


@pytest.mark.parametrize("name", RESOURCES)
def test_roles_when_rendered_then_they_give_no_secrets_and_no_writes(name: str) -> None:
    (role,) = [body for body in children(RESOURCES[name]) if body["kind"] == "Role"]
    for rule in role["rules"]:
        assert set(rule["resources"]) <= {"llmdeployments", "endpointslices"}
        assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_operator_when_searched_then_no_code_reads_a_secret() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "operator").rglob("*.py"))
    assert "readNamespacedSecret" not in text
    assert "read_namespaced_secret" not in text
    rules = (ROOT / "charts/llmfleet/templates/_rules.tpl").read_text()
    plain = yaml.safe_load("\n".join(line for line in rules.splitlines() if "{{" not in line))
    assert [rule["verbs"] for rule in plain if "secrets" in rule["resources"]] == [["create"]]
