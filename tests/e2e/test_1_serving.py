"""A model is applied; clients get answers, and people see what is served."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable

from hack.demo import conversation
from hack.kube.kubectl import condition, kubectl, wait_for

from tests.e2e.fleet import Fleet


def test_apply_when_the_manifest_is_new_then_every_kind_of_request_is_answered(
    fleet: Fleet,
) -> None:
    with fleet.client() as client:
        answers = [
            conversation.chat(client, fleet.model, "How are decisions made?"),
            conversation.complete(client, fleet.model, "def observe("),
            conversation.stream(client, fleet.model, "Tell me about revisions.", max_tokens=40),
        ]
        names = [model.id for model in client.models.list()]

    assert names == [fleet.model]
    for answer in answers:
        assert answer.tokens > 0, answer
        assert answer.text, answer
    assert answers[2].first_token_seconds is not None


def test_stream_when_the_client_goes_after_a_piece_then_the_engine_was_still_writing(
    fleet: Fleet,
) -> None:
    """A held-back stream could be left only at its end; times would say how busy the machine is."""
    before = given_up(fleet)
    with (
        fleet.client() as client,
        client.chat.completions.create(
            model=fleet.model,
            messages=[{"role": "user", "content": "Once more, at length:"}],
            max_tokens=900,
            stream=True,
            extra_body={"min_tokens": 900},
        ) as pieces,
    ):
        next(piece for piece in pieces if piece.choices and piece.choices[0].delta.content)

    wait_for(
        "the engine to give up an answer that nobody reads",
        lambda: given_up(fleet) > before,
        timeout_seconds=30,
        describe=lambda: "the router held the stream back, or kept it going without its client",
    )


def given_up(fleet: Fleet) -> float:
    """Answers that its engines have left unfinished because the client went."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in fleet.engine_metrics().splitlines()
        if line.startswith("llm_requests_total{") and 'status="499"' in line
    )


def test_kubectl_get_when_healthy_then_the_columns_say_what_is_served(fleet: Fleet) -> None:
    header, row = kubectl("get", "llmdep", fleet.name, "-n", fleet.namespace).splitlines()

    assert header.split() == ["NAME", "MODEL", "READY", "PHASE", "WEIGHT", "URL", "AGE"]
    for value in ("tiny-llama", "1/1", "Healthy", f"http://{fleet.name}.{fleet.namespace}.svc"):
        assert value in row.split()


def test_status_when_healthy_then_conditions_and_traffic_agree(fleet: Fleet) -> None:
    status = fleet.wait_until_healthy()

    assert condition({"status": status}, "Ready")["status"] == "True"
    assert condition({"status": status}, "Available")["status"] == "True"
    assert status["servedRevision"] == status["specRevision"]
    assert status["traffic"] == [{"revision": status["servedRevision"], "weight": 100}]
    present = {entry["type"] for entry in status["conditions"]}
    assert not present & {"Reconciling", "Stalled"}, "kstatus would not read this as Current"


def test_kstatus_when_healthy_then_kubectl_wait_agrees(fleet: Fleet) -> None:
    kubectl(
        "wait", "llmdep", fleet.name, "-n", fleet.namespace, "--for=condition=Ready",
        "--timeout=10s",
    )  # fmt: skip


def test_engine_pods_when_running_then_they_are_restricted_and_hold_no_credentials(
    fleet: Fleet,
) -> None:
    pod = fleet.pods("engine")[0]["spec"]
    container = next(entry for entry in pod["containers"] if entry["name"] == "engine")

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_speculation_and_paged_kv_when_requests_run_then_their_metrics_move(
    fleet: Fleet, figure: Callable[[str], None]
) -> None:
    drafted_before, accepted_before = conversation.acceptance(fleet.engine_metrics())

    usage_seen = threading.Event()

    def ask(number: int) -> int:
        # Asks until the gauge was seen to move: a fast machine answers between two looks.
        text, tokens = f"{number}: again and again and again and again and", 0
        with fleet.client() as client:
            while not (tokens and usage_seen.is_set()):
                answer = conversation.complete(
                    client, fleet.model, text, max_tokens=400, min_tokens=400
                )
                tokens += answer.tokens
        return tokens

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(ask, number) for number in range(8)]
        try:
            usage = wait_for(
                "vllm:kv_cache_usage_perc above zero while requests run",
                lambda: (
                    max(
                        conversation.samples(fleet.engine_metrics(), "vllm:kv_cache_usage_perc"),
                        default=0,
                    )
                    or None
                ),
                timeout_seconds=60,
                every_seconds=0.05,
            )
        finally:
            usage_seen.set()
        tokens = sum(future.result(120) for future in running)

    drafted, accepted = conversation.acceptance(fleet.engine_metrics())
    drafted, accepted = drafted - drafted_before, accepted - accepted_before
    figure(
        f"KV cache usage {usage:.3f}; {accepted} of {drafted} drafted tokens accepted, {tokens=}"
    )
    assert 0 < usage <= 1
    assert drafted > 0
    assert 0 < accepted <= drafted


def test_engine_when_asked_without_the_routers_token_then_it_refuses(fleet: Fleet) -> None:
    pod = fleet.pods("engine")[0]["metadata"]["name"]
    code = (
        "import urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen('http://127.0.0.1:8000/v1/models').status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    said = kubectl("exec", pod, "-n", fleet.namespace, "-c", "engine", "--", "python", "-c", code)

    assert said.strip() == "401"
