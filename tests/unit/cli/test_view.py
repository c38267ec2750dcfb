"""What people read, from statuses that the operator's own decisions wrote."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rich.console import Console, RenderableType

from llmfleet.api import parse
from llmfleet.cli import annotating, view
from llmfleet.cli.ages import age
from tests.unit.planning.canaries import annotate, at_share, fail, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn


def text_of(shown: RenderableType) -> str:
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def shown(world: Fleet) -> str:
    return text_of(view.status_view(parse(world.raw), world.now))


def test_status_when_a_canary_is_under_way_then_its_share_steps_and_the_next_are_shown() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    text = shown(world)
    assert f"{new}  █████" in text
    assert " 25 %" in text
    assert " 75 %" in text
    assert "✓ 25 % ▶ a pause of 5m · 50 % · a pause until promoted" in text
    assert "next: the next step in" in text
    assert f"{old}" in text
    assert view.exit_code(parse(world.raw)) == 10


def test_status_when_blue_green_then_steps_verdict_and_preview_are_shown() -> None:
    world, _, new = started({"strategy": "BlueGreen", "blueGreen": {"promotion": "Manual"}})
    for _ in range(8):
        turn(world)
    text = shown(world)
    assert "✓ 100 % of the pods ▶ a pause until promoted" in text
    assert "ErrorRate: Inconclusive, no request counts are known" in text
    assert f"also: the preview address leads to {new}" in text
    assert "next: a person: `kubectl llmfleet promote chat`" in text


def test_status_when_all_is_well_then_exit_code_zero_and_nothing_to_do() -> None:
    world = Fleet(resource())
    world.settle()
    assert "next: nothing: spec is served" in shown(world)
    assert view.exit_code(parse(world.raw)) == 0


def test_status_when_a_revision_was_rejected_then_the_reason_and_the_way_out_are_shown() -> None:
    world, _, new = started(broken=True)
    for _ in range(5):
        turn(world)
    fail(world, new, {"restarts": 2, "waiting_reason": "CrashLoopBackOff"})
    annotate(world, "abort", f"{new}@now")
    for _ in range(30):
        turn(world)
    text = shown(world)
    assert "rejected: UserAbort" in text
    assert "! RevisionRejected (RolledBack)" in text
    assert "kubectl llmfleet retry chat" in text
    assert view.exit_code(parse(world.raw)) == 12
    assert new in text_of(view.explanation(parse(world.raw)))
    assert "rejected: UserAbort" in text_of(view.history(parse(world.raw), world.now))


def test_status_when_degraded_with_nothing_to_retry_then_no_retry_is_offered() -> None:
    world = Fleet(resource(replicas=1))
    world.broken = frozenset({hash_of(world.raw)})
    turn(world, 5)
    for _ in range(6):
        world.wait(700)
        turn(world)
    deployment = parse(world.raw)
    assert deployment.status.phase == "Degraded"
    with pytest.raises(annotating.NothingToDoError):
        annotating.retry(deployment, world.now)
    assert view.whats_next(deployment, world.now) == (
        "mend the cause, or change spec; `kubectl llmfleet explain chat` says why"
    )


def test_status_when_the_first_revision_comes_up_then_no_steps_are_shown_that_it_skips() -> None:
    world = Fleet(resource(rollout={"strategy": "Canary", "steps": [{"setWeight": 25}]}))
    world.broken = frozenset({hash_of(world.raw)})
    turn(world, 4)
    text = shown(world)
    assert "as pods get ready, without steps" in text
    assert "25 %" not in text


def test_status_when_a_step_was_promoted_past_then_it_is_not_shown_as_served() -> None:
    world, _, new = started()
    annotate(world, "promote", f"{new}/0@1")
    world.reconcile()
    assert "» 25 % ▶ a pause of 5m" in shown(world)


def test_explanation_when_conditions_say_the_same_then_it_is_told_once() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    turn(world, 20)
    message = world.status()["message"]
    assert len([each for each in world.status()["conditions"] if each["message"] == message]) > 2
    text = text_of(view.explanation(parse(world.raw)))
    assert text.count("that spec asks for was rejected") == 1
    assert "as the first line" in text


def test_status_when_spec_changes_in_mid_rollout_then_no_step_is_announced() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    world.edit(model=model("three"))
    world.reconcile()
    assert world.status()["rollout"]["state"] == "Returning"
    deployment = parse(world.raw)
    assert view.step_due(deployment.status) is None
    text = f"spec changed again: going back to {old} first"
    assert view.whats_next(deployment, world.now).startswith(text)


def test_status_when_paused_then_it_names_the_act_that_goes_on() -> None:
    world, _, _new = started()
    annotate(world, "pause", "true")
    for _ in range(5):
        turn(world)
    assert "kubectl llmfleet resume chat" in shown(world)
    assert view.exit_code(parse(world.raw)) == 11


def test_status_when_the_pause_names_another_revision_then_promote_goes_on_not_resume() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "pause", "ffffffffff")
    world.wait(400)
    at_share(world, new, 50)
    turn(world, 2)
    assert world.status()["phase"] == "Paused"
    assert "next: a person: `kubectl llmfleet promote chat`" in shown(world)
    annotate(world, "pause", new)
    assert "next: a person: `kubectl llmfleet resume chat`" in shown(world)


def test_status_when_the_operator_has_not_seen_the_pause_then_resume_is_named_at_once() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "pause", "true")
    assert world.status()["phase"] == "Progressing"
    assert "next: a person: `kubectl llmfleet resume chat`" in shown(world)


def test_status_when_the_operator_said_nothing_yet_then_it_asks_whether_it_runs() -> None:
    deployment = parse(resource())
    assert "Is it running?" in text_of(view.status_view(deployment, Fleet(resource()).now))
    assert view.exit_code(deployment) == view.NO_STATUS


def test_fleet_when_listed_then_each_has_a_line_even_if_it_cannot_be_read() -> None:
    world = Fleet(resource())
    world.settle()
    meta = {**world.raw["metadata"], "creationTimestamp": "2026-03-01T11:00:00Z"}
    items = [{**world.raw, "metadata": meta}, {"metadata": {**meta, "name": "odd"}}]
    text = text_of(view.fleet_table(items, world.now, everywhere=True))
    assert "Healthy" in text
    assert "odd" in text
    assert "Unknown" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")]
)
def test_age_when_shown_then_in_the_largest_unit_of_two_or_more(seconds: int, text: str) -> None:
    now = Fleet(resource()).now
    assert age(now - timedelta(seconds=seconds), now) == text


HOSTILE = "[/INST] [bold]x[/] :smile: \x1b]0;owned\x07\x1b[2J\u202egnol\x00"


def test_views_when_the_status_holds_markup_and_escapes_then_they_are_shown_as_text() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    at = {"at": "2026-03-01T12:00:00Z"}
    kept = world.status()
    world.raw["status"] = {
        **kept,
        "message": HOSTILE,
        "conditions": [{**each, "message": HOSTILE} for each in kept["conditions"]],
        "rejectedRevisions": [{"hash": "[/x]", "reason": HOSTILE, "message": HOSTILE, **at}],
        "revisions": [{**each, "image": HOSTILE} for each in kept["revisions"]],
        "servedRevision": "[/y]",
        "ready": "[red]",
    }
    meta = {**world.raw["metadata"], "creationTimestamp": "2026-03-01T11:00:00Z"}
    deployment = parse(world.raw)
    views = [
        view.status_view(deployment, world.now),
        view.explanation(deployment),
        view.history(deployment, world.now),
        view.fleet_table([{**world.raw, "metadata": meta}], world.now, everywhere=True),
    ]
    for text in map(text_of, views):
        assert "[/" in text
        for unseen in ("owned", "\x00", "\u202e", "\x1b[2J"):
            assert unseen not in text
    assert "[/INST] [bold]x[/] :smile: gnol" in " ".join(text_of(views[1]).split())
