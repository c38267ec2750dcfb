"""Autoscaling and scale to zero: validated and stored now, acted on by a later version."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from llmfleet.api.values import (
    ATOMIC,
    SPARSE,
    Cel,
    DurationBetween,
    ResourceModel,
    list_map,
    parse_duration_seconds,
    rules,
)

Replicas = Annotated[int, Field(ge=0, le=1000)]


class MetricTarget(ResourceModel):
    """The value that autoscaling keeps a metric at."""

    average_value: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Mean per pod; for InFlightRequests."""
    p95_milliseconds: Annotated[int, Field(ge=1, le=3_600_000)] | None = None
    """95th percentile in milliseconds; for TTFT and TPOT."""


class ScalingMetric(ResourceModel):
    """One metric that asks for replicas; the largest answer counts."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "self.type != 'InFlightRequests'"
                " || (has(self.target.averageValue) && !has(self.target.p95Milliseconds))",
                "autoscaling metric InFlightRequests needs target.averageValue, and only that",
            ),
            Cel(
                "self.type == 'InFlightRequests'"
                " || (has(self.target.p95Milliseconds) && !has(self.target.averageValue))",
                "autoscaling metrics TTFT and TPOT need target.p95Milliseconds, and only that",
            ),
        )
    )

    type: Literal["InFlightRequests", "TTFT", "TPOT"]
    """InFlightRequests (running and waiting requests), TTFT (time to first token) or TPOT (time
    per output token)."""
    target: MetricTarget
    """Value to keep."""


class ScalingPolicy(ResourceModel):
    """Bound of one change, as in HPA v2."""

    type: Literal["Pods", "Percent"]
    """Unit of `value`."""
    value: Annotated[int, Field(ge=1, le=10000)]
    """Most that may change in the period."""
    period_seconds: Annotated[int, Field(ge=1, le=1800)]
    """Length of the period."""


class ScalingRules(ResourceModel):
    """Bounds of changes in one direction, as in HPA v2."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """Seconds of past recommendations that are looked at."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Which policy counts."""
    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=16), ATOMIC] = ()
    """Bounds."""


class ScalingBehavior(ResourceModel):
    """How fast replicas may change; words and meaning of HPA v2."""

    model_config = ConfigDict(json_schema_extra={SPARSE: True})

    scale_up: ScalingRules | None = None
    """Bounds when growing."""
    scale_down: ScalingRules | None = None
    """Bounds when shrinking."""


class Forecast(ResourceModel):
    """Scaling ahead of demand."""

    enabled: bool = True
    """Whether the forecast may ask for replicas."""


class Fallback(ResourceModel):
    """What holds while metrics are lost."""

    replicas: Replicas
    """Replicas while metrics are lost."""


class Autoscaling(ResourceModel):
    """Replicas follow demand."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "self.minReplicas <= self.maxReplicas",
                "autoscaling.minReplicas must not exceed autoscaling.maxReplicas",
            ),
            Cel(
                "self.metrics.exists(m, m.type == 'InFlightRequests')",
                "autoscaling.metrics needs InFlightRequests: a latency alone cannot say how many"
                " replicas would be enough",
            ),
        )
    )

    min_replicas: Replicas = 1
    """Fewest replicas; 0 = scale to zero."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Most replicas."""
    metrics: Annotated[
        tuple[ScalingMetric, ...], Field(min_length=1, max_length=8), list_map("type")
    ]
    """What demand is measured by; InFlightRequests is always one of them."""
    behavior: ScalingBehavior = Field(default_factory=ScalingBehavior)
    """How fast replicas may change."""
    forecast: Forecast = Field(default_factory=Forecast)
    """Scaling ahead of demand."""
    fallback: Fallback | None = None
    """What holds while metrics are lost; left out, the replicas there are."""


class ScaleToZero(ResourceModel):
    """What happens at minReplicas 0."""

    after: Annotated[str, DurationBetween("10s", "168h")] = "10m"
    """Time without a request after which the last replica goes."""
    hold_requests: Annotated[int, Field(ge=0, le=10000)] = 100
    """Requests a router holds while the first replica starts."""
    hold_timeout: Annotated[str, DurationBetween("1s", "1h")] = "5m"
    """Longest a request is held."""

    @property
    def after_seconds(self) -> int:
        """`after` in seconds."""
        return parse_duration_seconds(self.after)

    @property
    def hold_timeout_seconds(self) -> int:
        """`hold_timeout` in seconds."""
        return parse_duration_seconds(self.hold_timeout)
