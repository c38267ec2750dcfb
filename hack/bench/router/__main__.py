"""Measures the router against others, and says which targets hold.

Every router has one worker on one core, the load and the stub engines have the other; all run side
by side and are loaded in turn, round by round, so that ratios are made of neighbouring seconds. The
closest of the others, plain Envoy, is compared once more, in turns of 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import structlog

from hack.bench.report import Target, at_least, at_most, finish, skipped
from hack.bench.router import alternating, measure, prefix, tools, weights
from hack.bench.router.measure import Rounds, speed_ratio, summary
from hack.bench.router.subjects import DIRECT, OURS, SUBJECTS

JSON = dict[str, Any]

ENVOY, RIVAL = "envoy", "vllm-router"
LOADS = tuple(part.name for part in measure.PARTS)
THROUGHPUT = ("1kb", "220kb")
PARTS = (*LOADS, "weights", "prefix")
NOT_ASKED = "left out by --only"


def main() -> int:
    """Measure and report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.router", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short rounds: to see that it works, not for figures"
    )
    parser.add_argument(
        "--only", nargs="+", choices=(*PARTS, *SUBJECTS), default=[], metavar="NAME",
        help=f"parts ({', '.join(PARTS)}) and routers ({', '.join(SUBJECTS)})",
    )  # fmt: skip
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the agent's log lines
    parts = [name for name in PARTS if name in arguments.only] or list(PARTS)
    names = [name for name in SUBJECTS if name in arguments.only] or list(SUBJECTS)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmfleet-bench-") as folder:
        details = asyncio.run(_measure(Path(folder), parts, names, quick=arguments.quick))
    details["seconds"] = round(time.monotonic() - began)
    details["versions"] = {name: tools.version(name) for name in ("vllm-router", "smg", "litellm")}
    _print_tables(details)
    part = arguments.quick or arguments.only
    return finish("bench-router-part" if part else "bench-router", targets(details), details)


async def _measure(folder: Path, parts: list[str], names: list[str], *, quick: bool) -> JSON:
    details: JSON = {"absent": {}, "loads": {}}
    loads = [each.quick() if quick else each for each in measure.PARTS if each.name in parts]
    if loads:
        try:
            rounds, details["absent"] = await measure.measure(loads, names, folder)
            details["loads"] = {part: _load_details(each) for part, each in rounds.items()}
            throughput = {name: rounds[name] for name in THROUGHPUT if name in rounds}
            details["ratios"] = {part: _ratios(each) for part, each in throughput.items()}
            seconds = 1 if quick else alternating.SECONDS
            details["alternating"] = await _alternating(loads, names, folder, seconds)
        except tools.AbsentError as error:
            details["absent"]["loads"] = str(error)
    if "weights" in parts:
        try:
            tools.say("weights: a real API server, changes of 100:0 to 0:100")
            changes = 10 if quick else weights.CHANGES
            details["weights"] = await asyncio.to_thread(weights.measure, changes)
        except tools.AbsentError as error:
            details["absent"]["weights"] = str(error)
    if "prefix" in parts:
        try:
            routers = [each for each in prefix.ROUTERS if each not in SUBJECTS or each in names]
            details["prefix"] = await prefix.simulate(routers, folder / "prefix", quick=quick)
        except tools.AbsentError as error:
            details["absent"]["prefix"] = str(error)
    return details


async def _alternating(
    loads: list[measure.Part], names: list[str], folder: Path, seconds: int
) -> JSON:
    """Ours beside plain Envoy, which is the closest; the other ratios are far from their bounds."""
    if not {OURS, ENVOY} <= set(names):
        return {}
    return {
        part.name: await alternating.speed_ratios(
            part, (OURS, ENVOY), folder / "alternating", seconds=seconds
        )
        for part in loads
        if part.name in THROUGHPUT
    }


def _load_details(rounds: Rounds) -> JSON:
    direct = rounds.get(DIRECT)
    return {
        name: {**summary(each, direct), "rounds": [asdict(one) for one in each]}
        for name, each in rounds.items()
    }


def _ratios(rounds: Rounds) -> JSON:
    """Our requests a second as multiples of each other router's."""
    ours = rounds.get(OURS)
    return {name: speed_ratio(ours, each) for name, each in rounds.items()} if ours else {}


