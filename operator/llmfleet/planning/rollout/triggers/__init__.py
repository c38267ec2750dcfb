"""Who may ask a rollout to go back, in the order in which they are heard.

A trigger is a file here and a row of ``TRIGGERS``. It only asks: what becomes of the rollout is not
said here (``rollout.transitions``).
"""

from __future__ import annotations

from llmfleet.planning.rollout.failures import Failure
from llmfleet.planning.rollout.triggers.analysis import requests_fail
from llmfleet.planning.rollout.triggers.person import aborted_by_hand
from llmfleet.planning.rollout.triggers.pods import pods_fail
from llmfleet.planning.rollout.triggers.trigger import Rising, Trigger

TRIGGERS: list[Trigger] = [aborted_by_hand, pods_fail, requests_fail]
"""Each says why the rollout goes back, or None."""


def find_failure(rising: Rising) -> Failure | None:
    """The first trigger's answer; None while the rollout may go on."""
    return next((found for trigger in TRIGGERS if (found := trigger(rising)) is not None), None)
