"""Argo CD's own machine runs our scripts, from the settings that docs/gitops.md tells to apply."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.argocd.customizations import FOLDER, SETTINGS

JSON = dict[str, Any]
Ask = Callable[..., str]
HEALTH = yaml.safe_load((FOLDER / "health_test.yaml").read_text())["tests"]
ACTIONS = yaml.safe_load((FOLDER / "actions" / "action_test.yaml").read_text())


@pytest.fixture(scope="session")
def ask(argocd: Path, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """`argocd admin settings resource-overrides …` with the committed settings."""
    settings = tmp_path_factory.mktemp("argocd") / "argocd-cm.yaml"
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}},
        "data": yaml.safe_load(SETTINGS.read_text())["data"],
    }
    settings.write_text(yaml.safe_dump(content))

    def run(*words: str) -> str:
        command = [str(argocd), "admin", "settings", "resource-overrides", *words]
        command += ["--argocd-cm-path", str(settings)]
        # It leaves the folders in which it compares.
        environment = {**os.environ, "TMPDIR": str(settings.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("case", HEALTH, ids=lambda case: case["inputPath"])
def test_health_when_argo_cd_computes_it_then_it_is_what_the_test_data_says(
    ask: Ask, case: JSON
) -> None:
    said = ask("health", str(FOLDER / case["inputPath"]))
    wanted = case["healthStatus"]
    assert f"STATUS: {wanted['status']}\nMESSAGE: {wanted['message']}\n" in said


@pytest.mark.parametrize("case", ACTIONS["discoveryTests"], ids=lambda case: case["inputPath"])
def test_actions_when_argo_cd_lists_them_then_those_of_the_test_data_are_enabled(
    ask: Ask, case: JSON
) -> None:
    said = ask("list-actions", str(FOLDER / "actions" / case["inputPath"]))
    rows = (re.fullmatch(r"(\S+) +(true|false)", line) for line in said.splitlines())
    found = {row[1]: row[2] == "true" for row in rows if row}
    assert found == {each["name"]: each["disabled"] for each in case["result"]}


@pytest.mark.parametrize("case", ACTIONS["actionTests"], ids=lambda case: case["action"])
def test_action_when_argo_cd_runs_it_then_only_its_annotation_changes(ask: Ask, case: JSON) -> None:
    folder = FOLDER / "actions"
    said = ask("run-action", str(folder / case["inputPath"]), case["action"])
    changed = [line[1:].strip() for line in said.splitlines() if line[:1] in {"<", ">"}]

    before, after = (
        yaml.safe_load((folder / case[key]).read_text())["metadata"].get("annotations") or {}
        for key in ("inputPath", "expectedOutputPath")
    )
    different = {key for key in before | after if before.get(key) != after.get(key)}
    assert len(different) == 1
    key = different.pop()
    value = after.get(key, before.get(key))
    lines = {f"{key}: {value}", f'{key}: "{value}"', "annotations:", "annotations: {}"}
    assert changed
    assert set(changed) <= lines, said
