"""Every reason that the planner can give has a runbook (docs/runbooks.md), or says all is well.

Reasons are words in the source of ``llmfleet.planning``: all of them are collected that are said
there and not only compared with, so none can be left out by the way in which it is written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import llmfleet.planning

PLANNING = Path(llmfleet.planning.__file__).parent
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
WORD = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]*)*")
MANIFESTS = PLANNING / "children"
"""Renders children: its words are Kubernetes' own."""
CHECKS = {"allowed.py"}
"""Checks what was rendered: its words are Kubernetes' own, too."""
ALL_IS_WELL = {
    "Confirmed", "Ready", "ReadyReplicas", "Scheduled", "Stable", "Valid",
    # Events of something that went as it should.
    "ActDone", "Available", "Healthy", "Promoted", "Restarting", "RolloutStarted", "RoutingChanged",
    "TrafficShifted",
}  # fmt: skip
"""Reasons that need nobody."""
NO_REASONS = {
    "False", "True", "Unknown",  # statuses of conditions
    "Accepted", "Reconciling", "RolledBack", "RuntimeOutdated", "Stalled",  # types of conditions
    "Rejected",  # stands in a sentence for a reason that was lost
    "RollingUpdate", "Rollback", "Session", "Undo",  # strategy, causes and stickiness of a rollout
    "BackingOff", "Forward", "Returning", "Undoing",  # states of a rollout
    "Retried",  # why a rollout goes on going back though a new try of it is asked for
    "ErrorRate",  # a metric
    "ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff",
    "InvalidImageName", "RegistryUnavailable",  # the kubelet's words for ImagePullFailed
    "ContainerCannotRun", "CreateContainerConfigError", "CreateContainerError",
    "PostStartHookError", "PreCreateHookError", "PreStartHookError",
    "RunContainerError",  # … for StartError
    "ContainerStatusUnknown",  # … for NodeLost
    "FailedAttachVolume", "FailedMapVolume", "FailedMount",  # … for VolumeFailed
    "OutOf",  # how its word for NodeRefused begins
}  # fmt: skip
OF_THE_EFFECTS = {"ChildEdited"}
"""Reasons that ``llmfleet.cluster`` gives."""


def said(node: ast.AST) -> Iterator[str]:
    """CamelCase words that the code hands on, not those it compares with or looks up."""
    match node:
        case ast.Constant(value=str(word)) if WORD.fullmatch(word):
            yield word
        case ast.Compare() | ast.keyword(arg="type" | "kind"):
            return
        case ast.ClassDef():  # the members of an enumeration are words of their own
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            yield from (word for each in methods for word in said(each))
        case ast.Dict():
            yield from (word for each in node.values for word in said(each))
        case ast.Subscript():
            yield from said(node.value)
        case _:
            yield from (word for each in ast.iter_child_nodes(node) for word in said(each))


def reasons() -> set[str]:
    modules = [
        path
        for path in PLANNING.rglob("*.py")
        if MANIFESTS not in path.parents and path.name not in CHECKS
    ]
    return {word for path in modules for word in said(ast.parse(path.read_text()))}


def runbooks() -> list[str]:
    """The reasons in the headings of the third level, which name nothing else."""
    headings = re.findall(r"^### (.+)$", RUNBOOKS.read_text(), re.MULTILINE)
    return [reason for heading in headings for reason in heading.split(", ")]


def test_reason_when_the_planner_can_give_it_then_it_has_a_runbook_or_all_is_well() -> None:
    missing = reasons() - ALL_IS_WELL - NO_REASONS - set(runbooks())
    assert not missing, f"no heading in docs/runbooks.md: {sorted(missing)}"


def test_runbook_when_it_is_there_then_it_is_the_only_one_and_the_reason_can_be_given() -> None:
    described = runbooks()
    assert sorted(described) == sorted(set(described))
    assert set(described) <= reasons() | OF_THE_EFFECTS
    assert not set(described) & (ALL_IS_WELL | NO_REASONS)


def test_exceptions_when_the_planner_does_not_know_them_any_more_then_they_are_to_go() -> None:
    assert reasons() >= ALL_IS_WELL | NO_REASONS


def test_runbook_when_read_then_it_says_what_happens_by_itself_and_what_to_do() -> None:
    entries = re.split(r"^#{2,3} .+$", RUNBOOKS.read_text(), flags=re.MULTILINE)
    titles = re.findall(r"^(#{2,3}) (.+)$", RUNBOOKS.read_text(), re.MULTILINE)
    for (level, title), text in zip(titles, entries[1:], strict=True):
        if level == "###":
            assert "By itself: " in text, title
            assert "Do: " in text, title
