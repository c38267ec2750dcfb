"""Steps and routing described for people, as conditions, Events and the CLI say them."""

from __future__ import annotations

from collections.abc import Iterable

from llmfleet.api.rollout import CanaryScale, HeaderMatch, Step
from llmfleet.api.status import Routing


def describe_step(step: Step) -> str:
    """A step in a few words.

    >>> describe_step(Step(set_weight=25)), describe_step(Step(pause={}))
    ('25 %', 'a pause until promoted')
    >>> describe_step(Step(set_header_route={"headers": [{"name": "x-tester", "exact": "1"}]}))
    'requests with x-tester: 1'
    """
    if step.set_weight is not None:
        text = f"{step.set_weight} %"
    elif step.pause is not None:
        lasts = step.pause.duration
        text = f"a pause of {lasts}" if lasts else "a pause until promoted"
    elif step.analysis is not None:
        text = "an analysis"
    elif step.set_header_route is not None:
        headers = step.set_header_route.headers
        text = f"requests with {_headers(headers)}" if headers else "no requests by header"
    elif step.set_mirror is not None:
        text = f"copies of {step.set_mirror.percent} %"
    else:
        text = _scale(step.set_canary_scale)
    return text


def describe_routing(routing: Routing | None) -> str:
    """What routers do besides splitting by weight, in a sentence."""
    parts = []
    if routing is not None and routing.header_route is not None:
        route = routing.header_route
        parts.append(f"requests with {_headers(route.headers)} go to {route.revision}")
    if routing is not None and routing.mirror is not None:
        parts.append(f"copies of {routing.mirror.percent} % go to {routing.mirror.revision}")
    if routing is not None and routing.preview is not None:
        parts.append(f"the preview address leads to {routing.preview}")
    if routing is not None and routing.stickiness is not None:
        parts.append("a session stays with its revision")
    return "; ".join(parts) or "requests are split by weight alone"


def _headers(headers: Iterable[HeaderMatch]) -> str:
    return " and ".join(f"{each.name}: {each.exact or f'{each.prefix}…'}" for each in headers)


def _scale(scale: CanaryScale | None) -> str:
    if scale is not None and scale.replicas is not None:
        return f"{scale.replicas} pods"
    if scale is not None and scale.percent is not None:
        return f"{scale.percent} % of the pods"
    return "as many pods as its weight needs"
