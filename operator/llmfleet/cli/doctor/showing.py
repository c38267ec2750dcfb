"""Findings as people and programs read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.text import Text

from llmfleet.cli.access import AccessError, Cluster
from llmfleet.cli.doctor.checking import EXIT_NO_CLUSTER, examine, exit_code
from llmfleet.cli.doctor.finding import Finding, State
from llmfleet.cli.printing import Output, complain, print_json, say

MARKS: Final = {
    State.OK: ("✓", "green"),
    State.MISSING: ("✗", "red"),
    State.UNKNOWN: ("?", "yellow"),
}
WIDTH: Final = 15
"""Of the names of checks, the longest among them."""


def run(reach: Callable[[], Cluster], name: str | None, output: Output) -> int:
    """Examine a cluster, and print what is found; the exit code.

    Args:
        reach: brings the cluster.
        name: of an LLMDeployment that is looked at as well.
        output: text is printed as it comes.
    """
    findings: list[Finding] = []
    try:
        for each in examine(reach(), name):
            findings.append(each)
            if output is Output.TEXT:
                say(show(each))
    except AccessError as error:
        complain(f"kubectl llmfleet: {error}")
        return EXIT_NO_CLUSTER
    if output is Output.JSON:
        print_json([each.as_json() for each in findings])
    else:
        say(summarize(findings))
    return exit_code(findings)


def show(finding: Finding) -> Text:
    """A finding, and below it what mends it."""
    mark, style = MARKS[finding.state]
    text = Text.assemble((mark, style), " ", (f"{finding.check:{WIDTH}}", "bold"), finding.message)
    if finding.fix is not None:
        text.append(f"\n  {'':{WIDTH}}→ {finding.fix}", "" if style == "yellow" else "bold")
    return text


def summarize(findings: list[Finding]) -> Text:
    """How many of each."""
    count = {state: sum(each.state is state for each in findings) for state in State}
    parts = [f"{count[State.OK]} ok"]
    parts += [f"{count[State.MISSING]} missing"] if count[State.MISSING] else []
    parts += [f"{count[State.UNKNOWN]} unknown"] if count[State.UNKNOWN] else []
    return Text(", ".join(parts), "bold")
