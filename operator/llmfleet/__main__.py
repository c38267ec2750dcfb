"""``python -m llmfleet``: the operator process."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes its time to be imported
    import llmfleet.stoppable  # noqa: F401

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
import uvloop

from llmfleet import __version__
from llmfleet.api import clean_line, clean_text
from llmfleet.cluster.applying import Applier
from llmfleet.cluster.caches import Caches
from llmfleet.cluster.client import ApiClient, load_configuration
from llmfleet.cluster.crd_check import CrdCheck
from llmfleet.cluster.environment import VARIABLES, Environment, read_environment
from llmfleet.cluster.event_recorder import EventRecorder
from llmfleet.cluster.inspecting import PodInspector
from llmfleet.cluster.lease import LeaseKeeper
from llmfleet.cluster.ledger import LedgerPoller
from llmfleet.cluster.notifying import Notifier
from llmfleet.cluster.observing import Observer
from llmfleet.cluster.probes import ProbeServer
from llmfleet.cluster.recording import Recorder
from llmfleet.cluster.routers import RouterPoller
from llmfleet.cluster.signals_page import SignalsPage
from llmfleet.cluster.store import Owner
from llmfleet.cluster.transitions import Transitions
from llmfleet.handlers import Watch
from llmfleet.planning.decide import decide
from llmfleet.reconcile import Reconciler
from llmfleet.tasks import Tasks

USAGE_ERROR: Final = 2
GARBAGE_THRESHOLD: Final = 20_000
"""Containers made before garbage is looked for. With the default of 700 (700), half of the time
that a list of thousands of objects takes goes into looking through what was just read."""

TRACEBACK: Final = "exception"
"""Where structlog puts one."""

log: Any = structlog.get_logger("llmfleet")


def main(arguments: list[str] | None = None) -> int:
    """Run the operator; returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m llmfleet",
        description=f"The llmfleet operator {__version__}. It is configured by its environment:",
        epilog="\n".join(f"  {name:30} {text}" for name, text in VARIABLES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args(arguments)
    try:
        environment = read_environment(os.environ)
    except ValueError as error:
        sys.stderr.write(f"llmfleet: {error}\n")
        return USAGE_ERROR
    configure_logging(environment)
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        uvloop.run(run(environment))
    except (RuntimeError, OSError) as error:
        log.error("cannot run", error=str(error))  # noqa: TRY400 - a sentence, no traceback
        return 1
    return 0


async def run(environment: Environment) -> None:
    """Serve probes, wait for the CRD and the lease, then reconcile until SIGTERM.

    Raises:
        RuntimeError: no access to a cluster.
        OSError: the metrics port is taken.
    """
    asyncio.get_running_loop().set_exception_handler(tell_loop_error)
    probes = ProbeServer(environment.metrics_host, environment.metrics_port)
    await probes.start()
    configuration = await load_configuration()
    election_api = ApiClient(configuration)
    lease = LeaseKeeper(election_api, environment.namespace, environment.identity)
    stop = asyncio.Event()

    def take_signals() -> None:
        # kopf takes them for itself whenever it starts; what it ends on them is only itself.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    take_signals()
    leading = asyncio.create_task(_lead(environment, configuration, lease, probes, take_signals))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not leading.done():
            leading.cancel()
        await asyncio.gather(leading, return_exceptions=not leading.done())
    finally:
        stopping.cancel()
        await lease.release()
        await election_api.close()
        await probes.stop()


async def _lead(
    environment: Environment,
    configuration: Any,
    lease: LeaseKeeper,
    probes: ProbeServer,
    take_signals: Callable[[], None],
) -> None:
    tasks: Tasks | None = None

    def wake(owner: Owner, *, batch: bool = False) -> None:
        if tasks is not None:
            tasks.wake(owner, batch=batch)

    def crd_changed() -> None:
        if tasks is not None:
            recorder.schema = crd.status_schema
            tasks.wake_all()

    election = environment.leader_election
    api = ApiClient(configuration, may_write=lease.valid if election else lambda: True)
    crd = CrdCheck(api, environment.settings, crd_changed)
    probes.ready.append(crd.problem)
    caches = Caches(api, environment.watch_namespaces, partial(wake, batch=True))
    routers = RouterPoller(wake)
    ledger = LedgerPoller(partial(wake, batch=True))
    inspector = PodInspector(api, partial(wake, batch=True))
    observer = Observer(api, caches, routers, ledger, inspector, crd)
    signals = SignalsPage(environment, caches)
    notifier = Notifier(environment.notify_url)
    events = EventRecorder(api, environment.pod_name)
    transitions = Transitions(events, notifier)
    recorder = Recorder(api, transitions)
    applier = Applier(api, caches, observer, recorder, transitions)
    try:
        await crd.start()
        recorder.schema = crd.status_schema
        if election:
            await lease.acquire()
        probes.ready.append(caches.problem)
        caches.start()
        ledger.start()
        await caches.wait_synced()
        probes.signals = signals.answer
        tasks = Tasks(Reconciler(observer, applier, decide))
        probes.alive.append(tasks.problem)
        watch = Watch(tasks, api, environment.watch_namespaces)
        probes.ready.append(watch.problem)
        await watch.run(take_signals)
    finally:
        signals.close()
        await caches.stop()
        await crd.stop()
        await observer.close()
        await notifier.close()
        await events.close()
        await api.close()


def tell_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exception handler of the event loop: a connection's end is not an error of the operator.

    What a transport meets outside of any call (uvloop reports bytes that arrive on a TLS connection
    being closed as ``RuntimeError``) has no caller to be raised in, and whoever used the connection
    is told by its own call. Everything else is logged as asyncio does it, with its traceback.
    """
    error = context.get("exception")
    if "transport" in context and isinstance(error, RuntimeError | OSError):
        log.debug("a connection broke off", what=context.get("message"), error=str(error))
        return
    loop.default_exception_handler(context)


def one_line(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Processor for logs as text: no word of others begins a line or drives a terminal.

    A traceback keeps its lines, each behind a bar.
    """
    cleaned = {
        key: clean_line(value) if isinstance(value, str) else value for key, value in event.items()
    }
    if isinstance(event.get(TRACEBACK), str):
        lines = clean_text(event[TRACEBACK]).splitlines()
        cleaned[TRACEBACK] = "\n".join(f"| {line}" for line in lines)
    return cleaned


def configure_logging(environment: Environment) -> None:
    """Structured logs on stderr, kopf's and ours in the same shape."""
    level = getattr(logging, environment.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if environment.log_format == "json"
        else [one_line, structlog.dev.ConsoleRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *rendering,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(max(level, logging.WARNING))
    for noisy in ("aiohttp", "asyncio", "kubernetes"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # The interpreter would free what is known of thousands of resources one by one; a pod that
    # restarts waits for that.
    os._exit(status)
