"""``make test-parameters``: every parameter alone and every pair, at each kind of engine."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hack.bench.report import Target, finish

from tests.engine.parameters.asking import Engine, Outcome, ask_all
from tests.engine.parameters.fields import FIELDS
from tests.engine.parameters.requests import Request, all_pairs, alone, factors, in_pairs, rows
from tests.engine.pod import Pod, copy_models, install_plugins

MOST_SHOWN = 50
PARTS = ("alone", "rows", "pairs", "wrong-pairs")
TOOLS = {"toolCallParser": "hermes"}
ENGINES: dict[str, dict[str, Any]] = {
    "plain": TOOLS,
    "ngram": {
        **TOOLS,
        "dtype": "float32",  # in bfloat16 a cached prefix may give another likeliest token
        "speculativeDecoding": {"method": "ngram", "numSpeculativeTokens": 4},
    },
    "draft": {
        **TOOLS,
        "reasoningParser": "qwen3",  # a grammar then holds only after the reasoning's end
        "speculativeDecoding": {
            "method": "draft",
            "numSpeculativeTokens": 3,
            "draftModel": {"source": "pvc://claim/tiny-llama-draft"},
        },
        "schedulingPolicy": "priority",
        "kvCache": {"prefixCaching": True},
    },
    "embedding": {"extraArgs": ["--runner=pooling", "--kv-cache-memory-bytes=67108864"]},
}
"""Kinds of engine: their sampler, scheduler or task differs."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """Everything that was asked."""

    asked: dict[str, int] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    refused: dict[str, dict[str, int]] = field(default_factory=dict)
    """How often each two fields were not served together."""
    wrong: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome) -> None:
        """Takes what became of one operation of one engine, and says it."""
        self.asked[name] = len(outcome.answers)
        self.served[name] = sum(answer.status == 200 for answer in outcome.answers)
        wrong = [f"{name}: {each}" for each in outcome.wrong]
        ends = [f"{name}: {each}" for each in outcome.ends]
        print(
            f"{name}: {self.asked[name]} asked, {self.served[name]} served, {len(wrong)} wrong,"
            f" {len(ends)} ended an engine",
            *ends,
            *wrong[:MOST_SHOWN],
            sep="\n",
            flush=True,
        )
        self.wrong += wrong
        self.ends += ends
        together = Counter(
            " with ".join(field for field, _ in answer.request.tried)
            for answer in outcome.answers
            if answer.status != 200 and len(answer.request.tried) == 2
        )
        self.refused[name] = dict(together.most_common())


def main() -> int:
    """Ask, report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="make test-parameters", description=__doc__)
    parser.add_argument("--engine", choices=[*ENGINES], nargs="*", default=[*ENGINES])
    parser.add_argument("--operation", choices=[*FIELDS], nargs="*", default=[*FIELDS])
    parser.add_argument("--part", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--seed", type=int, default=0, help="another order of the requests")
    chosen = parser.parse_args()
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="parameters-") as scratch:
        for kind in chosen.engine:
            ask_engine(kind, Path(scratch), totals, chosen)
    return finish(
        "test-parameters",
        [
            _none("requests that ended an engine", totals.ends, sum(totals.asked.values())),
            _none("answers that are not documented", totals.wrong, sum(totals.asked.values())),
        ],
        asdict(totals),
    )


def ask_engine(kind: str, scratch: Path, totals: Totals, chosen: argparse.Namespace) -> None:
    """Each operation of one kind of engine, in random order: neighbours in a batch differ."""
    folder = scratch / kind
    models, installed = copy_models(folder / "models"), folder / "installed"
    installed.mkdir()
    install_plugins(installed)

    def start() -> Pod:
        where = Path(tempfile.mkdtemp(dir=folder))
        return Pod(where, models, installed, {**ENGINES[kind]})

    served = {"embedding"} if kind == "embedding" else {*FIELDS} - {"embedding"}
    with Engine(start) as engine:
        for operation in (each for each in chosen.operation if each in served):
            requests = everything(kind, operation, chosen.part)
            random.Random(chosen.seed).shuffle(requests)
            name = f"{kind} {operation}"
            totals.add(name, ask_all(requests, engine, name))


def everything(kind: str, operation: str, parts: Sequence[str]) -> list[Request]:
    """What one operation of one kind of engine is asked.

    Wrong values never come past the API server, which is the same for all kinds; what the table
    says is served holds without speculation, which refuses some of it.
    """
    whole = kind in {"plain", "embedding"}
    values = factors(operation, wrong=whole and "wrong-pairs" in parts)
    requests: list[Request] = []
    if "alone" in parts:
        requests += (each if whole else replace(each, served=None) for each in alone(operation))
    if "rows" in parts:
        requests += rows(operation)
    if "pairs" in parts:
        requests += in_pairs(operation, values, all_pairs(values))
    return requests


def _none(name: str, found: list[str], of: int) -> Target:
    return Target(name=name, figure=f"{len(found)} of {of}", target="0", holds=not found)


if __name__ == "__main__":
    raise SystemExit(main())
