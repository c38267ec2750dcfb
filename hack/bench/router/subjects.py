"""The routers that are compared: each with one worker on one core, in front of the same engines."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.bench.router import tools
from hack.bench.router.load import ROUTER_CORE, on_core, pin, process
from hack.controlplane.apiserver import free_ports
from hack.processes.agent import RunningRouter, running_router
from llmfleet_router.envoy import find_envoy
from llmfleet_router.model import Command, Endpoint
from llmfleet_router.settings import AccessLog, Policy

JSON = dict[str, Any]
START_SECONDS = 90.0
OURS, DIRECT = "llmfleet", "direct"
"""What the others are compared with: without one of them nothing is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A running router."""

    port: int
    pid: int | None
    """Its process; None: the engines themselves."""


Start = Callable[[Path, list[int]], AbstractAsyncContextManager[Subject]]


@asynccontextmanager
async def direct(_: Path, engines: list[int]) -> AsyncIterator[Subject]:
    """No router."""
    yield Subject(port=engines[0], pid=None)


@asynccontextmanager
async def ours(folder: Path, engines: list[int]) -> AsyncIterator[Subject]:
    """The router as it is deployed: all checks, PrefixHash, log of errors, two revisions."""
    async with serving(folder, {"a": engines[::2], "b": engines[1::2]}) as router:
        yield router[0]


@asynccontextmanager
async def serving(
    folder: Path, revisions: dict[str, list[int]], policy: Policy = Policy.PREFIX_HASH
) -> AsyncIterator[tuple[Subject, RunningRouter]]:
    """Our router with equal weights on the revisions."""
    _make(folder)
    async with AsyncExitStack() as stack:
        with _silent():  # Envoy inherits our output: a cut stream is a line of its log
            starting = running_router(folder, policy=policy, access_log=AccessLog.ERRORS)
            router = await stack.enter_async_context(starting)
        router.agent.store.set_endpoints({
            name: tuple(Endpoint(address="127.0.0.1", port=port) for port in ports)
            for name, ports in revisions.items()
        })  # fmt: skip
        share = 100 // len(revisions)
        weights = tuple((name, share) for name in revisions)
        router.agent.store.set_command(Command(generation=1, weights=weights))
        await router.confirmed(1)
        pid = router.launcher.envoy.pid
        pin(pid, ROUTER_CORE)
        yield Subject(port=router.agent.settings.http_port, pid=pid), router


def envoy_config(port: int, revisions: list[list[int]], lb_policy: str = "ROUND_ROBIN") -> JSON:
    """The least Envoy needs for weighted clusters: no checks, no log, nothing buffered."""
    base = "type.googleapis.com/envoy.extensions.filters"

    def cluster(name: str, engines: list[int]) -> JSON:
        endpoints = [{"endpoint": {"address": _address(engine)}} for engine in engines]
        return {
            "name": name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": lb_policy,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        }  # fmt: skip

    names = [f"r{i}" for i in range(len(revisions))]
    split = {"clusters": [{"name": name, "weight": 100 // len(names)} for name in names]}
    routes = [{"match": {"prefix": "/"}, "route": {"weighted_clusters": split, "timeout": "0s"}}]
    manager = {
        "@type": f"{base}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "route_config": {
            "name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{base}.http.router.v3.Router"}}
        ],
    }  # fmt: skip
    listener = {
        "name": "l", "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }  # fmt: skip
    clusters = [cluster(*pair) for pair in zip(names, revisions, strict=True)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@asynccontextmanager
async def plain_envoy(
    folder: Path, engines: list[int], lb_policy: str = "ROUND_ROBIN", *, split: bool = True
) -> AsyncIterator[Subject]:
    """Envoy with weighted clusters and nothing else."""
    (port,) = free_ports(1)
    _make(folder)
    revisions = [engines[::2], engines[1::2]] if split else [engines]
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, revisions, lb_policy)))
    command = [find_envoy(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    async with _started(command, port) as subject:
        yield subject


@asynccontextmanager
async def nginx(folder: Path, engines: list[int]) -> AsyncIterator[Subject]:
    """nginx: one worker, keep-alive to the engines, bodies in memory, answers not buffered."""
    (port,) = free_ports(1)
    _make(folder)
    servers = "".join(f"server 127.0.0.1:{engine};" for engine in engines)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/log;"
        "events { worker_connections 4096; } http { access_log off; keepalive_requests 1000000;"
        f"client_max_body_size 8m; client_body_buffer_size 512k; {temporary}"
        f"upstream engines {{ {servers} keepalive 256; keepalive_requests 1000000; }}"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://engines;"
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    async with _started([tools.nginx(), "-c", str(config), "-p", str(folder)], port) as subject:
        yield subject


def _urls(engines: list[int]) -> list[str]:
    return [f"http://127.0.0.1:{engine}" for engine in engines]


def vllm_router(policy: str) -> Start:
    """vllm-router of PyPI (Rust), with a policy."""

    @asynccontextmanager
    async def start(_: Path, engines: list[int]) -> AsyncIterator[Subject]:
        port, metrics = free_ports(2)
        program = str(tools.rival("vllm-router") / "vllm-router")
        command = [program, "--host", "127.0.0.1", "--port", str(port), "--policy", policy]
        command += ["--prometheus-port", str(metrics), "--worker-urls", *_urls(engines)]
        async with _started(command, port) as subject:
            yield subject

    return start


@asynccontextmanager
async def smg(_: Path, engines: list[int]) -> AsyncIterator[Subject]:
    """Shepherd Model Gateway of PyPI (Rust), cache-aware."""
    port, metrics = free_ports(2)
    command = [str(tools.rival("smg") / "smg"), "launch", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--policy", "cache_aware", "--prometheus-port", str(metrics)]
    command += ["--worker-urls", *_urls(engines)]
    async with _started(command, port) as subject:
        yield subject


@asynccontextmanager
async def litellm(folder: Path, engines: list[int]) -> AsyncIterator[Subject]:
    """LiteLLM's proxy (Python), one worker, shuffling between the engines."""
    (port,) = free_ports(1)
    _make(folder)
    models = [
        {"model_name": "m",
         "litellm_params": {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "none"}}
        for url in _urls(engines)
    ]  # fmt: skip
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({"model_list": models}))
    command = [str(tools.rival("litellm") / "litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # Its table of prices otherwise comes from the Internet; and no key, as with the others.
    async with _started(
        command, port, LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
    ) as subject:  # fmt: skip
        yield subject


@asynccontextmanager
async def _started(command: list[str], port: int, **options: str) -> AsyncIterator[Subject]:
    with process(on_core(ROUTER_CORE, command), options=options) as running:
        deadline = time.monotonic() + START_SECONDS
        while not await asyncio.to_thread(_answers, port):
            if running.poll() is not None or time.monotonic() > deadline:
                raise tools.AbsentError(f"{Path(command[0]).name} did not come to answer a request")
            await asyncio.sleep(0.2)
        yield Subject(port=port, pid=running.pid)


def _answers(port: int) -> bool:
    body = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=body, headers={"content-type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


@contextmanager
def _silent() -> Iterator[None]:
    """Children started meanwhile write to nowhere."""
    kept = {number: os.dup(number) for number in (1, 2)}
    with Path(os.devnull).open("wb") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _address(port: int) -> JSON:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


SUBJECTS: dict[str, Start] = {
    "direct": direct,
    "llmfleet": ours,
    "envoy": plain_envoy,
    "nginx": nginx,
    "vllm-router-rr": vllm_router("round_robin"),
    "vllm-router": vllm_router("cache_aware"),
    "smg": smg,
    "litellm": litellm,
}
