"""What an act annotates: the revision it means, taken from status, and a token that is new."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from llmfleet.api.deployment import LLMDeployment
from llmfleet.api.rollout import RolloutSpec
from llmfleet.api.status import RevisionStatus, RolloutStatus
from llmfleet.cli.commands import PLAIN, Commands

PREFIX = "llmfleet.dev/"


class NothingToDoError(Exception):
    """The act means nothing now; the message says why, and what there is instead."""


def promote(
    deployment: LLMDeployment,
    now: datetime,
    *,
    revision: str | None = None,
    step: int | None = None,
    full: bool = False,
    commands: Commands = PLAIN,
) -> dict[str, str]:
    """Annotation that ends the step under way and no later one, or with ``full`` all of them.

    Args:
        deployment: as stored.
        now: becomes the token.
        revision: which one is meant; left out, it is the one being rolled out.
        step: which step is meant, as ``status.rollout.step``; left out, the one under way.
        full: all steps.
        commands: builds those that the message names.

    Raises:
        NothingToDoError: nothing is being rolled out, or another one, or it is paused by hand, or
            there is no step to end.
    """
    revision = _under_way(deployment, "promote", revision)
    if paused_by_hand(deployment):
        raise NothingToDoError(
            f"{revision} is paused by hand, and nothing moves until it is resumed:"
            f" `{commands.llmfleet('resume', deployment.metadata.name)}`"
        )
    if deployment.spec.wanted_replicas == 0:
        raise NothingToDoError("no replicas are wanted, and nothing moves: scale up first")
    why = _why_no_step(deployment.status.rollout)
    if why is not None:
        raise NothingToDoError(f"{revision} {why}")
    _check_seen(deployment)
    if full:
        return {f"{PREFIX}promote": _value(f"{revision}/full", now)}
    at = _at_step(deployment, "promote", revision, step, commands)
    return {f"{PREFIX}promote": _value(revision if at is None else f"{revision}/{at}", now)}


def abort(
    deployment: LLMDeployment,
    now: datetime,
    *,
    revision: str | None = None,
    step: int | None = None,
    commands: Commands = PLAIN,
) -> dict[str, str]:
    """Annotation that sends all traffic back and rejects what is being rolled out.

    Args:
        deployment: as stored.
        now: becomes the token.
        revision: which one is meant; left out, it is the one being rolled out.
        step: goes back only while this one is under way; left out, whichever is.
        commands: builds those that the message names.

    Raises:
        NothingToDoError: nothing is being rolled out, or another one, or it is an undo, which
            rejected what is served.
    """
    revision = _under_way(deployment, "abort", revision)
    served, rollout = deployment.status.served_revision, deployment.status.rollout
    if rollout is not None and rollout.cause is not None and served in _rejected(deployment):
        command = commands.llmfleet("retry", deployment.metadata.name, "--revision", f"{served}")
        raise NothingToDoError(
            f"this would end an undo, and go back to {served}, which was rejected by it:"
            f" if that is meant, `{command}`"
        )
    if step is None:
        return {f"{PREFIX}abort": _value(revision, now)}
    at = _at_step(deployment, "abort", revision, step, commands)
    return {f"{PREFIX}abort": _value(f"{revision}/{at}", now)}


def retry(
    deployment: LLMDeployment, now: datetime, *, revision: str | None = None
) -> dict[str, str]:
    """Annotation that lifts a rejection, or makes up for an aborted try.

    Args:
        deployment: as stored.
        now: becomes the token.
        revision: left out, it is the one that spec asks for.

    Raises:
        NothingToDoError: that revision was neither rejected nor aborted; or none is named, and the
            operator has not seen what spec asks for.
    """
    if revision is None:
        _check_seen(deployment)
    wanted = deployment.status.spec_revision if revision is None else revision
    known = retryable(deployment)
    if wanted is None or wanted not in known:
        named = f"; those are {', '.join(known)}: name one with --revision" if known else ""
        raise NothingToDoError(
            f"{wanted or 'the revision'} was neither rejected nor aborted{named}"
        )
    return {f"{PREFIX}retry": _value(wanted, now)}


def retryable(deployment: LLMDeployment) -> dict[str, str]:
    """Revisions that were rejected or aborted, each with the reason."""
    status, rollout = deployment.status, deployment.status.rollout
    found = {each.hash: each.reason for each in status.rejected_revisions}
    if rollout is not None and rollout.revision is not None and rollout.aborted is not None:
        found.setdefault(rollout.revision, rollout.aborted)
    return found


def undo(
    deployment: LLMDeployment, now: datetime, *, revision: str | None = None
) -> dict[str, str]:
    """Annotation that serves a kept revision again and rejects the one that spec asks for.

    Args:
        deployment: as stored.
        now: becomes the token.
        revision: left out, it is the one promoted last before the served one.

    Raises:
        NothingToDoError: no such revision is kept, or what is served is no good revision.
    """
    served = deployment.status.served_revision
    if served is None or served in _rejected(deployment):
        raise NothingToDoError("no good revision is served: try again when one is")
    _check_seen(deployment)
    known = kept(deployment)
    if revision is None:
        promoted = [(each.promoted_at, each.hash) for each in known if each.hash != served]
        if not promoted:
            raise NothingToDoError(
                "no revision that was served before is kept: change spec instead"
            )
        revision = max(promoted)[1]
    if revision not in {each.hash for each in known}:
        names = ", ".join(each.hash for each in known) or "none"
        raise NothingToDoError(f"{revision} cannot be gone back to; kept for that are: {names}")
    return {f"{PREFIX}undo": _value(revision, now)}


def kept(deployment: LLMDeployment) -> list[RevisionStatus]:
    """Revisions that were served and can be again, instead of the one that spec asks for."""
    status, rejected = deployment.status, _rejected(deployment)
    return [
        each
        for each in status.revisions
        if each.promoted_at is not None
        and each.hash != status.spec_revision
        and each.hash not in rejected
    ]


def restart(
    deployment: LLMDeployment, now: datetime, *, commands: Commands = PLAIN
) -> dict[str, str]:
    """Annotation that replaces the served revision's pods, one by one.

    Args:
        deployment: as stored.
        now: becomes the token.
        commands: builds those that the message names.

    Raises:
        NothingToDoError: nothing is served, or a rollout is under way, which replaces pods anyway,
            or there are none.
    """
    served, rollout = deployment.status.served_revision, deployment.status.rollout
    if served is None:
        raise NothingToDoError("nothing is served yet, so there are no pods to replace")
    if rollout is not None and rollout.revision not in {None, served}:
        raise NothingToDoError(_instead_of_restart(deployment, rollout, commands))
    if deployment.spec.wanted_replicas == 0:
        raise NothingToDoError("no replicas are wanted, so there are no pods to replace")
    _check_seen(deployment)
    return {f"{PREFIX}restart": _value(served, now)}


def paused_by_hand(deployment: LLMDeployment) -> bool:
    """Whether the pause annotation stops the rollout; one that names another revision does not."""
    going = deployment.status.rollout.revision if deployment.status.rollout else None
    found = deployment.metadata.annotations.get(f"{PREFIX}pause")
    return found is not None and found in {"true", going}


def pause() -> dict[str, str | None]:
    """Annotation under which nothing moves."""
    return {f"{PREFIX}pause": "true"}


def resume(deployment: LLMDeployment) -> dict[str, str | None]:
    """Removes the pause.

    Raises:
        NothingToDoError: it is not paused by annotation.
    """
    if f"{PREFIX}pause" not in deployment.metadata.annotations:
        raise NothingToDoError(
            "it is not paused by hand; a step that waits for a person is ended by promote"
        )
    return {f"{PREFIX}pause": None}


def check_forget(
    raw: dict[str, Any] | None, namespace: str, name: str, commands: Commands = PLAIN
) -> None:
    """Whether the memory of a name stays away once it is deleted.

    Args:
        raw: the LLMDeployment of that name as stored, None when there is none.
        namespace: of the name.
        name: whose memory it is.
        commands: builds those that the message names.

    Raises:
        NothingToDoError: the operator would write it anew from the status of ``raw``.
    """
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        return
    rejected = (raw.get("status") or {}).get("rejectedRevisions") or []
    lifts = [f"`{commands.llmfleet('retry', name, '--revision', each['hash'])}`"
             for each in rejected]  # fmt: skip
    instead = f", or lift one rejection: {', '.join(lifts)}" if lifts else ""
    raise NothingToDoError(
        f"{namespace}/{name} is there, and the operator would write its memory anew from its"
        f" status: delete it first, `{commands.kubectl('delete', 'llmdep', name)}`{instead}"
    )


def _under_way(deployment: LLMDeployment, act: str, asked: str | None) -> str:
    served, rollout = deployment.status.served_revision, deployment.status.rollout
    going = rollout.revision if rollout is not None and rollout.aborted is None else None
    if going is None or going == served:
        raise NothingToDoError(
            f"nothing is being rolled out, so there is nothing to {act};"
            f" served is {served or 'nothing yet'}"
        )
    if asked not in {None, going}:
        raise NothingToDoError(
            f"{asked} is not being rolled out: it is {going}, and nothing was done"
        )
    if served is None:
        raise NothingToDoError(
            f"{going} is the first revision: none is served beside it, so there is nothing to {act}"
        )
    return going


def _at_step(
    deployment: LLMDeployment, act: str, revision: str, asked: int | None, commands: Commands
) -> int | None:
    """The step under way; None where status does not say, and nobody asked for one."""
    rollout = deployment.status.rollout
    at = rollout.step if rollout is not None else None
    if asked in {None, at}:
        return at
    if at is None:
        raise NothingToDoError(f"{revision} is rolled out without steps, and nothing was done")
    words = (deployment.metadata.name, "--revision", revision, "--step", str(at))
    raise NothingToDoError(
        f"step {asked} of {revision} is not under way: it is step {at}, and nothing was done; if"
        f" that is meant, `{commands.llmfleet(act, *words)}`"
    )


def _instead_of_restart(
    deployment: LLMDeployment, rollout: RolloutStatus, commands: Commands
) -> str:
    """What a rollout, in which no pods are replaced by hand, waits for."""
    going, ended = rollout.revision, rollout.aborted
    if ended is None:
        return f"{going} is being rolled out, which replaces pods anyway: wait for its end"
    if rollout.state == "Returning":
        return f"{going} goes back ({ended}): wait until it is back"
    again = commands.llmfleet("retry", deployment.metadata.name, "--revision", f"{going}")
    if rollout.retry_at is None:
        return f"{going} was aborted ({ended}), and no try is left: `{again}`, or change spec"
    when = f"{rollout.retry_at.astimezone(UTC):%H:%M:%SZ}"
    return (
        f"{going} was aborted ({ended}), and is tried again at {when}: wait for the end of that,"
        " or change spec"
    )


def _check_seen(deployment: LLMDeployment) -> None:
    """What was decided on another spec is not what whoever reads it now can mean."""
    if deployment.status.observed_generation != deployment.metadata.generation:
        raise NothingToDoError(
            "spec was changed, and the operator has not seen that yet: look again in a moment"
        )


def _why_no_step(rollout: RolloutStatus | None) -> str | None:
    """Why there is no step to end; a plan that cannot be read is left to the operator."""
    without = "is rolled out without steps, so there is nothing to promote: it goes on by itself"
    if rollout is None or rollout.plan is None or rollout.cause is not None:
        return without
    if rollout.state not in {None, "Forward"}:
        return f"is in a state that this version does not know ({rollout.state}): promote nothing"
    try:
        plan = RolloutSpec.model_validate(rollout.plan)
    except ValidationError:
        return None
    if plan.strategy == "RollingUpdate":
        return without
    over = rollout.step is not None and rollout.step >= len(plan.effective_steps)
    return (
        "has no step left, so there is nothing to promote: it goes on by itself" if over else None
    )


def _rejected(deployment: LLMDeployment) -> set[str]:
    return {each.hash for each in deployment.status.rejected_revisions}


def _value(subject: str, now: datetime) -> str:
    return f"{subject}@{now.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}"
