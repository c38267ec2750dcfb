"""Progress for people: which step of how many, what it does, how long it took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Steps:
    """Counts steps; prints to stderr, so that stdout stays for results.

    >>> steps = Steps(total=2)            # doctest: +SKIP
    >>> with steps.step("build etcd"):    # doctest: +SKIP
    ...     ...
    [1/2] build etcd … 38 s
    """

    def __init__(self, *, total: int) -> None:
        self._total = total
        self._number = 0
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Shows one step while it runs and its duration when it ends."""
        self._number += 1
        label = f"[{self._number}/{self._total}] {what}"
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(f"{label} …"):
                yield
        else:
            self._console.print(f"{label} …", markup=False)
            yield
        self._console.print(f"{label}: {time.monotonic() - began:.1f} s", markup=False)

    def note(self, text: str) -> None:
        """Prints one line between steps."""
        self._console.print(text, markup=False)

    @property
    def elapsed_seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self._started
