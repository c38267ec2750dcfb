"""`python -m hack.demo up`: cluster, images, chart, model, LLMDeployment, conversation."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hack.demo import conversation, rollout
from hack.kube import chart, local, models
from hack.kube.kubectl import (
    JSON,
    KubectlError,
    NotInTimeError,
    get,
    kubectl,
    list_objects,
    port_forward,
    wait_for,
)

QUICKSTART = Path(__file__).parent.parent.parent / "examples" / "quickstart.yaml"
NAMESPACE = "demo"
STEPS = 7

console = Console(highlight=False, soft_wrap=True)
_started = time.monotonic()
_step = 0


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announces a step before and its duration after."""
    global _step  # noqa: PLW0603  # a command's progress, counted where it is printed
    _step += 1
    console.print(f"\n[bold cyan]({_step}/{STEPS})[/] [bold]{title}[/]")
    begun = time.monotonic()
    yield
    console.print(f"  [green]done[/] in {time.monotonic() - begun:.0f} s")


def wait_for_models() -> None:
    """Follows the Job that makes the models."""
    said = ""

    def finished() -> bool:
        nonlocal said
        with contextlib.suppress(KubectlError):
            line = models.log_tail(NAMESPACE, 1).strip()
            if line and line != said:
                said = line
                console.print(f"  [dim]{escape(line)}[/]")
        state = models.state(NAMESPACE)
        if state == "Failed":
            raise NotInTimeError(f"the models could not be made: {models.log_tail(NAMESPACE)}")
        return state == "Complete"

    wait_for("the tiny models", finished, timeout_seconds=600, every_seconds=1, describe=pod_states)


def pod_states() -> str:
    """One short line about every pod of the demo's namespace."""
    parts = []
    for pod in list_objects("pods", NAMESPACE):
        status = pod["status"]
        containers = status.get("containerStatuses") or [{}]
        unready = next((one for one in containers if not one.get("ready")), None)
        waiting = (unready or {}).get("state", {}).get("waiting", {}).get("reason")
        ready = "ready" if unready is None else waiting or status.get("phase", "?")
        if status.get("phase") != "Succeeded":
            parts.append(f"{pod['metadata']['name']} {ready}")
    return ", ".join(parts) or "no pods yet"


def wait_until_healthy(name: str) -> None:
    """Prints phase, message and pods whenever they change, until the object is Healthy.

    Raises:
        NotInTimeError: not Healthy within 5 min.
    """
    begun = time.monotonic()
    said = ""

    def look() -> str:
        obj: JSON = get("llmdep", name, NAMESPACE) or {}
        status = obj.get("status") or {}
        current = status.get("observedGeneration") == obj.get("metadata", {}).get("generation")
        phase = status.get("phase", "Pending") if current else "Pending"
        return f"{phase}: {status.get('message', 'not seen by the operator yet')}"

    def healthy() -> bool:
        nonlocal said
        now = look()
        line = f"{escape(now)}  [dim]({escape(pod_states())})[/]"
        if line != said:
            said = line
            console.print(f"  {time.monotonic() - begun:4.0f} s  {line}")
        return now.startswith("Healthy:")

    wait_for(f"{name} to be Healthy", healthy, timeout_seconds=300, every_seconds=1, describe=look)


def converse(name: str, served_name: str) -> None:
    """Sends one request of each kind and prints what came back, and how fast."""
    table = Table(
        "request", "answer", "tokens", "tokens/s", "first token", box=None, pad_edge=False
    )
    with port_forward(f"svc/{name}", 80, NAMESPACE) as port:
        client = conversation.connect(f"http://127.0.0.1:{port}")
        answers = [
            conversation.chat(client, served_name, "How does the operator decide?"),
            conversation.complete(client, served_name, "def observe("),
            conversation.stream(client, served_name, "Tell me about revisions."),
        ]
    for answer in answers:
        first = f"{answer.first_token_seconds:.2f} s" if answer.first_token_seconds else "-"
        shown = " ".join(answer.text.split())
        table.add_row(
            answer.kind,
            escape(shown[:64] + ("…" if len(shown) > 64 else "")),
            str(answer.tokens),
            f"{answer.tokens_per_second:.0f}",
            first,
        )
    console.print(table)
    console.print(
        "  [dim]A model of four million parameters, trained for seconds: it shows that serving "
        "works, not wisdom.[/]"
    )
    if not all(answer.tokens for answer in answers):
        raise NotInTimeError("an answer had no tokens; see the table above")


