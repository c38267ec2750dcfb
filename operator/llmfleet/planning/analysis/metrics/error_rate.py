"""``ErrorRate``: the share of requests that fail, as routers count them."""

from __future__ import annotations

from typing import Final

from llmfleet.planning.analysis.evidence import log_evidence, log_evidence_alone
from llmfleet.planning.analysis.metrics.metric import Metric

ERROR_RATE: Final = Metric(
    name="ErrorRate",
    process=log_evidence,
    process_alone=log_evidence_alone,
    default_effect=0.01,
    session_effect=0.02,  # a session that always fails is no sign of its revision
    effect_alone=0.05,  # as at a weight of 100 %
    reason="ErrorRateRegression",
)
