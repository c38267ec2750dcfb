"""One question to Prometheus about one metric of all objects, and what of its answer is believed.

Anybody who may be scraped can expose any series. So only series of pods that the operator knows
count, one for each that the metric itself tells apart however many scraped it, and only samples
that are numbers and of a time that has been.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from llmfleet.cluster.prometheus_access import Prometheus
from llmfleet.cluster.prometheus_problems import NO_API, PrometheusError, describe_problem
from llmfleet.cluster.store import Owner
from llmfleet.planning.signal import AHEAD, Signal
from llmfleet.planning.snapshot import JSON, Labels

WINDOW: Final = timedelta(minutes=5)
"""Of the samples that are asked for: three of Prometheus' default scrapes, and some."""
LASTS: Final = timedelta(seconds=60)
LASTS_SCRAPES: Final = 3
"""A sample lasts so long, or so many of its series' scrapes, whichever is longer."""
START_SKEW: Final = timedelta(seconds=60)
"""A node's clock, by which a container started, beside Prometheus'."""
MOST_NAMESPACES: Final = 20
"""Named in the question; of more, all are asked for: a question is part of a URL."""

Sample = tuple[float, float]
"""Seconds since 1970, and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is asked for."""

    name: str
    labels: tuple[str, ...] = ()
    """Its own, by which a pod has several series; all others are those of whoever scraped it."""
    counter: bool = False
    """It only rises while its process lives."""
    scraped_by: str = "monitoring.podMonitor.enabled"
    """The chart value by which its pods are scraped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPod:
    """A pod whose series are believed."""

    owner: Owner
    """The LLMDeployment that it is of."""
    namespace: str
    name: str
    running_since: datetime | None
    """When its process started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What one pod says."""

    pod: str
    labels: Labels
    """Those of ``Metric.labels``."""
    samples: tuple[Sample, ...]
    """Oldest first, of the process that runs now."""


Signals = Mapping[Owner, Signal[tuple[Series, ...]]]
"""By LLMDeployment. A pod without a series was not scraped lately."""


def fetch(
    prometheus: Prometheus,
    metric: Metric,
    pods: Iterable[KnownPod],
    now: datetime,
    *,
    matchers: Labels = (),
) -> Signals:
    """Ask for one metric of all pods; blocks until there is an answer.

    Args:
        prometheus: whoever is asked.
        metric: for what.
        pods: those whose series are believed.
        now: the present time.
        matchers: labels that every series must have, such as ``cluster``.

    Returns:
        A signal for the owner of each pod; where there is no answer, why, for all of them.
    """
    known = {(each.namespace, each.name): each for each in pods}
    owners = {each.owner for each in known.values()}
    if not owners:
        return {}
    query = build_query(metric, {namespace for namespace, _ in known}, matchers)
    try:
        copies = _group(prometheus.custom_query(query), metric, known)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no answer
        problem = f"Prometheus does not answer: {describe_problem(error)}"
        return dict.fromkeys(owners, Signal(problem=problem))
    told: dict[Owner, list[Series]] = defaultdict(list)
    for (pod, labels), same in copies.items():
        # Of several copies the freshest: one that is scraped no more stays for minutes.
        freshest = max((_believed(each, now) for each in same), key=_newest)
        samples = _of_process(freshest, pod, rises=metric.counter)
        told[pod.owner].append(Series(pod=pod.name, labels=labels, samples=samples))
    return {owner: _signal(metric, told.get(owner, ()), now) for owner in owners}


def build_query(metric: Metric, namespaces: Iterable[str], matchers: Labels = ()) -> str:
    """An instant query whose answer has raw samples, with their own times.

    Example:
        >>> build_query(Metric(name="vllm:num_requests_running"), ["b", "a"], (("cluster", "eu"),))
        '{__name__="vllm:num_requests_running",namespace=~"a|b",cluster="eu"}[300s]'
    """
    names = sorted(set(namespaces))
    parts = [_matches("__name__", "=", metric.name)]
    if len(names) <= MOST_NAMESPACES:
        parts.append(_matches("namespace", "=~", "|".join(names)))  # DNS labels: nothing to escape
    parts += [_matches(name, "=", value) for name, value in matchers]
    return f"{{{','.join(parts)}}}[{int(WINDOW.total_seconds())}s]"


def _matches(label: str, how: str, value: str) -> str:
    # PromQL's strings are Go's, of which JSON's are a part but for halves of a surrogate pair.
    return f"{label}{how}{json.dumps(value, ensure_ascii=False)}"


def _group(
    found: Sequence[JSON], metric: Metric, known: Mapping[tuple[str, str], KnownPod]
) -> dict[tuple[KnownPod, Labels], list[list[Sample]]]:
    """Samples by what they are of, a list for each copy; those of strangers are left out.

    Raises:
        PrometheusError: it is no matrix.
    """
    copies: dict[tuple[KnownPod, Labels], list[list[Sample]]] = defaultdict(list)
    try:
        for each in found:
            labels = each["metric"]
            pod = known.get((labels.get("namespace"), labels.get("pod")))
            if pod is None or labels.get("__name__") != metric.name:
                continue
            own = tuple((name, str(labels[name])) for name in metric.labels if name in labels)
            samples = [(float(at), float(value)) for at, value in each.get("values") or ()]
            copies[pod, own].append(samples)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise PrometheusError(NO_API) from error
    return copies


def _believed(samples: Iterable[Sample], now: datetime) -> list[Sample]:
    """Numbers of a time that has been, in the order of their times."""
    latest = (now + AHEAD).timestamp()
    good = {at: value for at, value in samples if math.isfinite(at) and math.isfinite(value)}
    return sorted((at, value) for at, value in good.items() if at <= latest)


def _newest(samples: Sequence[Sample]) -> float:
    return samples[-1][0] if samples else -math.inf


def _of_process(samples: Sequence[Sample], pod: KnownPod, *, rises: bool) -> tuple[Sample, ...]:
    """Those of the process that runs now.

    A counter that falls began anew only if the process did about then. Else two wrote it by
    different clocks, or pages were read out of order, and the lower sample is left out.
    """
    started = None if pod.running_since is None else pod.running_since.timestamp()
    skew = START_SKEW.total_seconds()
    kept: list[Sample] = []
    for at, value in samples:
        if started is not None and at < started - skew:
            continue
        if rises and kept and value < kept[-1][1]:
            if started is None or abs(at - started) > skew:
                continue
            kept = []
        kept.append((at, value))
    return tuple(kept)


def _signal(metric: Metric, series: Sequence[Series], now: datetime) -> Signal[tuple[Series, ...]]:
    """What the pods of one object say, those that say nothing of now left out."""
    dated = [(each.samples[-1][0], each) for each in series if each.samples]
    if not dated:
        return Signal(
            problem=f"Prometheus has no {metric.name} of its pods of the last"
            f" {WINDOW.total_seconds() / 60:.0f} minutes: have them scraped, which the chart's"
            f" {metric.scraped_by} does where the Prometheus operator runs"
        )
    fresh = [(at, each) for at, each in dated if now.timestamp() - at < _lasts(each)]
    newest, last = max(fresh or dated, key=lambda each: each[0])
    told: tuple[Series, ...] = tuple(each for _, each in fresh) or (last,)
    signal = Signal(value=told, as_of=datetime.fromtimestamp(newest, UTC))
    return signal.at(now, timedelta(seconds=_lasts(last)), f"the newest {metric.name} is")


def _lasts(series: Series) -> float:
    """How many seconds the newest sample lasts, by the time from one to the next."""
    times = [at for at, _ in series.samples]
    gaps = sorted(later - at for at, later in itertools.pairwise(times))
    usual = gaps[len(gaps) // 2] if gaps else 0.0
    return max(LASTS.total_seconds(), LASTS_SCRAPES * usual)
