"""``kubectl llmfleet``: commands, arguments and exit codes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text
from typer.core import TyperGroup

from llmfleet import __version__
from llmfleet.api.deployment import LLMDeployment
from llmfleet.cli import annotating, candidates, view
from llmfleet.cli.access import JSON, AccessError, Cluster, NotInstalledError
from llmfleet.cli.annotating import NothingToDoError
from llmfleet.cli.commands import Commands, hoist
from llmfleet.cli.doctor import showing
from llmfleet.cli.leading import Leadership
from llmfleet.cli.printing import (
    Output,
    Print,
    complain,
    complaints,
    console,
    draw,
    print_json,
    say,
)
from llmfleet.cli.view import NO_STATUS, exit_code

FAILED = 1
"""Exit code when nothing was shown or done; wrong usage is 2."""


class _Commands(TyperGroup):
    """Takes the options that stand before the command wherever they stand, as kubectl does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move them to the front."""
        return super().parse_args(ctx, hoist(args))


app = typer.Typer(
    name="kubectl llmfleet",
    cls=_Commands,
    help="Look at LLMDeployments and take part in their rollouts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Name = Annotated[
    str,
    typer.Argument(
        help="Name of the LLMDeployment.", show_default=False, autocompletion=candidates.names
    ),
]

MEANT = "Hash of the revision that is meant: refused if another one is being rolled out."


def _not_empty(value: str | None) -> str | None:
    """Empty is a script's variable that was never set, not the revision that is meant without."""
    if value is not None and not value.strip():
        raise typer.BadParameter("is empty: give a hash, or leave --revision out")
    return value


Step = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Of status.rollout.step: refused if another step is under way.",
        show_default=False,
    ),
]


def _revision(autocompletion: candidates.Complete, text: str = "Hash of the revision.") -> Any:
    return typer.Option(
        "--revision",
        help=text,
        callback=_not_empty,
        show_default=False,
        autocompletion=autocompletion,
    )


class _Options:
    """What stands before the command."""

    context: str | None = None
    namespace: str | None = None

    def cluster(self) -> Cluster:
        return Cluster(self.context, self.namespace)


