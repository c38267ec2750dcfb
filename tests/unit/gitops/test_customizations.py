"""The patch of argocd-cm that docs/gitops.md tells to apply."""

from __future__ import annotations

import yaml
from hack.argocd.customizations import FOLDER, ROOT, SETTINGS, settings_data, settings_patch

from tests.unit.gitops.machine import action_names


def test_settings_when_generated_then_the_committed_file_has_the_scripts_word_for_word() -> None:
    assert SETTINGS.read_text() == settings_patch()
    data = yaml.safe_load(SETTINGS.read_text())["data"]
    assert data == settings_data()
    health = data["resource.customizations.health.llmfleet.dev_LLMDeployment"]
    assert health == (FOLDER / "health.lua").read_text()
    actions = yaml.safe_load(data["resource.customizations.actions.llmfleet.dev_LLMDeployment"])
    assert actions["discovery.lua"] == (FOLDER / "actions" / "discovery.lua").read_text()
    assert {each["name"] for each in actions["definitions"]} == action_names()
    for each in actions["definitions"]:
        script = FOLDER / "actions" / each["name"] / "action.lua"
        assert each["action.lua"] == script.read_text()


def test_settings_when_shown_then_scripts_are_blocks_that_a_person_can_read() -> None:
    assert "\\n" not in SETTINGS.read_text()


def test_guide_when_it_tells_how_to_install_then_it_names_the_generated_file() -> None:
    guide = (ROOT / "docs" / "gitops.md").read_text()
    assert f"--patch-file {SETTINGS.relative_to(ROOT)}" in guide
