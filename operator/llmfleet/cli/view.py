"""Status as people read it: pure functions from an LLMDeployment to what rich draws.

What others wrote is drawn as ``Text``, never as a string, in which rich would look for markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llmfleet.api.deployment import LLMDeployment
from llmfleet.api.describe import describe_routing, describe_step
from llmfleet.api.rollout import RolloutSpec, Step
from llmfleet.api.status import (
    Condition,
    LLMDeploymentStatus,
    MetricResult,
    RevisionStatus,
    RolloutStatus,
    Routing,
)
from llmfleet.api.text import clean_tree
from llmfleet.api.values import parse_duration_seconds
from llmfleet.cli import annotating
from llmfleet.cli.ages import age
from llmfleet.cli.commands import PLAIN, Commands
from llmfleet.cli.leading import Leadership

JSON = dict[str, Any]

EXIT_CODES: Final = {"Healthy": 0, "Progressing": 10, "Paused": 11, "Degraded": 12}
"""Of ``status``, by phase."""
NO_STATUS: Final = 13
"""Nobody says anything: there is no status yet, or no operator that keeps it."""
OUTAGE: Final = 14
"""Clients that were served get no answer, whatever the phase."""
SOMEBODY_LEADS: Final = Leadership()
BAR: Final = 20
_SHOULD_BE_TRUE: Final = {"Accepted", "Available", "CapacityAvailable", "Progressing"}
_EXCEPTIONS: Final = {
    "RolledBack", "MemoryUnreadable", "NameTaken", "ActRefused", "RuntimeOutdated", "Paused",
}  # fmt: skip
_COLOURS: Final = {"Healthy": "green", "Progressing": "cyan", "Paused": "yellow", "Degraded": "red"}


def exit_code(deployment: LLMDeployment, leadership: Leadership = SOMEBODY_LEADS) -> int:
    """0 for Healthy; the others are in ``EXIT_CODES``, but for ``NO_STATUS`` and ``OUTAGE``.

    Of a spec that the operator has not seen yet nothing is known but that it is on its way.
    """
    status = deployment.status
    code = EXIT_CODES.get(status.phase or "", NO_STATUS)
    if code == NO_STATUS or leadership.problem is not None:
        return NO_STATUS
    available = status.condition("Available")
    gone = available is not None and available.status == "False"
    wanted = status.served_revision is not None and deployment.spec.wanted_replicas > 0
    if gone and wanted:
        return OUTAGE
    return code if _is_seen(deployment) else EXIT_CODES["Progressing"]


def fleet_table(
    items: Sequence[JSON],
    now: datetime,
    *,
    everywhere: bool,
    leadership: Leadership = SOMEBODY_LEADS,
) -> Table:
    """A line per LLMDeployment; unreadable ones are shown by name.

    Where nobody leads, READY is what is seen now.
    """
    table = Table(box=None, pad_edge=False)
    for title in (
        *(["NAMESPACE"] if everywhere else []),
        "NAME", "MODEL", "READY", "PHASE", "SERVED", "ROLLOUT", "AGE",
    ):  # fmt: skip
        table.add_column(title, no_wrap=title != "MODEL")
    for item in map(clean_tree, items):
        meta, status = item["metadata"], item.get("status") or {}
        phase = status.get("phase") or "Unknown"
        rollout = status.get("rollout") or {}
        going = rollout.get("revision")
        table.add_row(
            *([meta["namespace"]] if everywhere else []),
            meta["name"],
            _cell(((item.get("spec") or {}).get("model") or {}).get("source", "")),
            _cell(_ready(meta, status, leadership)),
            Text(phase, style=_COLOURS.get(phase, "dim")),
            _cell(status.get("servedRevision")),
            _cell(f"{going} {status.get('canaryWeight') or 0} %" if going else ""),
            age(datetime.fromisoformat(meta["creationTimestamp"]), now),
        )
    return table


def status_view(
    deployment: LLMDeployment,
    now: datetime,
    commands: Commands = PLAIN,
    leadership: Leadership = SOMEBODY_LEADS,
) -> RenderableType:
    """Revisions with their traffic, the steps of the rollout, what is wrong, what comes next.

    Lines of text only, so that whoever prints them may leave them unbroken.
    """
    status = deployment.status
    if status.phase is None:
        everywhere = replace(commands, namespace=None)
        pods = everywhere.kubectl("get", "pods", "-A", "-l", "app.kubernetes.io/name=llmfleet")
        text = f"no status yet: the operator has not seen it. Is it running? {pods}"
        return Text(text, style="yellow")
    parts: list[RenderableType] = [*_leading(deployment, leadership), _title(deployment)]
    parts += _revisions(status, now)
    if status.rollout is not None and status.rollout.revision is not None:
        parts.append(_steps(status, status.rollout, now))
        parts += [_verdict(each) for each in status.rollout.metric_results]
    routing = _reached(status)
    if routing is not None:
        parts.append(Text(f"also: {describe_routing(routing)}"))
    parts += [_problem(each) for each in status.conditions if is_problem(each, deployment)]
    parts.append(Text(f"next: {whats_next(deployment, now, commands)}"))
    return Group(*parts)


def whats_next(deployment: LLMDeployment, now: datetime, commands: Commands = PLAIN) -> str:
    """What happens by itself and when, or what a person has to do."""
    if deployment.metadata.deletion_timestamp is not None:
        return "it is being deleted, with all that is its own"
    if not _is_seen(deployment):
        return "the operator looks at the newest spec"
    return _what_follows(deployment, now, commands)


def _what_follows(deployment: LLMDeployment, now: datetime, commands: Commands) -> str:
    """The same for a spec that the operator has seen."""
    status, rollout = deployment.status, deployment.status.rollout
    name = deployment.metadata.name
    if rollout is not None and rollout.aborted and rollout.retry_at is not None:
        return f"{rollout.revision} is tried again in {_ahead(rollout.retry_at, now)}"
    if status.phase == "Degraded":
        ways = "mend the cause, or change spec"
        if status.spec_revision in annotating.retryable(deployment):
            ways = f"change spec, or `{commands.llmfleet('retry', name)}`"
        lead = _moving(status)
        return f"{lead}{ways}; `{commands.llmfleet('explain', name)}` says why"
    due, paused = step_due(status), annotating.paused_by_hand(deployment)
    # The annotation may be newer than the phase.
    if status.phase == "Paused" or (due is not None and paused):
        act = "resume" if paused else "promote"
        return f"a person: `{commands.llmfleet(act, name)}`, or abort"
    if due is not None:
        return f"the next step in {_ahead(due, now)}, or `{commands.llmfleet('promote', name)}`"
    if status.phase == "Progressing":
        return status.message or "the operator goes on"
    again = f", and until `{commands.llmfleet('resume', name)}` a changed one waits"
    return f"nothing: spec is served{again if paused else ''}"


def _is_seen(deployment: LLMDeployment) -> bool:
    """Whether status is about the spec as it is."""
    return deployment.status.observed_generation == deployment.metadata.generation


def _moving(status: LLMDeploymentStatus) -> str:
    """What goes on by itself though a person is needed, as the beginning of a sentence."""
    found = status.condition("Progressing")
    if found is None or found.status != "True" or found.reason == "Stable":
        return ""
    return f"{found.message}; after that, "


def step_due(status: LLMDeploymentStatus) -> datetime | None:
    """When the timed pause under way ends; None while the rollout goes back, which ends no step."""
    rollout = status.rollout
    step = _step(status)
    if rollout is None or rollout.aborted is not None or rollout.step_started_at is None:
        return None
    if step is None or step.pause is None or step.pause.duration is None:
        return None
    return rollout.step_started_at + timedelta(seconds=parse_duration_seconds(step.pause.duration))


def explanation(deployment: LLMDeployment) -> RenderableType:
    """Every condition with its sentence, then what was rejected and why; each sentence once."""
    status = deployment.status
    told: dict[str, str] = {status.message or "": "the first line"}
    table = Table(box=None, pad_edge=False)
    for title in ("CONDITION", "STATUS", "REASON", "WHY"):
        table.add_column(title, overflow="fold")
    for each in status.conditions:
        style = "red" if is_problem(each, deployment) else ""
        known = told.get(each.message)
        told.setdefault(each.message, each.type)
        why = each.message if known is None else f"as {known}"
        words = (each.type, each.status, each.reason, why)
        table.add_row(*map(_cell, words), style=style)
    parts: list[RenderableType] = [Text(status.message or "no status yet"), table]
    parts += [
        Text(f"rejected {each.hash}: {each.reason}. {each.message or ''}", "red")
        for each in status.rejected_revisions
    ]
    return Group(*parts)


def history(deployment: LLMDeployment, now: datetime) -> Table:
    """The kept revisions, newest first, and those that were rejected."""
    table = Table(box=None, pad_edge=False)
    for title in ("REVISION", "STATE", "MADE", "PROMOTED", "IMAGE"):
        table.add_column(title)
    status = deployment.status
    rejected = {each.hash: each.reason for each in status.rejected_revisions}
    for each in status.revisions:
        table.add_row(
            _cell(each.hash),
            _state(status, each, rejected),
            age(each.created_at, now) if each.created_at else "",
            age(each.promoted_at, now) if each.promoted_at else "never",
            _cell(each.image),
        )
    kept = {each.hash for each in status.revisions}
    for name, reason in rejected.items():
        if name not in kept:
            table.add_row(_cell(name), Text(f"rejected: {reason}", "red"), "", "", "")
    return table


def is_problem(condition: Condition, deployment: LLMDeployment) -> bool:
    """Whether a condition tells of something that somebody should know."""
    if condition.type == "Available" and deployment.spec.wanted_replicas == 0:
        return False
    return (
        (condition.type in _SHOULD_BE_TRUE and condition.status == "False")
        or (condition.type in _EXCEPTIONS and condition.status == "True")
        or (condition.type == "RoutersConfirmed" and condition.status == "Unknown")
    )


def _ready(meta: JSON, status: JSON, leadership: Leadership) -> str | None:
    said: str | None = status.get("ready")
    if leadership.problem is None:
        return said
    seen, _ = leadership.ready.get((meta["namespace"], meta["name"], "engine"), (0, 0))
    return f"{seen}/{(said or '/?').partition('/')[2]}"


def _cell(value: Any) -> Text:
    return Text("" if value is None else str(value))


def _ahead(due: datetime, now: datetime) -> str:
    return age(now, due) if due > now else "a moment"


def _leading(deployment: LLMDeployment, leadership: Leadership) -> Iterator[Text]:
    """What to think of all that follows."""
    meta = deployment.metadata
    if leadership.problem is not None:
        yield Text(f"! {leadership.problem}: what follows is of then", "red")
        yield Text(f"! {leadership.pods_of(meta.namespace, meta.name)}", "red")
    elif leadership.unknown is not None:
        yield Text(f"whether an operator keeps this is not known: {leadership.unknown}", "dim")


def _title(deployment: LLMDeployment) -> Text:
    status, meta = deployment.status, deployment.metadata
    phase = status.phase or "Unknown"
    title = Text.assemble(
        (f"{meta.namespace}/{meta.name}", "bold"), "  ", (phase, _COLOURS.get(phase, "")),
        f"  {status.ready or '0/0'} ready  {status.url or ''}",
    )  # fmt: skip
    if meta.deletion_timestamp is not None:
        title.append("  (being deleted)", "yellow")
    elif not _is_seen(deployment):
        title.append("  (the newest spec is not yet seen)", "yellow")
    return title


def _revisions(status: LLMDeploymentStatus, now: datetime) -> Iterator[Text]:
    """What happens, and below it the revisions, as branches of a tree."""
    yield Text(status.message or "")
    weights = {each.revision: each.weight for each in status.traffic}
    rejected = {each.hash: each.reason for each in status.rejected_revisions}
    shown = [
        each
        for each in status.revisions
        if each.replicas or weights.get(each.hash) or each.hash == status.spec_revision
    ]
    for each in shown:
        weight = weights.get(each.hash, 0)
        filled = round(weight * BAR / 100)
        line = Text.assemble(
            ("└── " if each is shown[-1] else "├── ", "dim"),
            (each.hash, "bold"), "  ", ("█" * filled, "green"), ("░" * (BAR - filled), "dim"),
            f" {weight:3d} %  {each.ready_replicas or 0}/{each.replicas or 0} pods  ",
            _state(status, each, rejected),
        )  # fmt: skip
        if each.created_at is not None:
            line.append(f"  {age(each.created_at, now)} old", "dim")
        yield line


def _reached(status: LLMDeploymentStatus) -> Routing | None:
    """Routing as clients meet it: without a preview address nobody is led anywhere by one."""
    routing = status.routing
    if routing is not None and status.preview_url is None:
        routing = routing.model_copy(update={"preview": None})
    return None if routing == Routing() else routing


def _state(status: LLMDeploymentStatus, one: RevisionStatus, rejected: dict[str, str]) -> Text:
    going = status.rollout.revision if status.rollout else None
    if one.hash in rejected:
        return Text(f"rejected: {rejected[one.hash]}", "red")
    if one.hash == status.served_revision:
        return Text("served", "green")
    if one.hash == going:
        return Text("rolling out", "cyan")
    return Text("warm" if one.unserved_since else "kept", "dim")


def _plan(status: LLMDeploymentStatus) -> RolloutSpec | None:
    try:
        return RolloutSpec.model_validate(status.rollout.plan) if status.rollout else None
    except ValidationError:
        return None


def _step(status: LLMDeploymentStatus) -> Step | None:
    """The step under way."""
    plan, rollout = _plan(status), status.rollout
    if plan is None or rollout is None or rollout.step is None:
        return None
    steps = plan.effective_steps
    return steps[rollout.step] if rollout.step < len(steps) else None


def _steps(status: LLMDeploymentStatus, rollout: RolloutStatus, now: datetime) -> Text:
    plan = _plan(status)
    # One that is to be tried again is among those that were counted.
    number = (rollout.attempt or 0) + (rollout.state != "BackingOff")
    line = Text(f"rollout of {rollout.revision}, attempt {number}: ")
    if rollout.aborted:
        return line.append(f"aborted, {rollout.aborted}", "red")
    # A first revision has nothing to be compared with, whatever steps its plan keeps.
    if plan is None or not plan.effective_steps or status.served_revision is None:
        return line.append("as pods get ready, without steps")
    for number, step in enumerate(plan.effective_steps):
        at, weight = rollout.step or 0, status.canary_weight or 0
        mark, style = ("▶", "cyan") if number == at else ("·", "dim")
        if number < at and weight < (step.set_weight or 0):
            mark, style = "»", "dim"  # promoted past before that weight was served
        elif number < at:
            mark, style = "✓", "green"
        line.append(f" {mark} {describe_step(step)}", style)
    if rollout.step_started_at is not None:
        line.append(f"  (since {age(rollout.step_started_at, now)})", "dim")
    return line


def _verdict(result: MetricResult) -> Text:
    style = {"Successful": "green", "Failed": "red"}.get(result.verdict, "dim")
    return Text.assemble(
        f"{result.name}: ", (result.verdict, style), f", {result.message or 'no numbers'}"
    )


def _problem(condition: Condition) -> Text:
    return Text.assemble(
        ("! ", "red"), (condition.reason, "red bold"), f" ({condition.type}): {condition.message}"
    )