def targets(details: JSON) -> list[Target]:
    """What must hold, judged by what was measured."""

    def why(*keys: str) -> str:
        return next((details["absent"][k] for k in keys if k in details["absent"]), NOT_ASKED)

    def ratio(part: str, other: str, title: str, bound: float) -> Target:
        name = f"requests/s at {title}"
        if other == ENVOY:
            runs = details.get("alternating", {}).get(part)
            value = geometric_mean(runs) if runs else None
        else:
            value = details.get("ratios", {}).get(part, {}).get(other)
        if value is None:
            return skipped(name, f"at least {bound:g}x", why("loads", other))
        return at_least(name, value, bound, "x")

    def added(part: str, subject: str, key: str) -> float | None:
        row: JSON = details["loads"].get(part, {}).get(subject, {})
        return row.get(key)

    def limited(name: str, value: float | None, bound: float, unit: str) -> Target:
        if value is None:
            return skipped(name, f"at most {bound:g}{unit}", why("loads", DIRECT))
        return at_most(name, value, bound, unit)

    listed = [
        ratio("1kb", ENVOY, "1 KB, of plain Envoy's", 0.85),
        ratio("220kb", ENVOY, "220 KB, of plain Envoy's", 0.8),
        ratio("1kb", RIVAL, "1 KB, of vllm-router's cache-aware", 3.0),
        limited("latency added, p50", added("latency", OURS, "added_p50_ms"), 0.2, " ms"),
        limited("latency added, p99", added("latency", OURS, "added_p99_ms"), 0.4, " ms"),
        limited(
            "CPU a streamed chunk", added("stream", OURS, "cpu_microseconds_per_event"), 25.0, " µs"
        ),
    ]
    failed = sum(each[OURS]["failed"] for each in details["loads"].values() if OURS in each)
    if details["loads"]:
        listed.append(at_most("requests failed under load", failed, 0, "", 0))
    name = "weight change, status write to first request, p50"
    if "weights" in details:
        waits = details["weights"]["write_sent_to_first_request_ms"]
        listed.append(at_most(name, median(waits), 20.0, " ms", 1))
        listed.append(at_most("requests failed meanwhile", details["weights"]["failed"], 0, "", 0))
    else:
        listed.append(skipped(name, "at most 20 ms", why("weights")))
    for workload in prefix.WORKLOADS:
        hits, load = f"prefix hits, {workload}", f"max/mean load, {workload}"
        if "prefix" in details:
            runs = details["prefix"][workload]
            of_oracle = prefix.of_oracle(runs, OURS)
            listed.append(at_least(hits, of_oracle, 0.9, "x the oracle's"))
            listed.append(at_most(load, prefix.unevenness(runs, OURS), 1.25))
        else:
            listed.append(skipped(hits, "at least 0.9x the oracle's", why("prefix")))
            listed.append(skipped(load, "at most 1.25", why("prefix")))
    return listed


def _print_tables(details: JSON) -> None:
    loads, ratios = details["loads"], details.get("ratios", {})
    if loads:
        columns: dict[str, Callable[[str], str]] = {
            "req/s 1 KB": lambda name: _cell(loads, "1kb", name, "requests_per_second", 0),
            "ours": lambda name: _ratio(ratios, "1kb", name),
            "req/s 220 KB": lambda name: _cell(loads, "220kb", name, "requests_per_second", 0),
            "ours ": lambda name: _ratio(ratios, "220kb", name),
            "p50 ms": lambda name: _cell(loads, "latency", name, "p50_ms", 2),
            "added": lambda name: _cell(loads, "latency", name, "added_p50_ms", 2),
            "p99 ms": lambda name: _cell(loads, "latency", name, "p99_ms", 2),
            "added ": lambda name: _cell(loads, "latency", name, "added_p99_ms", 2),
            "µs/chunk": lambda name: _cell(loads, "stream", name, "cpu_microseconds_per_event", 1),
        }
        rows = [["", *columns]]
        names = [name for name in SUBJECTS if any(name in each for each in loads.values())]
        rows += [[name, *(column(name) for column in columns.values())] for name in names]
        _print(rows)
    for part, runs in details.get("alternating", {}).items():
        each = ", ".join(f"{ratio:.3f}x" for ratio in runs)
        sys.stdout.write(f"{part}, in turn with plain Envoy: {each}\n\n")
    for name, sentence in details["absent"].items():
        sys.stdout.write(f"not measured: {name}: {sentence}\n")
    for workload, runs in details.get("prefix", {}).items():
        rows = [[workload, "prefix hits", "of oracle", "max/mean load", "requests", "failed"]]
        for name, each in runs.items():
            rows.append([
                name, f"{median(one['hit_rate'] for one in each):.1%}",
                f"{prefix.of_oracle(runs, name):.2f}x", f"{prefix.unevenness(runs, name):.2f}",
                str(sum(one["requests"] for one in each)), str(sum(one["failed"] for one in each)),
            ])  # fmt: skip
        _print(rows)
    if "weights" in details:
        rows = [["weight change to first request, ms", "p50", "p95", "max"]]
        for since in ("sent", "answered"):
            waits = details["weights"][f"write_{since}_to_first_request_ms"]
            p95 = waits[int(0.95 * (len(waits) - 1))]
            rows.append(
                [
                    f"since the write was {since}",
                    f"{median(waits):.1f}",
                    f"{p95:.1f}",
                    f"{waits[-1]:.1f}",
                ]
            )
        _print(rows)


def _cell(loads: Mapping[str, JSON], part: str, name: str, key: str, digits: int) -> str:
    value = loads.get(part, {}).get(name, {}).get(key)
    return "" if value is None else f"{value:,.{digits}f}"


def _ratio(ratios: Mapping[str, JSON], part: str, name: str) -> str:
    value = ratios.get(part, {}).get(name)
    return "" if value is None or name == OURS else f"{value:.2f}x"


def _print(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        first, *rest = (cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        sys.stdout.write("  ".join((first, *rest)).rstrip() + "\n")
    sys.stdout.write("\n")


if __name__ == "__main__":
    raise SystemExit(main())
