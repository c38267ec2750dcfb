"""Lease arithmetic, with time as an argument."""

from __future__ import annotations

import pytest

from llmfleet.cluster.lease import (
    DURATION_SECONDS,
    GIVE_UP_SECONDS,
    RENEW_SECONDS,
    REQUEST_SECONDS,
    LeaseAction,
    LeaseView,
    decide_lease,
    is_valid,
    read_lease,
)


def lease(version: str, holder: str = "other") -> dict[str, object]:
    return {
        "metadata": {"resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 12},
    }


def view(holder: str, unchanged_since: float = 0.0) -> LeaseView:
    return LeaseView(
        holder=holder, duration_seconds=12, version="1", unchanged_since=unchanged_since
    )


@pytest.mark.parametrize(
    ("seen", "now", "action"),
    [
        pytest.param(None, 0, LeaseAction.CREATE, id="no lease"),
        pytest.param(view("me"), 1000, LeaseAction.RENEW, id="ours, however old"),
        pytest.param(view(""), 0, LeaseAction.TAKE, id="released"),
        pytest.param(view("other"), 12, LeaseAction.WAIT, id="its last moment"),
        pytest.param(view("other"), 12.1, LeaseAction.TAKE, id="expired"),
        pytest.param(view("other", 5), 12.1, LeaseAction.WAIT, id="renewed since"),
    ],
)
def test_lease_when_seen_then_the_action_follows(
    seen: LeaseView | None, now: float, action: LeaseAction
) -> None:
    assert decide_lease(seen, "me", now) is action


def test_view_when_the_version_stands_still_then_its_age_counts_from_first_sight() -> None:
    first = read_lease(lease("1"), None, 100)
    again = read_lease(lease("1"), first, 109)
    assert again.unchanged_since == 100
    renewed = read_lease(lease("2"), again, 111)
    assert renewed.unchanged_since == 111
    assert decide_lease(renewed, "me", 113) is LeaseAction.WAIT


@pytest.mark.parametrize(
    ("renewed_at", "now", "valid"), [(None, 0, False), (10, 17.9, True), (10, 18, False)]
)
def test_leader_when_not_renewed_in_time_then_may_not_write(
    renewed_at: float | None, now: float, valid: bool
) -> None:
    assert is_valid(renewed_at, now) is valid


def test_constants_when_compared_then_a_leader_gives_up_before_anybody_may_take_over() -> None:
    assert GIVE_UP_SECONDS + REQUEST_SECONDS < DURATION_SECONDS
    assert RENEW_SECONDS + REQUEST_SECONDS < GIVE_UP_SECONDS
