"""How a changed spec becomes the served revision, and the watch kept on it afterwards."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from llmfleet.api.values import (
    ATOMIC,
    Cel,
    DurationBetween,
    MaxSurge,
    Percent,
    ResourceModel,
    list_map,
    parse_duration_seconds,
    parse_percent,
    rules,
)


class Pause(ResourceModel):
    """Waits, for a time or for a person."""

    duration: Annotated[str, DurationBetween("1s", "720h")] | None = None
    """How long; left out, until someone promotes."""


class AnalysisStep(ResourceModel):
    """Waits until the analysis has a verdict."""


class Step(ResourceModel):
    """One step of a canary: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "[has(self.setWeight), has(self.pause), has(self.analysis)]"
                ".filter(x, x).size() == 1",
                "a rollout step needs exactly one of setWeight, pause and analysis",
            )
        )
    )

    set_weight: Annotated[int, Field(ge=1, le=100)] | None = None
    """Percent of the traffic that the canary gets."""
    pause: Pause | None = None
    """Waits, for a time or for a person."""
    analysis: AnalysisStep | None = None
    """Waits until the analysis has a verdict."""


DEFAULT_STEPS: tuple[Step, ...] = tuple(
    step
    for weight in (5, 10, 25, 50)
    for step in (Step(set_weight=weight), Step(pause=Pause(duration="5m")))
)
"""Steps of a canary whose spec names none."""


class AnalysisMetric(ResourceModel):
    """A metric the canary is judged by, against stable at the same time."""

    name: Literal["ErrorRate", "TTFT", "TPOT", "OutputLength", "OutputQuality"]
    """What is compared."""
    min_effect: Percent | None = None
    """Smallest worsening that matters; smaller ones are accepted. Left out, the metric's own."""

    @property
    def min_effect_share(self) -> float | None:
        """`min_effect` as a share (20% = 0.2)."""
        return None if self.min_effect is None else parse_percent(self.min_effect)


class Analysis(ResourceModel):
    """How a canary is judged."""

    metrics: Annotated[
        tuple[AnalysisMetric, ...], Field(min_length=1, max_length=8), list_map("name")
    ] = (AnalysisMetric(name="ErrorRate"),)
    """Metrics judged throughout the rollout."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    """Chance of ever aborting a good release over its whole life."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Requests each arm needs before a verdict."""
    max_duration: Annotated[str, DurationBetween("1m", "168h")] = "30m"
    """Longest an analysis step lasts."""
    first_token_timeout: Annotated[str, DurationBetween("1s", "1h")] = "60s"  # noqa: S105 - a duration
    """A request without a token for so long counts as an error."""
    on_inconclusive: Literal["Hold", "Rollback", "Proceed"] = "Hold"
    """What follows when an analysis step ends without a verdict."""

    @property
    def max_duration_seconds(self) -> int:
        """`max_duration` in seconds."""
        return parse_duration_seconds(self.max_duration)

    @property
    def first_token_timeout_seconds(self) -> int:
        """`first_token_timeout` in seconds."""
        return parse_duration_seconds(self.first_token_timeout)


class RolloutSpec(ResourceModel):
    """How a changed spec becomes the served revision; not part of the revision hash."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "!has(self.steps) || self.strategy == 'Canary'",
                "rollout.steps are only used by strategy Canary: remove them, or set"
                " rollout.strategy to Canary",
            ),
            Cel(
                "!has(self.steps) || self.steps.filter(s, has(s.setWeight))"
                ".map(s, s.setWeight).isSorted()",
                "the setWeight steps of rollout.steps must not go down: a canary goes back by"
                " llmfleet.dev/abort, never by a step",
            ),
        )
    )

    strategy: Literal["Canary", "BlueGreen", "RollingUpdate"] = "Canary"
    """Canary (by weight, in steps), BlueGreen (all at once, when judged) or RollingUpdate (when
    ready)."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=50), ATOMIC] | None = None
    """Steps of a canary. Left out: setWeight 5, 10, 25, 50, each followed by a pause of 5m."""
    max_surge: MaxSurge = "25%"
    """Replicas beyond the fleet's size that a rollout may take, a count or a percentage (rounded
    up); 0 replaces in place."""
    scale_down_delay: Annotated[str, DurationBetween("0s", "168h")] = "5m"
    """How long a revision without traffic keeps its pods, so that going back is quick."""
    progress_deadline: Annotated[str, DurationBetween("10s", "168h")] = "30m"
    """Time without progress after which a rollout counts as failed. Stands still while the
    rollout is paused or waits for capacity."""
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] = 5
    """Old revisions kept, to go back to."""
    analysis: Analysis = Field(default_factory=Analysis)
    """How a canary is judged."""
    stickiness: Literal["None", "Session"] = "None"
    """Which revision a client gets during a rollout: any, or always the same one per session."""

    @property
    def effective_steps(self) -> tuple[Step, ...]:
        """`steps`, or the default ones."""
        return DEFAULT_STEPS if self.steps is None else self.steps

    @property
    def scale_down_delay_seconds(self) -> int:
        """`scale_down_delay` in seconds."""
        return parse_duration_seconds(self.scale_down_delay)

    @property
    def progress_deadline_seconds(self) -> int:
        """`progress_deadline` in seconds."""
        return parse_duration_seconds(self.progress_deadline)

    def surge_replicas(self, replicas: int) -> int:
        """Return S = ceil(maxSurge · N), the replicas a rollout may take beyond N.

        >>> RolloutSpec().surge_replicas(6), RolloutSpec(max_surge=1).surge_replicas(6)
        (2, 1)
        """
        if isinstance(self.max_surge, int):
            return self.max_surge
        return math.ceil(int(self.max_surge.removesuffix("%")) * replicas / 100)


class DriftSpec(ResourceModel):
    """The watch kept on a promoted revision."""

    action: Literal["Alert", "Rollback", "Fallback"] = "Rollback"
    """What follows a regression that shows after promotion."""
    window: Annotated[str, DurationBetween("1m", "720h")] = "24h"
    """How long after promotion the revision is watched."""
    control: Literal["Probe", "Replica", "None"] = "Probe"
    """What it is compared with: fixed-prompt probes, or a replica of the previous revision."""

    @property
    def window_seconds(self) -> int:
        """`window` in seconds."""
        return parse_duration_seconds(self.window)
