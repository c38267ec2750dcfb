"""What the supervisor tells the plugins inside vLLM's process, in one environment variable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from llmfleet_runtime.media import MediaPolicy

ENVIRONMENT_NAME = "LLMFLEET_PLUGIN_SETTINGS"
_ADDRESS_NAMES = ("LLMFLEET_POD_IP", "KUBERNETES_SERVICE_HOST")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """Settings of middleware, endpoint plugin and stat logger."""

    revision: str
    served_names: tuple[str, ...]
    """Model names clients may send, adapters included; any other is the label ``unknown``."""
    token_file: str | None
    """File with the router's token; None = no check (local use)."""
    loopback_key: str
    """Random key of this process's life, known to supervisor and plugins only: it opens /health
    and /metrics of vLLM's port, and its requests are not counted as traffic."""
    activity_file: str
    """Shared counters, see ``activity``."""
    priority_scheduling: bool
    """Whether the engine orders by priority; it refuses priorities otherwise."""
    media_domains: tuple[str, ...] = ()
    """``engine.media.allowedDomains``, verbatim."""

    def media_policy(self) -> MediaPolicy:
        """From where media may be fetched; knows the cluster's addresses that a pod is told."""
        told = (os.environ.get(name, "") for name in _ADDRESS_NAMES)
        return MediaPolicy.from_entries(self.media_domains, filter(None, told))

    def to_environment(self) -> dict[str, str]:
        """Environment for vLLM's process."""
        return {ENVIRONMENT_NAME: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> PluginSettings:
        """Reads them back.

        Raises:
            RuntimeError: not started by the supervisor.
        """
        raw = os.environ.get(ENVIRONMENT_NAME)
        if raw is None:
            raise RuntimeError(f"{ENVIRONMENT_NAME} is not set: start python -m llmfleet_runtime")
        values = json.loads(raw)
        for name in ("served_names", "media_domains"):
            values[name] = tuple(values[name])
        return cls(**values)
