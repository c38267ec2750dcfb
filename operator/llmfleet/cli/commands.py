"""Commands that are printed for people to run next: they lead to where the last one has looked."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Builds commands with the options under which the last one was run.

    KUBECONFIG is not among them: it is a variable of the shell, and stays there.

    Example:
        >>> Commands(namespace="team-b", context="eu").llmfleet("promote", "chat")
        'kubectl llmfleet -n team-b --context eu promote chat'
        >>> Commands().llmfleet("promote", "chat")
        'kubectl llmfleet promote chat'
    """

    context: str | None = None
    """As given; None: the current one."""
    namespace: str | None = None
    """None: the context's own."""

    def llmfleet(self, *words: str) -> str:
        """A command of this program."""
        return shlex.join(("kubectl", "llmfleet", *self._options(), *words))

    def kubectl(self, *words: str) -> str:
        """A command of kubectl's own.

        Example:
            >>> Commands(context="eu").kubectl("get", "pods", "-A")
            'kubectl get pods -A --context eu'
        """
        return shlex.join(("kubectl", *words, *self._options()))

    def _options(self) -> tuple[str, ...]:
        named = (("-n", self.namespace), ("--context", self.context))
        return tuple(word for option, value in named if value for word in (option, value))


ANYWHERE: Final = frozenset({"-n", "--namespace", "--context"})
"""Options that kubectl takes before and behind a command."""


def hoist(words: list[str]) -> list[str]:
    """The same words with the options of ``ANYWHERE`` in front.

    Example:
        >>> hoist(["status", "chat", "-n", "team-b", "--watch"])
        ['-n', 'team-b', 'status', 'chat', '--watch']
        >>> hoist(["abort", "--context=eu", "chat"])
        ['--context=eu', 'abort', 'chat']
    """
    front: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":  # whatever comes behind it is no option
            rest += [word, *left]
        elif word in ANYWHERE:
            front += [word, *(value for value in (next(left, None),) if value is not None)]
        elif word.partition("=")[0] in ANYWHERE or (word[:2] == "-n" and word[:3] != "-n="):
            front.append(word)
        else:
            rest.append(word)
    return [*front, *rest]


PLAIN: Final = Commands()
"""For the current context and its own namespace."""
