"""What an act annotates: the revision it means, taken from status, and a token that is new."""

from __future__ import annotations

from datetime import datetime

from llmfleet.api.deployment import LLMDeployment

PREFIX = "llmfleet.dev/"


class NothingToDoError(Exception):
    """The act means nothing now; the message says why, and what there is instead."""


def promote(deployment: LLMDeployment, now: datetime, *, full: bool = False) -> dict[str, str]:
    """Annotation that ends the step under way, or with ``full`` all of them.

    Raises:
        NothingToDoError: nothing is being rolled out.
    """
    revision = _under_way(deployment, "promote")
    return {f"{PREFIX}promote": _value(f"{revision}/full" if full else revision, now)}


def abort(deployment: LLMDeployment, now: datetime) -> dict[str, str]:
    """Annotation that sends all traffic back and rejects what is being rolled out.

    Raises:
        NothingToDoError: nothing is being rolled out.
    """
    return {f"{PREFIX}abort": _value(_under_way(deployment, "abort"), now)}


def retry(
    deployment: LLMDeployment, now: datetime, *, revision: str | None = None
) -> dict[str, str]:
    """Annotation that lifts a rejection, or makes up for an aborted try.

    Args:
        deployment: as stored.
        now: becomes the token.
        revision: left out, it is the one that spec asks for.

    Raises:
        NothingToDoError: that revision was neither rejected nor aborted.
    """
    status = deployment.status
    wanted = revision or status.spec_revision
    rejected = [each.hash for each in status.rejected_revisions]
    rollout = status.rollout
    aborted = rollout is not None and rollout.revision == wanted and rollout.aborted is not None
    if wanted is None or (wanted not in rejected and not aborted):
        named = (
            f"; rejected are {', '.join(rejected)}: name one with --revision" if rejected else ""
        )
        raise NothingToDoError(
            f"{wanted or 'the revision'} was neither rejected nor aborted{named}"
        )
    return {f"{PREFIX}retry": _value(wanted, now)}


def undo(
    deployment: LLMDeployment, now: datetime, *, revision: str | None = None
) -> dict[str, str]:
    """Annotation that serves a kept revision again and rejects the one that spec asks for.

    Args:
        deployment: as stored.
        now: becomes the token.
        revision: left out, it is the one promoted last before the served one.

    Raises:
        NothingToDoError: no such revision is kept.
    """
    status = deployment.status
    rejected = {each.hash for each in status.rejected_revisions}
    kept = [
        each
        for each in status.revisions
        if each.hash != status.spec_revision and each.hash not in rejected
    ]
    if revision is None:
        promoted = [
            (each.promoted_at, each.hash)
            for each in kept
            if each.promoted_at is not None and each.hash != status.served_revision
        ]
        if not promoted:
            raise NothingToDoError(
                "no revision that was served before is kept: change spec instead"
            )
        revision = max(promoted)[1]
    if revision not in {each.hash for each in kept}:
        names = ", ".join(each.hash for each in kept) or "none"
        raise NothingToDoError(f"{revision} cannot be gone back to; kept for that are: {names}")
    return {f"{PREFIX}undo": _value(revision, now)}


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


def _under_way(deployment: LLMDeployment, act: str) -> str:
    rollout = deployment.status.rollout
    if rollout is None or rollout.revision is None or rollout.aborted is not None:
        served = deployment.status.served_revision or "nothing yet"
        raise NothingToDoError(
            f"nothing is being rolled out, so there is nothing to {act}; served is {served}"
        )
    return rollout.revision


def _value(subject: str, now: datetime) -> str:
    return f"{subject}@{now.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}"
