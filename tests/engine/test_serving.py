"""Real engines under the real supervisor. Few starts (about 30 s each), many questions to each."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import struct
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.pod import TOKEN, Pod

DRAFT = {
    "method": "draft",
    "numSpeculativeTokens": 3,
    "draftModel": {"source": "pvc://claim/tiny-llama-draft"},
}
NGRAM = {"method": "ngram", "numSpeculativeTokens": 4}
ROOT = Path(__file__).parents[2]
StartPod = Callable[..., Pod]


def make_prompts() -> list[str]:
    """60 prompts; the contract's own lines, some said twice so that n-grams recur."""
    lines = [
        line for line in (ROOT / "docs" / "contract.md").read_text().splitlines() if len(line) > 50
    ]
    prompts = [line[:60] for line in lines[:40]]
    return (prompts + [f"{prompt}\n{prompt[:40]}" for prompt in prompts])[:60]


PROMPTS = make_prompts()


@pytest.fixture(scope="module")
def speculating(start_pod: StartPod) -> Pod:
    """float32 with a draft model, priorities, and a small block size."""
    pod = start_pod(
        dtype="float32",
        speculativeDecoding=DRAFT,
        schedulingPolicy="priority",
        kvCache={"prefixCaching": True, "blockSize": 32},
        maxNumSeqs=32,
    )
    print(f"\nready after {pod.until_ready():.0f} s")
    return pod


@pytest.fixture(scope="module")
def plain_answers(start_pod: StartPod) -> list[str]:
    """Answers of the same model without speculation."""
    pod = start_pod(dtype="float32")
    pod.until_ready()
    answers = pod.complete_all(PROMPTS)
    pod.close()
    return answers


def error_of(text: str) -> dict[str, Any]:
    return dict(json.loads(text)["error"])


def test_engine_when_token_is_wrong_then_401_everywhere(speculating: Pod) -> None:
    for path, body in (
        ("/v1/models", None),
        ("/metrics", None),
        ("/health", None),
        ("/v1/completions", {}),
    ):
        status, text = speculating.ask(path, body, token="wrong")
        assert (status, error_of(text)["code"]) == (401, "invalid_api_key")


def test_engine_when_path_is_administrative_then_404(speculating: Pod) -> None:
    for path in (
        "/tokenize",
        "/v1/load_lora_adapter",
        "/invocations",
        "/inference/v1/generate",
        "/v1/chat/completions/batch",
    ):
        assert speculating.ask(path, {})[0] == 404
    for path in ("/metrics", "/health", "/version", "/docs", "/openapi.json", "/server_info"):
        assert speculating.ask(path)[0] == 404


def test_models_when_asked_then_names_and_aliases(speculating: Pod) -> None:
    status, text = speculating.ask("/v1/models")
    assert status == 200
    assert [model["id"] for model in json.loads(text)["data"]] == ["tiny", "alias"]


def test_chat_completion_and_responses_when_asked_then_answered(speculating: Pod) -> None:
    messages = [{"role": "user", "content": "Where is the token?"}]
    status, text = speculating.ask(
        "/v1/chat/completions", {"model": "alias", "messages": messages, "max_tokens": 8, "n": 2}
    )
    assert status == 200, text
    assert len(json.loads(text)["choices"]) == 2
    status, text = speculating.ask(
        "/v1/responses", {"model": "tiny", "input": "hello", "max_output_tokens": 8}
    )
    assert (status, json.loads(text)["usage"]["output_tokens"] <= 8) == (200, True)
    assert len(speculating.complete("def build", 12)) > 0


def test_hostile_bodies_when_sent_to_the_engine_then_openai_shaped_4xx(speculating: Pod) -> None:
    bodies: list[bytes] = [
        b"{",
        b'{"model": "tiny", "prompt": "a", "prompt": "b"}',
        b'{"model": "tiny", "prompt": "a", "pri\\u006frity": 1}',
        '{"model": "tiny", "prompt": "a"}'.encode("utf-16"),
        b'{"model": "tiny", "prompt": "\\udc00"}',
        b'{"model": "tiny", "prompt": "a", "n": "9"}',
        b'{"model": "tiny", "prompt": "a", "temperature": "hot"}',
        b'{"model": "tiny", "prompt": "a", "temperature": -1}',
        b'{"model": "tiny"}',
    ]
    for body in bodies:
        status, text = speculating.ask("/v1/completions", body)
        assert status == 400, (body, text)
        assert {"message", "type", "param", "code"} <= set(error_of(text))


def test_model_when_unknown_then_404_in_openai_shape(speculating: Pod) -> None:
    status, text = speculating.ask("/v1/completions", {"model": "other", "prompt": "a"})
    assert status == 404
    assert "does not exist" in error_of(text)["message"]


