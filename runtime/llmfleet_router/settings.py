"""What the router reads from its environment (docs/contract.md, Router)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Policy(StrEnum):
    """How a pod is picked inside one revision."""

    PREFIX_HASH = "PrefixHash"
    LEAST_REQUEST = "LeastRequest"
    ROUND_ROBIN = "RoundRobin"
    SESSION = "Session"


class AccessLog(StrEnum):
    """Which requests are written to stdout, one JSON line each."""

    OFF = "off"
    ERRORS = "errors"
    ALL = "all"


class SettingsError(ValueError):
    """The environment cannot be used; the message names the variable and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the agent, Envoy and its launcher depend on besides the traffic command."""

    namespace: str
    name: str
    pod_name: str = "router"
    pod_uid: str | None = None
    """Named in the state, so that whoever asks at an address that changed hands can tell."""
    policy: Policy = Policy.PREFIX_HASH
    prefix_bytes: int = 4096
    """Bytes of the body hashed by PrefixHash, 1 … 65536."""
    body_limit_bytes: int = 8 * 1024 * 1024
    drain_timeout_seconds: float = 600.0
    """From SIGTERM to the end of Envoy, at most."""
    first_token_timeout_seconds: float = 60.0
    """A request whose client leaves earlier, without a first token, says nothing of the engine."""
    endpoint_removal_seconds: float = 5.0
    """After SIGTERM, time for kube-proxy and clients to forget this pod before draining starts."""
    access_log: AccessLog = AccessLog.ERRORS
    concurrency: int = 1
    """Envoy's worker threads."""
    xds_dir: Path = Path("/var/run/llmfleet/xds")
    token_file: Path = Path("/var/run/llmfleet/token/token")
    module_file: Path = Path("/opt/llmfleet/lib/llmfleet_router.so")
    """Envoy's dynamic module, compiled from ``native/``."""
    bind_address: str = "0.0.0.0"  # noqa: S104 - the pod's public port is public on purpose
    http_port: int = 8080
    preview_port: int = 8081
    """The same API, answered by the revision that ``status.routing.preview`` names."""
    agent_port: int = 9090
    admin_port: int = 9901
    log_level: str = "info"

    @property
    def bootstrap_file(self) -> Path:
        """What Envoy is started with; the engine token is in it."""
        return self.xds_dir / "bootstrap.json"

    @property
    def launch_file(self) -> Path:
        """What Envoy's launcher tells the agent (launch.py)."""
        return self.xds_dir / "launch.json"

    @property
    def counters_file(self) -> Path:
        """What Envoy has forgotten of its counters (counters.py)."""
        return self.xds_dir / "counters.json"

    @property
    def ledger_file(self) -> Path:
        """Where Envoy's module books requests, and the agent reads them."""
        return self.xds_dir / "ledger"


def read_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings from the environment.

    Raises:
        SettingsError: a variable is missing or has a value outside its range.
    """
    env = os.environ if env is None else env
    return Settings(
        namespace=_required(env, "LLMFLEET_NAMESPACE"),
        name=_required(env, "LLMFLEET_NAME"),
        pod_name=env.get("LLMFLEET_POD_NAME") or os.uname().nodename,
        pod_uid=env.get("LLMFLEET_POD_UID") or None,
        policy=Policy(_choice(env, "LLMFLEET_POLICY", Policy, Policy.PREFIX_HASH)),
        prefix_bytes=int(_number(env, "LLMFLEET_PREFIX_BYTES", 4096, 1, 65536)),
        body_limit_bytes=int(
            _number(env, "LLMFLEET_BODY_LIMIT_BYTES", 8 * 1024 * 1024, 1024, 1 << 30)
        ),
        drain_timeout_seconds=_number(env, "LLMFLEET_DRAIN_TIMEOUT_SECONDS", 600, 0, 86400),
        first_token_timeout_seconds=_number(
            env, "LLMFLEET_FIRST_TOKEN_TIMEOUT_SECONDS", 60, 1, 3600
        ),
        endpoint_removal_seconds=_number(env, "LLMFLEET_ENDPOINT_REMOVAL_SECONDS", 5, 0, 60),
        access_log=AccessLog(_choice(env, "LLMFLEET_ACCESS_LOG", AccessLog, AccessLog.ERRORS)),
        concurrency=int(_number(env, "LLMFLEET_ENVOY_CONCURRENCY", default_concurrency(), 1, 256)),
        xds_dir=Path(env.get("LLMFLEET_XDS_DIR", "/var/run/llmfleet/xds")),
        token_file=Path(env.get("LLMFLEET_TOKEN_FILE", "/var/run/llmfleet/token/token")),
        module_file=Path(env.get("LLMFLEET_MODULE_FILE") or "/opt/llmfleet/lib/llmfleet_router.so"),
        bind_address=env.get("LLMFLEET_BIND_ADDRESS", "0.0.0.0"),  # noqa: S104 - as above
        http_port=int(_number(env, "LLMFLEET_HTTP_PORT", 8080, 1, 65535)),
        preview_port=int(_number(env, "LLMFLEET_PREVIEW_PORT", 8081, 1, 65535)),
        agent_port=int(_number(env, "LLMFLEET_AGENT_PORT", 9090, 1, 65535)),
        admin_port=int(_number(env, "LLMFLEET_ADMIN_PORT", 9901, 1, 65535)),
        log_level=_choice(env, "LLMFLEET_LOG_LEVEL", ("debug", "info", "warning", "error"), "info"),
    )


def default_concurrency(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Worker threads for the CPU this container may use: its cgroup v2 quota, else all it sees."""
    visible = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(visible, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return visible


def _required(env: Mapping[str, str], key: str) -> str:
    value = env.get(key, "")
    if not value:
        raise SettingsError(f"{key} is not set: set it to the LLMDeployment's namespace or name.")
    return value


def _choice(env: Mapping[str, str], key: str, allowed: object, default: str) -> str:
    values = [str(v) for v in allowed]  # type: ignore[attr-defined]  # an enum class or a tuple
    value = env.get(key) or str(default)
    if value not in values:
        raise SettingsError(f"{key} is {value!r}: set it to one of {', '.join(values)}.")
    return value


def _number(env: Mapping[str, str], key: str, default: float, low: float, high: float) -> float:
    raw = env.get(key) or str(default)
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise SettingsError(f"{key} is {raw!r}: set it to a number from {low} to {high}.")
    return value