_options = _Options()


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", show_default=False)] = None,
    context: Annotated[
        str | None, typer.Option(help="Of the kubeconfig.", show_default=False)
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Look at LLMDeployments and take part in their rollouts."""
    del version
    _options.namespace, _options.context = namespace, context


@app.command()
def get(
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces")] = False,
    output: Print = Output.TEXT,
) -> None:
    """List LLMDeployments: what is served, what is rolled out."""
    cluster = _options.cluster()
    items = cluster.list(everywhere=everywhere)
    if output is Output.JSON:
        print_json([{"metadata": _identity(each), "status": each.get("status")} for each in items])
    elif items:
        leading = cluster.leadership(everywhere=everywhere)
        if leading.problem is not None:
            complain(f"{leading.problem}: READY is what is seen now, all else is of then")
        table = view.fleet_table(items, _now(), everywhere=everywhere, leadership=leading)
        draw(table, whole=True)
    else:
        complaints.print("no LLMDeployments; -A looks into all namespaces")


@app.command()
def status(
    name: Name,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Until Ctrl-C.")] = False,
    output: Print = Output.TEXT,
) -> None:
    """Revisions, traffic, steps, problems and what comes next.

    Exit code: 0 Healthy, 10 Progressing, 11 Paused, 12 Degraded, 13 no status yet or no operator
    that keeps it, 14 clients that were served get no answer.
    """
    cluster = _options.cluster()
    if watch:
        raise typer.Exit(_follow(cluster, name, output))
    raw, deployment = cluster.get(name)
    leading = cluster.leadership()
    if output is Output.JSON:
        print_json(raw.get("status"))
    else:
        say(view.status_view(deployment, _now(), cluster.commands, leading))
    raise typer.Exit(exit_code(deployment, leading))


@app.command()
def explain(name: Name, output: Print = Output.TEXT) -> None:
    """Why it is as it is: every condition in its own words, and what was rejected."""
    raw, deployment = _options.cluster().get(name)
    if output is Output.JSON:
        _print_status(raw, "phase", "message", "conditions", "rejectedRevisions")
    else:
        draw(view.explanation(deployment))


@app.command()
def history(name: Name, output: Print = Output.TEXT) -> None:
    """The kept revisions, newest first, and the rejected ones."""
    raw, deployment = _options.cluster().get(name)
    if output is Output.JSON:
        _print_status(raw, "revisions", "rejectedRevisions")
    else:
        draw(view.history(deployment, _now()), whole=True)


@app.command()
def doctor(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Of an LLMDeployment to look at, too.",
            show_default=False,
            autocompletion=candidates.names,
        ),
    ] = None,
    output: Print = Output.TEXT,
) -> None:
    """What the installation lacks, and the chart value or command that mends it.

    Exit code: 0 all is there, 1 something is missing, 3 nothing is missing that could be looked at,
    121 the cluster could not be asked.
    """
    raise typer.Exit(showing.run(_options.cluster, name, output))


@app.command()
def promote(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="End all steps at once.")] = False,
    revision: Annotated[str | None, _revision(candidates.under_way, MEANT)] = None,
    step: Step = None,
    output: Print = Output.TEXT,
) -> None:
    """End the step under way; with --full, all of them."""
    _act(
        name,
        output,
        lambda deployment, commands: annotating.promote(
            deployment, _now(), revision=revision, step=step, full=full, commands=commands
        ),
    )


@app.command()
def abort(
    name: Name,
    revision: Annotated[str | None, _revision(candidates.under_way, MEANT)] = None,
    step: Step = None,
    output: Print = Output.TEXT,
) -> None:
    """Send all traffic back to stable and reject the revision being rolled out."""
    _act(
        name,
        output,
        lambda deployment, commands: annotating.abort(
            deployment, _now(), revision=revision, step=step, commands=commands
        ),
    )


@app.command()
def retry(
    name: Name,
    revision: Annotated[str | None, _revision(candidates.retryable)] = None,
    output: Print = Output.TEXT,
) -> None:
    """Roll a rejected or aborted revision out again."""
    _act(
        name, output, lambda deployment, _: annotating.retry(deployment, _now(), revision=revision)
    )


@app.command()
def undo(
    name: Name,
    revision: Annotated[str | None, _revision(candidates.kept)] = None,
    output: Print = Output.TEXT,
) -> None:
    """Serve a kept revision again, and reject the one that spec asks for."""
    _act(name, output, lambda deployment, _: annotating.undo(deployment, _now(), revision=revision))


@app.command()
def restart(name: Name, output: Print = Output.TEXT) -> None:
    """Replace the served revision's pods one by one; no new revision."""
    _act(
        name,
        output,
        lambda deployment, commands: annotating.restart(deployment, _now(), commands=commands),
    )


@app.command()
def pause(name: Name, output: Print = Output.TEXT) -> None:
    """Let nothing move until resume."""
    _act(name, output, lambda deployment, _: annotating.pause())


@app.command()
def resume(name: Name, output: Print = Output.TEXT) -> None:
    """Take a pause back."""
    _act(name, output, lambda deployment, _: annotating.resume(deployment))


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="Name of what was deleted.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what is remembered of a name: which revisions were rejected and which was good.

    For a name that will be used for something else; refused while its LLMDeployment is there.
    """
    cluster = _options.cluster()
    found: JSON | None = None
    with contextlib.suppress(NotInstalledError):  # what is remembered outlives the CRD
        found = cluster.find(name)
    annotating.check_forget(found, cluster.namespace, name, cluster.commands)
    if not yes:
        typer.confirm(f"Forget what was rejected of {cluster.namespace}/{name}?", abort=True)
    if not cluster.forget(name):
        raise NothingToDoError(f"nothing is remembered of {cluster.namespace}/{name}")
    say(f"{cluster.namespace}/{name} is forgotten")


def _act(
    name: str,
    output: Output,
    decide: Callable[[LLMDeployment, Commands], Mapping[str, str | None]],
) -> None:
    cluster = _options.cluster()
    raw, deployment = cluster.get(name)
    annotations = decide(deployment, cluster.commands)
    cluster.annotate(raw, annotations)
    if output is Output.JSON:
        print_json({"metadata": _identity(raw), "annotations": annotations})
        return
    for key, value in annotations.items():
        say(f"{key} {'removed' if value is None else f'= {value}'}")
    say(f"follow it: {cluster.commands.llmfleet('status', name, '--watch')}")


def _follow(cluster: Cluster, name: str, output: Output) -> int:
    code = NO_STATUS
    try:
        with _drawn(cluster, output) as draw:
            for seen in cluster.follow(name):
                if seen is None:
                    complaints.print(f"{name} was deleted", soft_wrap=True)
                    return FAILED
                leading = cluster.leadership()
                code = exit_code(seen[1], leading)
                draw(*seen, leading)
    except KeyboardInterrupt:
        return code
    return code


@contextlib.contextmanager
def _drawn(
    cluster: Cluster, output: Output
) -> Iterator[Callable[[JSON, LLMDeployment, Leadership], None]]:
    """What draws a state over the last one; as JSON or without a terminal, below it."""
    if output is Output.JSON:
        yield lambda raw, *_: print_json(raw.get("status"), indent=None)
        return
    if not console.is_terminal:
        yield lambda _, *seen: say(_status_of(cluster, *seen))
        return
    latest: deque[tuple[LLMDeployment, Leadership]] = deque(maxlen=1)

    def seen_now() -> RenderableType:
        """Called every second, so that times count on while nothing happens."""
        return _status_of(cluster, *latest[0]) if latest else Text("…")

    with Live(console=console, refresh_per_second=1, get_renderable=seen_now) as live:

        def draw(_: JSON, *seen: *tuple[LLMDeployment, Leadership]) -> None:
            latest.append(seen)
            live.refresh()

        yield draw


def _status_of(cluster: Cluster, deployment: LLMDeployment, leading: Leadership) -> RenderableType:
    return view.status_view(deployment, _now(), cluster.commands, leading)


def _print_status(raw: dict[str, Any], *fields: str) -> None:
    found = raw.get("status") or {}
    print_json({field: found.get(field) for field in fields})


def _identity(item: dict[str, Any]) -> dict[str, Any]:
    return {key: item["metadata"].get(key) for key in ("name", "namespace", "generation")}


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    """Run a command; a refusal is one sentence on stderr and exit code 1."""
    try:
        app()
    except (AccessError, NothingToDoError) as error:
        complain(f"kubectl llmfleet: {error}")
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
