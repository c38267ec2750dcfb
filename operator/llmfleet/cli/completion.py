"""``kubectl_complete-llmfleet``: what kubectl runs when TAB is pressed behind ``kubectl llmfleet``.

Its arguments are the words after ``llmfleet``, the last one as far as it is typed. It prints a
candidate per line, a tab and its description behind it, and a colon with a directive of cobra's
(kubectl, ``pkg/cmd/plugin/plugin_completion.go``).
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Final

from llmfleet.cli.__main__ import app

NO_FILES: Final = 4
"""cobra's ``ShellCompDirectiveNoFileComp``: what has no candidates is not a file's name either."""
ASKED: Final = "_KUBECTL_LLMFLEET_COMPLETE"


def main() -> None:
    """Print the candidates for the last argument."""
    *before, incomplete = sys.argv[1:] or [""]
    words = [*map(shlex.quote, before), shlex.quote(incomplete) if incomplete else ""]
    # typer prints for fish what kubectl reads: a candidate, a tab, its description.
    os.environ[ASKED] = "complete_fish"
    os.environ["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    os.environ["_TYPER_COMPLETE_ARGS"] = " ".join(["kubectl-llmfleet", *words])
    try:
        app(complete_var=ASKED)
    finally:
        print(f":{NO_FILES}")  # noqa: T201 - the protocol
