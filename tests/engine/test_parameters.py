"""No request ends an engine: each parameter alone, and rows that hold every pair of values.

Every pair by itself, and more kinds of engines, are ``make test-parameters``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.engine.parameters.__main__ import ENGINES
from tests.engine.parameters.asking import Engine, ask_all, stream_status
from tests.engine.parameters.requests import alone, rows
from tests.engine.pod import Pod

StartPod = Callable[..., Pod]
PARTS = {"alone": alone, "rows": rows}
CASES = [
    *(("plain", each, part) for each in ("chat", "completion", "responses") for part in PARTS),
    *(("embedding", "embedding", part) for part in PARTS),
    *(("ngram", each, "rows") for each in ("chat", "completion", "responses")),
]
"""In an order in which each kind of engine is started once."""


@pytest.fixture(scope="module")
def engines(start_pod: StartPod) -> Iterator[Callable[[str], Engine]]:
    """Starts each kind of engine once, and ends it when another is wanted."""
    running: dict[str, Engine] = {}

    def engine(kind: str) -> Engine:
        if kind not in running:
            for other in running.values():
                other.pod.close()
            running.clear()
            running[kind] = Engine(lambda: start_pod(**ENGINES[kind]))
        return running[kind]

    return engine


def test_logprobs_and_beam_search_when_asked_then_answered_and_nothing_is_compiled(
    engines: Callable[[str], Engine],
) -> None:
    engine = engines("plain")
    body = {"model": "tiny", "prompt": "Where is", "max_tokens": 4}
    status, text = engine.pod.ask("/v1/completions", {**body, "logprobs": 3})
    assert status == 200, text
    assert len(json.loads(text)["choices"][0]["logprobs"]["top_logprobs"][0]) >= 3
    status, text = engine.pod.ask("/v1/completions", {**body, "use_beam_search": True, "n": 2})
    assert (status, len(json.loads(text)["choices"])) == (200, 2)
    assert engine.alive("completion")


def test_grammar_when_one_library_cannot_read_it_then_refused_whatever_came_before(
    engines: Callable[[str], Engine],
) -> None:
    pod = engines("plain").pod
    body = {"model": "tiny", "prompt": "a", "max_tokens": 4}
    for unreadable in ({"regex": "(?i)a"}, {"grammar": "root ::="}):
        status, text = pod.ask("/v1/completions", {**body, "structured_outputs": unreadable})
        assert status == 400, text
        for readable in ({"grammar": 'root ::= "a"'}, {"regex": "[ab]"}):
            status, text = pod.ask("/v1/completions", {**body, "structured_outputs": readable})
            assert status == 200, text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "narrowing", [{"allowed_token_ids": [0]}, {"bad_words": ["a"]}, {"stop_token_ids": range(2048)}]
)
def test_grammar_when_other_fields_leave_no_token_then_refused(
    engines: Callable[[str], Engine], narrowing: dict[str, Iterable[object]], stream: bool
) -> None:
    pod = engines("plain").pod
    body = {"model": "tiny", "prompt": "a", "max_tokens": 4, "stream": stream}
    lists = {name: list(values) for name, values in narrowing.items()}
    status, text = pod.ask(
        "/v1/completions", {**body, **lists, "structured_outputs": {"regex": "a"}}
    )
    assert (stream_status(text) if stream else status) == 400, text
    assert pod.ask("/v1/completions", {**body, **lists})[0] == 200


def test_seed_when_prompts_are_cut_into_chunks_then_same_answers_and_the_engine_lives(
    engines: Callable[[str], Engine],
) -> None:
    engine = engines("plain")
    body = {"model": "tiny", "prompt": [5] * 900, "max_tokens": 8, "seed": 7, "temperature": 2}

    def answers(n: int) -> list[str]:
        status, text = engine.pod.ask("/v1/completions", {**body, "n": n})
        assert status == 200, text
        return [choice["text"] for choice in json.loads(text)["choices"]]

    uncut = answers(1)
    assert answers(8)[0] == answers(8)[0] == uncut[0]  # 7,200 tokens, 2,048 a step
    assert engine.alive("completion")


def test_sampling_when_tokens_are_drafted_then_obeyed_and_the_engine_lives(
    engines: Callable[[str], Engine],
) -> None:
    engine = engines("ngram")
    prompt = "the token is in the file and the file is in the pod; " * 4

    def answer(**sampling: float) -> str:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 60, "ignore_eos": True}
        status, text = engine.pod.ask("/v1/completions", {**body, **sampling})
        assert status == 200, text
        return str(json.loads(text)["choices"][0]["text"])

    before = engine.pod.metric("vllm:spec_decode_num_draft_tokens_total")
    likeliest = answer(temperature=0)
    assert answer(temperature=2, top_k=1) == likeliest
    assert answer(temperature=2, top_p=1e-9) == likeliest
    assert answer(temperature=2, seed=1) != likeliest
    assert engine.pod.metric("vllm:spec_decode_num_draft_tokens_total") > before
    assert engine.alive("completion")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "operation", "part"), CASES)
def test_parameters_when_asked_then_documented_answers_and_the_engine_lives(
    engines: Callable[[str], Engine], kind: str, operation: str, part: str
) -> None:
    name = f"{kind} {operation} {part}"
    outcome = ask_all([*PARTS[part](operation)], engines(kind), name)
    served = sum(answer.status == 200 for answer in outcome.answers)
    print(f"\n{name}: {served} of {len(outcome.answers)} served")
    assert not outcome.ends, "\n".join(outcome.ends)
    assert not outcome.wrong, "\n".join(outcome.wrong)