def test_length_when_over_the_context_then_400_naming_both_numbers(speculating: Pod) -> None:
    status, text = speculating.ask("/v1/completions", {"model": "tiny", "prompt": [5] * 1500})
    assert status == 400
    assert "1500" in text
    assert "1024" in text


def test_operation_when_model_cannot_embed_then_404_in_openai_shape(speculating: Pod) -> None:
    status, text = speculating.ask("/v1/embeddings", {"model": "tiny", "input": "a"})
    assert (status, error_of(text)["code"]) == (404, "not_supported")


def test_trusted_headers_when_sent_then_engine_obeys(speculating: Pod) -> None:
    headers = {
        "x-llmfleet-tenant": "bob@example/x",
        "x-llmfleet-priority": "5",
        "x-llmfleet-max-tokens": "3",
    }
    body = {"model": "tiny", "prompt": "The pod", "max_tokens": 50, "ignore_eos": True}
    status, text = speculating.ask("/v1/completions", body, **headers)
    assert (status, json.loads(text)["usage"]["completion_tokens"]) == (200, 3)


def test_prefix_cache_when_tenants_differ_then_not_shared(speculating: Pod) -> None:
    prompt = "One prompt that is long enough for some blocks of the cache. " * 12
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 1}

    def hits(tenant: str) -> float:
        before = speculating.metric("vllm:prefix_cache_hits_total")
        assert speculating.ask("/v1/completions", body, **{"x-llmfleet-tenant": tenant})[0] == 200
        return speculating.metric("vllm:prefix_cache_hits_total") - before

    assert hits("a") == 0
    assert hits("a") > 0
    assert hits("b") == 0


def test_speculation_when_float32_then_same_answers_as_without(
    speculating: Pod, plain_answers: list[str]
) -> None:
    before = speculating.metric("vllm:spec_decode_num_accepted_tokens_total")
    drafted_before = speculating.metric("vllm:spec_decode_num_draft_tokens_total")
    answers = speculating.complete_all(PROMPTS)
    accepted = speculating.metric("vllm:spec_decode_num_accepted_tokens_total") - before
    drafted = speculating.metric("vllm:spec_decode_num_draft_tokens_total") - drafted_before
    differing = sum(a != b for a, b in zip(answers, plain_answers, strict=True))
    print(
        f"\nfloat32: {differing} of {len(PROMPTS)} differ;"
        f" {accepted:.0f} of {drafted:.0f} drafted tokens accepted"
    )
    assert len(PROMPTS) == 60
    assert differing == 0
    assert accepted > 0


def test_kv_cache_when_a_stream_runs_then_usage_moves_and_returns(speculating: Pod) -> None:
    highest = 0.0
    stream = threading.Thread(
        target=speculating.ask,
        args=(
            "/v1/completions",
            {"model": "tiny", "prompt": "x", "max_tokens": 400, "ignore_eos": True},
        ),
    )
    stream.start()
    while stream.is_alive():
        highest = max(highest, speculating.metric("vllm:kv_cache_usage_perc"))
    assert highest > 0
    assert speculating.metric("vllm:kv_cache_usage_perc") < highest


def test_metrics_when_own_requests_run_then_only_clients_are_counted(speculating: Pod) -> None:
    requests, tokens = (
        speculating.metric("llm_requests_total"),
        speculating.metric("llm_tokens_total"),
    )
    status, text = speculating.probe("/health/deep")
    report = json.loads(text)
    assert (status, report["healthy"], report["device"]["type"]) == (200, True, "cpu")
    assert report["queue"] == {"running": 0, "waiting": 0}
    assert speculating.metric("llm_requests_total") == requests
    assert speculating.metric("llm_tokens_total") == tokens
    speculating.complete("a", 4)
    assert speculating.metric("llm_requests_total") == requests + 1
    assert speculating.metric("llm_tokens_total") > tokens


