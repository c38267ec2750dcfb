"""How a changed spec becomes the served revision, and the watch kept on it afterwards."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from llmfleet.api.values import (
    ATOMIC,
    Cel,
    DurationBetween,
    HeaderName,
    HeaderValue,
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


class HeaderMatch(ResourceModel):
    """A header that a request must have: exactly one of `exact` and `prefix`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "has(self.exact) != has(self.prefix)",
                "a header of setHeaderRoute needs exactly one of exact and prefix",
            )
        )
    )

    name: HeaderName
    """Name of the header, in lower case."""
    exact: HeaderValue | None = None
    """The value it must have."""
    prefix: HeaderValue | None = None
    """What its value must begin with."""


class HeaderRoute(ResourceModel):
    """Sends requests with certain headers to the canary, whatever its weight."""

    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=8), ATOMIC] = ()
    """Headers that a request must have, all of them; left out, the route ends."""


class Mirror(ResourceModel):
    """Sends a copy of requests to the canary and discards the answers."""

    percent: Annotated[int, Field(ge=0, le=100)]
    """Percent of the requests that are copied; 0 ends it."""


class CanaryScale(ResourceModel):
    """Size of the canary, where its weight asks for fewer pods: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                "[has(self.replicas), has(self.percent), has(self.matchTrafficWeight)]"
                ".filter(x, x).size() == 1",
                "setCanaryScale needs exactly one of replicas, percent and matchTrafficWeight",
            )
        )
    )

    replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Engine pods."""
    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """Percent of the fleet's size."""
    match_traffic_weight: Literal[True] | None = None
    """Only what the weight asks for, as without this step."""


STEP_KINDS: Final = (
    "setWeight", "pause", "analysis", "setHeaderRoute", "setMirror", "setCanaryScale",
)  # fmt: skip
"""What a step may be."""


class Step(ResourceModel):
    """One step of a canary: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Cel(
                f"[{', '.join(f'has(self.{kind})' for kind in STEP_KINDS)}]"
                ".filter(x, x).size() == 1",
                f"a rollout step needs exactly one of {', '.join(STEP_KINDS)}",
            )
        )
    )

    set_weight: Annotated[int, Field(ge=1, le=100)] | None = None
    """Percent of the traffic that the canary gets."""
    pause: Pause | None = None
    """Waits, for a time or for a person."""
    analysis: AnalysisStep | None = None
    """Waits until the analysis has a verdict."""
    set_header_route: HeaderRoute | None = None
    """Requests with certain headers go to the canary until the rollout ends, or another such step
    replaces it."""
    set_mirror: Mirror | None = None
    """Copies of requests go to the canary until the rollout ends, or another such step replaces
    it."""
    set_canary_scale: CanaryScale | None = None
    """The canary has at least so many pods from here on, as far as maxSurge allows."""


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
    """Requests each arm needs before it can be successful; it can fail with fewer."""
    max_duration: Annotated[str, DurationBetween("1m", "168h")] = "30m"
    """Longest an analysis step lasts."""
    first_token_timeout: Annotated[str, DurationBetween("1s", "1h")] = "60s"  # noqa: S105 - a duration
    """A client that leaves after so long without a first token counts as a failure of its revision;
    later no first token is waited for."""
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


class BlueGreen(ResourceModel):
    """A whole second set of engine pods, reached at a preview address until all traffic moves."""

    promotion: Literal["Automatic", "Manual"] = "Automatic"
    """Whether the traffic moves by itself when the checks have passed, or when someone promotes."""
    preview_duration: Annotated[str, DurationBetween("0s", "720h")] = "1m"
    """How long the new set must be ready, and be reached at the preview address, before that."""
    min_preview_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests that the new set must have answered at the preview address before that."""


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
            Cel(
                "!has(self.blueGreen) || self.strategy == 'BlueGreen'",
                "rollout.blueGreen is only used by strategy BlueGreen: remove it, or set"
                " rollout.strategy to BlueGreen",
            ),
        )
    )

    strategy: Literal["Canary", "BlueGreen", "RollingUpdate"] = "Canary"
    """Canary (by weight, in steps), BlueGreen (all at once, when judged) or RollingUpdate (when
    ready)."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=50), ATOMIC] | None = None
    """Steps of a canary. Left out: setWeight 5, 10, 25, 50, each followed by a pause of 5m."""
    blue_green: BlueGreen | None = None
    """What a blue-green rollout waits for."""
    max_surge: MaxSurge = "25%"
    """Replicas beyond the fleet's size that a rollout may take, a count or a percentage (rounded
    up); 0 replaces in place. BlueGreen always takes a whole second set."""
    scale_down_delay: Annotated[str, DurationBetween("0s", "168h")] = "5m"
    """How long a revision without traffic keeps its pods, so that going back is quick."""
    progress_deadline: Annotated[str, DurationBetween("10s", "168h")] = "30m"
    """Time without progress after which a rollout counts as failed. Stands still while the
    rollout is paused or waits for capacity."""
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] = 5
    """Old revisions kept, to go back to."""
    rollback_window: Annotated[int, Field(ge=0, le=100)] = 0
    """So many revisions served before are gone back to without steps when spec asks for them."""
    analysis: Analysis = Field(default_factory=Analysis)
    """How a canary is judged."""
    stickiness: Literal["None", "Session"] = "None"
    """Which revision a client gets during a rollout: any, or always the same one per session."""

    @property
    def effective_steps(self) -> tuple[Step, ...]:
        """`steps` or the default ones of a canary; those that make a blue-green rollout; else none.

        >>> [step.model_dump(exclude_none=True) for step in
        ...  RolloutSpec(strategy="BlueGreen").effective_steps]
        [{'set_canary_scale': {'percent': 100}}, {'pause': {'duration': '1m'}}]
        """
        if self.strategy == "BlueGreen":
            return _blue_green_steps(self.blue_green or BlueGreen())
        if self.strategy == "RollingUpdate":
            return ()
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
        if self.strategy == "BlueGreen":
            return replicas
        if isinstance(self.max_surge, int):
            return self.max_surge
        return math.ceil(int(self.max_surge.removesuffix("%")) * replicas / 100)


def _blue_green_steps(settings: BlueGreen) -> tuple[Step, ...]:
    whole = Step(set_canary_scale=CanaryScale(percent=100))
    if settings.promotion == "Manual":
        return (whole, Step(pause=Pause()))
    duration = settings.preview_duration
    if parse_duration_seconds(duration) == 0:
        if not settings.min_preview_requests:
            return (whole,)
        duration = "1s"
    return (whole, Step(pause=Pause(duration=duration)))


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