def speculation(name: str) -> None:
    """Prints how many proposed tokens the model accepted."""
    drafted = accepted = 0
    for pod in list_objects("pods", NAMESPACE, f"llmfleet.dev/deployment={name}"):
        if pod["metadata"]["labels"].get("llmfleet.dev/component") != "engine":
            continue
        with port_forward(f"pod/{pod['metadata']['name']}", 8081, NAMESPACE) as port:
            more = conversation.acceptance(conversation.metrics(port))
        drafted, accepted = drafted + more[0], accepted + more[1]
    share = f"{accepted / drafted:.0%}" if drafted else "none proposed"
    console.print(
        f"  speculative decoding: {accepted} of {drafted} proposed tokens accepted ({share})"
    )


def next_steps(name: str, served_name: str) -> None:
    """What the reader can try now."""
    console.print(f"""
[bold]It serves.[/] {time.monotonic() - _started:.0f} s in all. Next, in your own shell:

  eval "$(make -s cluster-env)"                            [dim]# kubectl and helm for this cluster[/]
  kubectl -n {NAMESPACE} get llmdep -w                              [dim]# watch it …[/]
  kubectl -n {NAMESPACE} scale llmdep {name} --replicas=2            [dim]# … while it scales[/]
  kubectl -n {NAMESPACE} patch llmdep {name} --type=merge \\
    -p '{{"spec":{{"model":{{"source":"pvc://models/tiny-llama-v2"}}}}}}'   [dim]# … and rolls to another model[/]
  kubectl explain llmdep.spec.engine

  kubectl -n {NAMESPACE} port-forward svc/{name} 8000:80 &           [dim]# then any OpenAI client:[/]
  curl -s localhost:8000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{served_name}", "messages": [{{"role": "user", "content": "hello"}}], "max_tokens": 32}}'

  make demo-rollout                                        [dim]# a good release, then a bad one, narrated[/]
  make demo-down                                           [dim]# removes all of it[/]
""")  # noqa: E501  # lines of a shell


def up() -> None:
    """The whole demo."""
    manifest: JSON = yaml.safe_load(QUICKSTART.read_text())
    name, served_name = manifest["metadata"]["name"], manifest["spec"]["model"]["servedName"]
    with step("the local cluster: a real Kubernetes, without Docker where there is none"):
        local.cluster("up")
        local.enter()
    with step("images: operator, router, runtime"):
        local.cluster("images")
    images = local.images()
    with step("helm install llmfleet"):
        chart.install(images)
    with step("tiny models, made on the spot, on the claim 'models'"):
        if models.start(NAMESPACE, images.runtime):
            wait_for_models()
    with step(f"kubectl apply -f {QUICKSTART.relative_to(local.ROOT)}"):
        console.print("  " + kubectl("apply", "-f", str(QUICKSTART)).strip(), markup=False)
        wait_until_healthy(name)
    with step("a conversation through the router, with the openai client"):
        converse(name, served_name)
        speculation(name)
    with step("kubectl get llmdep"):
        console.print(kubectl("get", "llmdep", "-n", NAMESPACE).rstrip())
    next_steps(name, served_name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.demo", description=__doc__)
    parser.add_argument("command", choices=("up", "rollout", "down"))
    command = parser.parse_args().command
    if command == "down":
        local.cluster("down")
        return 0
    try:
        if command == "rollout":
            local.enter()
            rollout.run(console, "chat", NAMESPACE)
        else:
            up()
    except (KubectlError, NotInTimeError) as error:
        console.print(f"\n[red]The demo stopped:[/] {escape(str(error))}")
        console.print(
            'Look closer: eval "$(make -s cluster-env)"; '
            f"kubectl -n {NAMESPACE} describe llmdep; kubectl -n {NAMESPACE} get pods; "
            f"kubectl -n {chart.NAMESPACE} logs deployment/{chart.OPERATOR}"
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
