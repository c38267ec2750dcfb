"""PID 1 of an engine pod: fetch, start vLLM, say how it is, drain, and say why it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import structlog

from llmfleet_runtime import machine, termination
from llmfleet_runtime.activity import Activity
from llmfleet_runtime.child import Child, become_subreaper, reap_orphans
from llmfleet_runtime.config import RuntimeConfig, load_config
from llmfleet_runtime.downloads import DownloadMeter
from llmfleet_runtime.drain import DrainAct, DrainPolicy, DrainState, decide_drain
from llmfleet_runtime.engine_api import EngineApi, EngineHealth
from llmfleet_runtime.engine_args import Facts
from llmfleet_runtime.errors import ExitCode, Failure, Reason
from llmfleet_runtime.health import HealthServer, Phase, PodState
from llmfleet_runtime.launch import Launch, Machine, build_launch
from llmfleet_runtime.metrics import PodMetrics
from llmfleet_runtime.settings import PluginSettings
from llmfleet_runtime.sources import cache_folder, fetch

log = structlog.get_logger("llmfleet_runtime")

DEAD_ENGINE_GRACE_SECONDS = 15.0
"""vLLM ends by itself within 5 s of its engine's death; after this it is ended."""
_POLL_SECONDS = 1.0
_MEASURE_SECONDS = 2.0
_LOADING_POLL_SECONDS = 0.25
_DRAIN_POLL_SECONDS = 0.1
_END_SECONDS = 2.0
"""Between a request that broke off and the end of the engine that broke it off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Files and ports, all from docs/contract.md; tests move them."""

    config: Path
    models_root: Path
    token_file: Path
    termination_log: Path
    chat_template_dir: Path
    host: str
    http_port: int
    health_port: int


