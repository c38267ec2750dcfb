"""Names and labels of the runtime's own metrics (docs/contract.md). Label sets are bounded."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0,
)  # fmt: skip
OTHER_MODEL = "unknown"
"""Label of every model name this pod does not serve: clients must not be able to add labels."""


class RequestMetrics:
    """Counted inside vLLM's process, shown on its /metrics."""

    def __init__(self, revision: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._revision = revision
        self._requests = Counter(
            "llm_requests",
            "Requests answered, by HTTP status; 499 = the client went away.",
            ["model", "status", "revision"],
            registry=registry,
        )
        self._duration = Histogram(
            "llm_request_duration_seconds",
            "From arrival to the last byte of the answer.",
            ["model", "operation", "revision"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=registry,
        )

    def observe(self, *, model: str, operation: str, status: int, seconds: float) -> None:
        """Counts one answered request."""
        self._requests.labels(model=model, status=str(status), revision=self._revision).inc()
        self._duration.labels(model=model, operation=operation, revision=self._revision).observe(
            seconds
        )


class TokenMetrics:
    """Tokens of finished requests; the stat logger counts them."""

    def __init__(self, revision: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._revision = revision
        self._tokens = Counter(
            "llm_tokens",
            "Tokens of finished requests.",
            ["model", "type", "revision"],
            registry=registry,
        )

    def add(self, *, model: str, input_tokens: int, output_tokens: int) -> None:
        """Counts one finished request."""
        labels = {"model": model, "revision": self._revision}
        self._tokens.labels(type="input", **labels).inc(input_tokens)
        self._tokens.labels(type="output", **labels).inc(output_tokens)


class PodMetrics:
    """The supervisor's own, there from process start."""

    def __init__(self, *, revision: str, version: str, device: str) -> None:
        self.registry = CollectorRegistry()
        self._revision = revision
        info = Gauge(
            "llmfleet_runtime_info",
            "Always 1; says what runs.",
            ["revision", "version", "device"],
            registry=self.registry,
        )
        info.labels(revision=revision, version=version, device=device).set(1)
        self._memory = Gauge(
            "llm_memory_usage_bytes",
            "Memory in use: of the container (and its limit), and of all its GPUs.",
            ["type", "revision"],
            registry=self.registry,
        )
        self._utilization = Gauge(
            "llm_gpu_utilization_percent",
            "GPU utilisation; absent without a GPU.",
            ["device_id", "revision"],
            registry=self.registry,
        )
        self._ready = Gauge(
            "llmfleet_runtime_ready", "1 while /ready is 200.", registry=self.registry
        )

    def set_memory(self, kind: str, value: int | None) -> None:
        """Sets one memory gauge; None leaves it absent."""
        if value is not None:
            self._memory.labels(type=kind, revision=self._revision).set(value)

    def set_utilization(self, device_id: str, percent: float) -> None:
        """Sets one GPU's utilisation."""
        self._utilization.labels(device_id=device_id, revision=self._revision).set(percent)

    def set_ready(self, ready: bool) -> None:
        """Shows readiness."""
        self._ready.set(1 if ready else 0)
