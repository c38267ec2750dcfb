"""Metrics that a revision is judged by, one a file here and a row of ``METRICS``.

A metric says what is counted, what makes evidence of it and what a failure is called. No verdicts
here (``analysis.judge``), and no rollout's numbers.
"""

from __future__ import annotations

from llmfleet.planning.analysis.metrics.error_rate import ERROR_RATE
from llmfleet.planning.analysis.metrics.metric import Metric

METRICS: dict[str, Metric] = {ERROR_RATE.name: ERROR_RATE}
"""By name, as in ``rollout.analysis.metrics``; the resource calls the others not built yet."""
