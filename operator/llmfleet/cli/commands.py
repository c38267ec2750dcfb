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


PLAIN: Final = Commands()
"""For the current context and its own namespace."""