def test_client_when_it_goes_away_then_its_slot_is_freed(speculating: Pod) -> None:
    body = {"model": "tiny", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with open_stream(speculating, body) as answer:
        answer.readline()
        assert speculating.metric("vllm:num_requests_running") == 1
    deadline = time.monotonic() + 5
    while speculating.metric("vllm:num_requests_running"):
        assert time.monotonic() < deadline
    assert "vllm:spec_decode" in speculating.probe("/metrics")[1]


def open_stream(pod: Pod, body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json", "x-llmfleet-token": TOKEN}
    request = urllib.request.Request(
        f"http://127.0.0.1:{pod.http}/v1/completions", json.dumps(body).encode(), headers
    )
    return urllib.request.urlopen(request, timeout=120)


def test_drain_when_a_stream_runs_then_it_is_not_truncated(speculating: Pod) -> None:
    body = {
        "model": "tiny",
        "prompt": "x",
        "max_tokens": 600,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with open_stream(speculating, body) as answer:
        first = answer.readline()
        speculating.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        while speculating.probe("/ready")[0] != 503:
            assert time.monotonic() - begun < 2
        late = speculating.complete("late but welcome", 4)
        rest = answer.read().decode()
    assert late
    assert first
    assert rest.endswith("data: [DONE]\n\n")
    assert '"completion_tokens":600' in rest
    assert speculating.process.wait(60) == 0
    assert not speculating.words_file.exists()
    print(f"\ndrained in {time.monotonic() - begun:.1f} s")


def make_adapter(folder: Path) -> None:
    """A LoRA adapter of rank 8 on two projections of the target."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "o_proj"],
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    body = b""
    generator = random.Random(1)
    places = itertools.product(
        range(4), ("q_proj", "o_proj"), (("lora_A", [8, 256]), ("lora_B", [256, 8]))
    )
    for layer, module, (part, shape) in places:
        count = shape[0] * shape[1]
        data = struct.pack(f"<{count}f", *(generator.gauss(0, 0.3) for _ in range(count)))
        name = f"base_model.model.model.layers.{layer}.self_attn.{module}.{part}.weight"
        header[name] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_lora_and_bfloat16_when_served_then_adapter_answers_differently(
    start_pod: StartPod, models: Path
) -> None:
    make_adapter(models / "adapter")
    pod = start_pod(
        dtype="bfloat16",
        lora={"maxRank": 8, "adapters": [{"name": "tuned", "source": "pvc://claim/adapter"}]},
        chunkedPrefill=True,
    )
    pod.until_ready()
    body = {"prompt": "def build(", "max_tokens": 30, "temperature": 0, "ignore_eos": True}
    base, tuned = (
        pod.ask("/v1/completions", {**body, "model": name}) for name in ("tiny", "tuned")
    )
    assert (base[0], tuned[0]) == (200, 200)
    assert json.loads(base[1])["choices"][0]["text"] != json.loads(tuned[1])["choices"][0]["text"]
    plain = pod.complete_all(PROMPTS)
    pod.close()
    pod = start_pod(dtype="bfloat16", speculativeDecoding=NGRAM, kvCache={"prefixCaching": False})
    pod.until_ready()
    differing = sum(a != b for a, b in zip(pod.complete_all(PROMPTS), plain, strict=True))
    accepted = pod.metric("vllm:spec_decode_num_accepted_tokens_total")
    print(
        f"\nbfloat16, ngram: {differing} of {len(PROMPTS)} differ; {accepted:.0f} tokens accepted"
    )
    assert accepted > 0
    kill_engine_core_in_mid_stream(pod)


def kill_engine_core_in_mid_stream(pod: Pod) -> None:
    """The stream must end without its final chunk, the pod with exit 1 and words."""
    body = {"model": "tiny", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with open_stream(pod, body) as answer:
        answer.readline()
        os.kill(pod.engine_core(), signal.SIGKILL)
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"IncompleteRead|reset") as caught:
            raise_as_os_error(answer.read)
        assert "[DONE]" not in str(caught.value)
    assert pod.process.wait(30) == 1
    print(f"\nexit 1 after {time.monotonic() - begun:.1f} s: {pod.words['message']}")
    assert time.monotonic() - begun < 20
    assert pod.words["reason"] == "EngineError"
    assert "unexpectedly" in pod.words["message"]


def raise_as_os_error(read: Callable[[], bytes]) -> None:
    """http.client's IncompleteRead is no OSError, though it is the same event as a reset."""
    try:
        read()
    except http.client.IncompleteRead as error:
        raise OSError(f"IncompleteRead {error.partial[-200:]!r}") from error


def test_int8_and_fp8_cache_when_served_on_cpu_then_answers_or_says_what_the_cpu_lacks(
    start_pod: StartPod,
) -> None:
    """vLLM's CPU build keeps an fp8 cache where the processor has AVX-512 or AMX."""
    known = Path("/proc/cpuinfo").read_text()
    able = "avx512f" in known or "amx_tile" in known
    int8 = {"quantization": "int8", "chunkedPrefill": False, "toolCallParser": "hermes"}
    pod = start_pod(**int8, kvCache={"dtype": "fp8"})
    if not able:
        assert pod.process.wait(120) == 1
        assert pod.words["reason"] == "UnsupportedOption"
        assert "AVX-512" in pod.words["message"]
        pod = start_pod(**int8)
    pod.until_ready()
    assert len(pod.complete("def build", 12)) > 0


def test_model_when_files_are_corrupt_then_exit_1_and_its_own_words(
    start_pod: StartPod, models: Path
) -> None:
    broken = models / "broken"
    broken.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((models / "tiny-llama" / name).read_bytes())
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    pod = start_pod(speculativeDecoding={**DRAFT, "draftModel": {"source": "pvc://claim/broken"}})
    assert pod.process.wait(120) == 1
    print(f"\n{pod.words}")
    assert pod.words["reason"] == "ModelUnreadable"
