"""Commands in messages: complete, so that whoever reads one at night can run it as it stands.

Each is one of ``kubectl llmfleet`` (docs/cli.md), which takes the annotation's form off a person's
hands: the token, and whether the act means anything still. A test follows every one of them in
every state that prints it.
"""

from __future__ import annotations

import shlex

from llmfleet.api import LLMDeployment


def command(deployment: LLMDeployment, act: str, revision: str | None = None, *options: str) -> str:
    """A command about an LLMDeployment, quoted as messages quote it.

    Args:
        deployment: which one.
        act: promote, abort, retry, undo, restart or resume.
        revision: the hash that is meant; a message may be read when another one is on its way.
        options: more words.

    Example:
        >>> chat = LLMDeployment.model_validate({
        ...     "metadata": {"name": "chat", "namespace": "team-a"},
        ...     "spec": {"model": {"source": "pvc://m/one", "servedName": "m"}, "replicas": 1}})
        >>> command(chat, "promote", "7c9f", "--full")
        '`kubectl llmfleet -n team-a promote chat --revision 7c9f --full`'
    """
    meta = deployment.metadata
    named = () if revision is None else ("--revision", revision)
    words = ("kubectl", "llmfleet", "-n", meta.namespace, act, meta.name, *named, *options)
    return f"`{shlex.join(words)}`"


def go_on_or_back(deployment: LLMDeployment, revision: str, step: int) -> str:
    """What a person can do where a step waits for one.

    Args:
        deployment: which one.
        revision: on its way up.
        step: the index of the step that waits; the promotion is of no other.
    """
    go_on = command(deployment, "promote", revision, "--step", str(step))
    return f"{go_on} to go on, {command(deployment, 'abort', revision)} to go back"


def resume(deployment: LLMDeployment) -> str:
    """What takes the pause annotation away."""
    return f"{command(deployment, 'resume')} to go on"