class Supervisor:
    """One life of an engine pod."""

    def __init__(
        self,
        config: RuntimeConfig,
        paths: Paths,
        make_launch: Callable[..., Launch] = build_launch,
    ) -> None:
        self._config = config
        self._paths = paths
        self._make_launch = make_launch
        self._device = machine.detect_device(os.environ)
        self._state = PodState()
        self._downloads = DownloadMeter(cache_folder(os.environ))
        self._stop = asyncio.Event()
        self._child: Child | None = None
        self._oom_kills_before = machine.oom_kills()
        self._was_ready = False
        self._metrics = PodMetrics(
            revision=config.revision, version=machine.engine_version(), device=self._device.value
        )
        self._key = secrets.token_urlsafe(32)
        self._api = EngineApi(paths.http_port, self._key, config.model.served_name)
        self._scratch = tempfile.TemporaryDirectory(prefix="llmfleet-")
        activity_file = Path(self._scratch.name) / "activity"
        self._activity = Activity(activity_file, create=True)
        self._token_file = str(paths.token_file) if paths.token_file.exists() else None
        self._settings = PluginSettings(
            revision=config.revision,
            served_names=(
                *config.model.names,
                *(adapter.name for adapter in config.engine.lora.adapters),
            ),
            token_file=self._token_file,
            loopback_key=self._key,
            activity_file=str(activity_file),
            priority_scheduling=config.engine.scheduling_policy == "priority",
            media_domains=config.engine.media.allowed_domains,
        )

    async def run(self) -> ExitCode:
        """Lives until SIGTERM or the engine's end.

        Raises:
            Failure: why the pod cannot serve; the caller writes the termination message.
        """
        become_subreaper()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server = HealthServer(self._state, self._api, self._metrics, self._device, self._downloads)
        async with self._api:
            await server.start(self._paths.host, self._paths.health_port)
            reaper = asyncio.create_task(self._reap())
            try:
                return await self._live()
            finally:
                self._state.phase = Phase.ENDED
                reaper.cancel()
                if self._child is not None:
                    await self._child.close()
                await server.stop()
                self._scratch.cleanup()

    async def _live(self) -> ExitCode:
        measuring = asyncio.create_task(self._measure())
        try:
            facts = await self._until_stopped(in_daemon_thread(self._fetch))
        finally:
            measuring.cancel()
        if facts is None:
            return ExitCode.OK
        launch = self._launch(facts)
        log.info("engine_starting", command=" ".join(launch.command[1:]))
        self._state.phase = Phase.LOADING
        self._child = await Child.start(launch)
        ended = asyncio.create_task(self._child.wait())
        serving = asyncio.create_task(self._serve())
        try:
            await asyncio.wait({ended, serving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done() and serving.exception() is not None:
                # What broke a request off may be the engine's end, which says more.
                await asyncio.wait({ended}, timeout=_END_SECONDS)
            if not ended.done():
                await serving  # raises what it found, or returns once drained
                return ExitCode.OK
        finally:
            for task in (serving, ended):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await serving
        if self._stop.is_set() and self._state.phase is not Phase.SERVING:
            return ExitCode.OK
        raise await self._explain(ended.result())

    async def _until_stopped(self, work: Awaitable[Any]) -> Any:
        """The work's result, or None as soon as SIGTERM comes."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        return None

    async def _measure(self) -> None:
        """Follows what is being downloaded."""
        while True:
            await asyncio.sleep(_MEASURE_SECONDS)
            await asyncio.to_thread(self._downloads.sample)

    def _fetch(self) -> Facts:
        """Fetches every source; blocking.

        Raises:
            Failure: exit code 3, see ``sources.fetch``.
        """
        engine = self._config.engine
        get = partial(
            fetch,
            models_root=self._paths.models_root,
            environment=os.environ,
            meter=self._downloads,
        )
        log.info("fetching", source=self._config.model.source)
        model = get(self._config.model)
        draft: str | None = None
        if engine.speculative_decoding and engine.speculative_decoding.draft_model.source:
            wanted = engine.speculative_decoding.draft_model
            weights = self._config.model.model_copy(
                update={"source": wanted.source, "revision": wanted.revision}
            )
            draft = str(get(weights))
        adapters = tuple(
            str(get(adapter, required_file="adapter_config.json"))
            for adapter in engine.lora.adapters
        )
        return Facts(
            device=self._device,
            accelerators=None,
            model_path=str(model),
            draft_path=draft,
            adapter_paths=adapters,
            chat_template_path=self._chat_template(),
            has_suffix_decoding=find_spec("arctic_inference") is not None,
            has_cxx_compiler=machine.has_cxx_compiler(os.environ),
        )

    def _chat_template(self) -> str | None:
        wanted = self._config.engine.chat_template.config_map_ref
        if wanted is None:
            return None
        path = self._paths.chat_template_dir / wanted.key
        if not path.is_file():
            raise Failure(
                Reason.BAD_CONFIG,
                f"engine.chatTemplate: ConfigMap {wanted.name} has no key {wanted.key}",
                exit_code=ExitCode.ENGINE,
            )
        return str(path)

    def _launch(self, facts: Facts) -> Launch:
        policy = DrainPolicy(timeout=self._config.drain_timeout_seconds)
        return self._make_launch(
            self._config,
            facts,
            Machine(
                device=self._device,
                memory_limit_bytes=machine.memory_limit_bytes(),
                cpus=machine.cpu_count(),
            ),
            http_port=self._paths.http_port,
            host=self._paths.host,
            shutdown_timeout=policy.engine_shutdown_timeout,
            plugin_environment=self._settings.to_environment(),
            environment=os.environ,
        )

    async def _serve(self) -> None:
        """From the engine's start to the end of a drain.

        Raises:
            Failure: the engine is up but unusable.
        """
        begun = time.monotonic()
        if not await self._become_ready():
            await self._stop_engine(grace_seconds=2.0)
            return
        log.info("ready", seconds=round(time.monotonic() - begun, 1))
        await self._watch_engine()
        await self._drain()

    async def _become_ready(self) -> bool:
        """Waits for the engine, proves the guard, warms up; False when stopped meanwhile."""
        while await self._api.health(timeout_seconds=2.0) is not EngineHealth.UP:
            if await self._stopped_within(_LOADING_POLL_SECONDS):
                return False
        self._state.engine = EngineHealth.UP
        done = await self._until_stopped(self._prove_and_warm_up())
        if done is None:
            return False
        self._was_ready = True
        self._state.phase = Phase.SERVING
        return True

    async def _prove_and_warm_up(self) -> bool:
        await self._api.prove_guarded(token_required=self._token_file is not None)
        warmed = await self._api.warm_up()
        if not warmed.ok:
            raise Failure(
                Reason.ENGINE_ERROR, f"the engine started but cannot generate: {warmed.detail}"
            )
        return True

    async def _watch_engine(self) -> None:
        """Follows the engine's health until SIGTERM; ends an engine that stays dead."""
        dead_since: float | None = None
        while not await self._stopped_within(_POLL_SECONDS):
            self._state.engine = await self._api.health()
            if self._state.engine is not EngineHealth.DEAD:
                dead_since = None
                continue
            self._activity.stop()
            dead_since = dead_since or time.monotonic()
            if time.monotonic() - dead_since > DEAD_ENGINE_GRACE_SECONDS and self._child:
                self._child.kill_group()

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    async def _drain(self) -> None:
        """Serves until all is quiet, then ends the engine (see ``drain``)."""
        self._state.phase = Phase.DRAINING
        policy = DrainPolicy(timeout=self._config.drain_timeout_seconds)
        started = last_arrival = time.monotonic()
        arrived = self._activity.arrived
        log.info("draining", in_flight=self._activity.in_flight, timeout_seconds=policy.timeout)
        while True:
            now = time.monotonic()
            if self._activity.arrived != arrived:
                arrived, last_arrival = self._activity.arrived, now
            state = DrainState(
                started=started, last_arrival=last_arrival, in_flight=self._activity.in_flight
            )
            if decide_drain(policy, state, now) is DrainAct.STOP_ENGINE:
                break
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        log.info(
            "engine_stopping", seconds=round(now - started, 1), in_flight=self._activity.in_flight
        )
        await self._stop_engine(grace_seconds=started + policy.timeout - time.monotonic() - 0.5)

    async def _stop_engine(self, *, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL when the grace is over."""
        self._activity.stop()
        if self._child is None:
            return
        self._child.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), max(0.5, grace_seconds))
        self._child.kill_group()

    async def _explain(self, return_code: int) -> Failure:
        self._state.phase = Phase.ENDED
        lines = await self._child.last_lines() if self._child is not None else []
        return termination.describe_termination(
            lines,
            return_code,
            oom_killed=machine.oom_kills() > self._oom_kills_before,
            was_ready=self._was_ready,
        )

    async def _reap(self) -> None:
        while True:
            reap_orphans(self._child.pid if self._child is not None else None)
            await asyncio.sleep(_POLL_SECONDS)


def in_daemon_thread(function: Callable[[], Any]) -> Awaitable[Any]:
    """Runs a blocking function without keeping the process alive for it.

    A download cannot be interrupted; with an executor's thread the pod would wait for it at exit.
    """
    future: Future[Any] = Future()

    def work() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # carried over to the waiting task
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=work, daemon=True, name="fetch").start()
    return asyncio.wrap_future(future)


def run(paths: Paths, make_launch: Callable[..., Launch] = build_launch) -> ExitCode:
    """Runs a pod's whole life; writes the termination message when it fails.

    ``make_launch`` is there for tests that supervise another process than vLLM.
    """
    try:
        config, unknown = load_config(paths.config)
        if unknown:
            log.warning("unknown_config_keys", keys=list(unknown))
        return _run(Supervisor(config, paths, make_launch).run())
    except Failure as failure:
        termination.write(failure, paths.termination_log)
        # A traceback of ours would say nothing: the message is the cause.
        log.warning("failed", reason=failure.reason.value, message=failure.message)
        return failure.exit_code


def _run(life: Coroutine[Any, Any, ExitCode]) -> ExitCode:
    try:
        return asyncio.run(life)
    except OSError as error:
        raise Failure(Reason.ENGINE_ERROR, f"the runtime could not start: {error}") from error
