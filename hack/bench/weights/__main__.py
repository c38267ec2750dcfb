"""Changes weights a thousand times under constant load, and aborts a canary again and again.

A real API server, the router's own process with its own Role, Envoy. What is timed of an abort is
the last request that still went to the canary, from the sending of the status write.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median
from typing import Any

from hack.bench.report import Target, at_least, at_most, finish, skipped
from hack.bench.router import isolated, tools

JSON = dict[str, Any]

COMMAND = "bench-weights-load"
ABORT_MS = 1000.0


def main() -> int:
    """Measure and report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.weights", description=__doc__)
    parser.add_argument("--changes", type=int, default=1000, help="of weights (default 1000)")
    parser.add_argument("--aborts", type=int, default=20, help="of a canary (default 20)")
    chosen = parser.parse_args()
    began = time.monotonic()
    try:
        details = isolated.run(
            "hack.bench.weights.changes", [str(chosen.changes), str(chosen.aborts)],
            timeout_seconds=120 + chosen.changes / 2 + 5 * chosen.aborts,
        )  # fmt: skip
    except tools.AbsentError as error:
        return finish(COMMAND, [skipped("weights under load", "0 failed", str(error))], {})
    details["seconds"] = round(time.monotonic() - began)
    confirmed = details["write_sent_to_confirmed_ms"]
    sys.stdout.write(
        f"{details['requests_while_changing']} requests in {details['changing_seconds']} s of"
        f" changes; a write is confirmed after {median(confirmed):.1f} ms (median),"
        f" {confirmed[-1]:.0f} ms at most\n"
    )
    return finish(COMMAND, targets(details), details)


def targets(details: JSON) -> list[Target]:
    """What must hold, judged by what was measured."""
    started = [each["last_request_started_ms"] for each in details["aborts"]]
    began = [each["its_answer_began_ms"] for each in details["aborts"]]
    return [
        at_least("weight changes", details["changes"], 1000, "", 0),
        at_most(f"requests failed of {details['requests']}", details["failed"], 0, "", 0),
        at_most("abort, write sent to the last request started on the canary, worst of"
                f" {len(started)}", max(started), ABORT_MS, " ms", 0),
        at_most("abort, to the last answer begun by the canary, worst", max(began), ABORT_MS,
                " ms", 0),
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
