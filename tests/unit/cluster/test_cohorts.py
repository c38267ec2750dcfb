"""Cohorts: each outcome counts where its request was sent, once, and for both revisions alike."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pytest
from hack.bench.booking import Books, Sent

from llmfleet.cluster.cohorts import ENDED, FAILED, BookedRow, Cohorts, TooManyRowsError
from llmfleet.planning.snapshot import RequestCounts

SINCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
WHEN = datetime(2026, 3, 1, 13, 0, tzinfo=UTC)
STABLE, CANARY = "a000000001", "b000000002"


def played(
    books: Sequence[Books], until: float, *, every: float = 5.0, timeout: float = 60.0
) -> Cohorts:
    """An operator that reads all routers every few seconds."""
    cohorts = Cohorts(SINCE, timeout)
    now = SINCE
    while now < SINCE + until:
        now += every
        cohorts.expect((one.uid for one in books), now)
        for one in books:
            cohorts.take(one.uid, one.read(now), now)
        cohorts.look(now)
    return cohorts


def sent(at: float, revision: str = CANARY, **more: object) -> Sent:
    return Sent(at=SINCE + at, revision=revision, **more)  # type: ignore[arg-type]


def counts(cohorts: Cohorts) -> dict[str, RequestCounts]:
    return cohorts.counts()


@pytest.mark.parametrize("outcome", sorted(ENDED))
def test_request_when_it_ended_soon_then_it_is_in_the_first_look(outcome: str) -> None:
    books = Books("r1")
    first = 0.5 if outcome in {"answered", "cut"} else None
    books.send([sent(1, outcome=outcome, first_after=first)])
    found = counts(played([books], 60))[CANARY]
    failed = int(outcome in FAILED)
    assert (found.total, found.failed, found.unreached) == (1, failed, outcome == "connect")
    assert found.looks == ((1, failed),)
    assert found.late_looks == (() if failed else ((1, 0),))


def test_stream_when_it_is_cut_much_later_then_it_fails_in_the_late_look_of_its_own_cohort() -> (
    None
):
    books = Books("r1")
    books.send([sent(1), sent(2, outcome="cut", ends_after=300), sent(2, STABLE)])
    found = counts(played([books], 60))
    assert found[CANARY].looks == ((2, 0),)
    assert found[CANARY].late_looks == ()
    books = Books("r1")
    books.send([sent(1), sent(2, outcome="cut", ends_after=300), sent(2, STABLE)])
    found = counts(played([books], 400))
    assert found[CANARY].looks == ((2, 0),)
    assert found[CANARY].late_looks == ((2, 1),)
    assert found[STABLE].late_looks == ((1, 0),)


def test_request_when_it_was_sent_before_the_attempt_then_it_counts_nowhere() -> None:
    books = Books("r1")
    books.send([sent(-3, outcome="error", ends_after=30, first_after=None), sent(6)])
    found = counts(played([books], 60))[CANARY]
    assert (found.total, found.failed, found.looks) == (1, 0, ((1, 0),))


def test_request_when_its_class_is_not_judged_then_it_counts_nowhere() -> None:
    books = Books("r1")
    books.send([sent(1, kind="header"), sent(1, kind="preview"), sent(1, kind="young")])
    assert counts(played([books], 60))[CANARY].total == 2


def test_cohort_when_some_wait_for_a_first_token_then_both_revisions_wait_until_the_timeout() -> (
    None
):
    def slow() -> Books:
        books = Books("r1")
        books.send([sent(1, STABLE) for _ in range(50)])
        books.send([sent(1, first_after=40, ends_after=41) for _ in range(10)])
        books.send([sent(1, outcome="noFirstToken", first_after=None, ends_after=300)])
        return books

    assert counts(played([slow()], 60))[STABLE].looks == ()
    assert counts(played([slow()], 75))[STABLE].looks == ((50, 0),)
    found = counts(played([slow()], 75))[CANARY]
    assert found.looks == ((11, 0),)  # what waits has not failed yet
    assert counts(played([slow()], 400))[CANARY].late_looks == ((11, 1),)


def test_answers_when_one_revision_is_slower_then_no_look_shows_it() -> None:
    source = random.Random(3)
    books = Books("r1")
    for number in range(4000):
        for revision, seconds in ((STABLE, 30.0), (CANARY, 45.0)):
            failed = source.random() < 0.05
            books.send([
                sent(
                    number / 4,
                    revision,
                    outcome="error" if failed else "answered",
                    first_after=None if failed else seconds,
                    ends_after=seconds,
                )
            ])  # fmt: skip
    found = counts(played([books], 1100))
    for revision in (STABLE, CANARY):
        share = sum(a for _, a in found[revision].looks) / sum(n for n, _ in found[revision].looks)
        assert 0.04 < share < 0.06
    both = zip(found[STABLE].looks, found[CANARY].looks, strict=True)
    assert all(n == m for (n, _), (m, _) in both)


def test_router_when_it_is_gone_unread_then_both_revisions_lack_its_open_cohorts() -> None:
    kept, gone = Books("r1"), Books("r2")
    for books in (kept, gone):
        books.send([
            sent(at, revision, ends_after=9)
            for at in (1, 21)
            for revision in (STABLE, CANARY)
        ])  # fmt: skip
    cohorts = Cohorts(SINCE, 60)
    for now in (10, 22):  # read in the middle of the second one, then it is gone
        for books in (kept, gone):
            cohorts.take(books.uid, books.read(SINCE + now), SINCE + now)
        cohorts.look(SINCE + now)
    cohorts.expect(["r1"])
    cohorts.take("r1", kept.read(SINCE + 60), SINCE + 60)
    cohorts.look(SINCE + 60)
    found = counts(cohorts)
    assert found[STABLE].looks == found[CANARY].looks == ((2, 0), (1, 0))


def test_router_when_it_cannot_be_read_then_the_others_are_looked_at_a_little_later() -> None:
    heard, silent = Books("r1"), Books("r2")
    for books in (heard, silent):
        books.send([sent(1)])
    cohorts = Cohorts(SINCE, 60)
    cohorts.take("r2", [], SINCE + 1)
    for now, expected in ((8, ()), (19, ()), (21, ((1, 0),))):
        cohorts.take("r1", heard.read(SINCE + now), SINCE + now)
        cohorts.look(SINCE + now)
        known = counts(cohorts).get(CANARY)
        assert (known.looks if known else ()) == expected, now
    cohorts = _with_a_late_one()
    found = counts(cohorts)[CANARY]
    assert (found.looks, found.late_looks) == (((1, 0),), ())
    assert found.total == 1  # the other router's came too late for this cohort


def _with_a_late_one() -> Cohorts:
    """A cohort whose streams still run when the second of two routers is read."""
    heard, silent = Books("r1"), Books("r2")
    for books in (heard, silent):
        books.send([sent(1, ends_after=100)])
    cohorts = Cohorts(SINCE, 60)
    cohorts.take("r2", [], SINCE + 1)
    for now in (8, 21):
        cohorts.take("r1", heard.read(SINCE + now), SINCE + now)
        cohorts.look(SINCE + now)
    cohorts.take("r2", silent.read(SINCE + 30), SINCE + 30)
    cohorts.look(SINCE + 30)
    return cohorts


@pytest.mark.parametrize("seed", range(20))
def test_counts_when_read_twice_in_any_order_and_by_a_new_operator_then_they_are_exact(
    seed: int,
) -> None:
    source = random.Random(seed)
    requests = [_any(source) for _ in range(600)]
    first, again = _read_somehow(requests, seed), _read_somehow(requests, seed + 1000)
    for revision in (STABLE, CANARY):
        mine = [one for one in requests if one.revision == revision and one.at >= SINCE]
        failed = sum(one.outcome in FAILED for one in mine)
        for cohorts in (first, again):
            found = counts(cohorts)[revision]
            assert (found.total, found.failed) == (len(mine), failed)
            assert sum(a for _, a in (*found.looks, *found.late_looks)) == failed
            late = sum(n for n, _ in found.late_looks)
            assert late == len(mine) - sum(a for _, a in found.looks)


def _any(source: random.Random) -> Sent:
    outcome = source.choice(["answered"] * 20 + list(ENDED))
    seconds = source.choice((0.1, 2.0, 20.0, 200.0)) * source.random()
    has_first = outcome in {"answered", "cut"}
    return sent(
        source.uniform(-20, 900),
        source.choice((STABLE, STABLE, CANARY)),
        outcome=outcome,
        ends_after=seconds,
        first_after=seconds * source.random() if has_first else None,
        generation=1,
        size=source.randrange(3),
        kind=source.choice(("split", "split", "young")),
    )


def _read_somehow(requests: Iterable[Sent], seed: int) -> Cohorts:
    """Two routers, read at odd moments, now and then all of it again."""
    source = random.Random(seed)
    books = [Books("r1"), Books("r2")]
    placed = random.Random(7)
    for one in requests:
        placed.choice(books).send([one])
    cohorts = Cohorts(SINCE, 60)
    now = SINCE
    while now < SINCE + 2200:
        now += source.uniform(1, 9)
        for one in books:
            cohorts.take(one.uid, one.read(now, everything=source.random() < 0.1), now)
        cohorts.look(now)
    return cohorts


def test_cohorts_when_a_split_grows_old_then_they_grow_longer_and_begin_anew_with_the_next() -> (
    None
):
    books = Books("r1")
    books.send([sent(10 + at) for at in range(1200)])
    books.send([sent(1210 + at, generation=2) for at in range(60)])
    looks = counts(played([books], 1400))[CANARY].looks
    assert looks[:24] == ((5, 0),) * 24
    assert looks[24:56] == ((15, 0),) * 32
    assert looks[56:66] == ((60, 0),) * 10
    assert looks[66:] == ((5, 0),) * 12


def test_rows_when_they_contradict_themselves_then_no_count_is_below_zero() -> None:
    cohorts = Cohorts(SINCE, 60)
    names = ("sent", "first", *ENDED)
    impossible = tuple(3 if name != "sent" else 1 for name in names)
    cohorts.take("r1", [BookedRow(SINCE, 1, CANARY, "split", 0, impossible)], SINCE + 900)
    cohorts.look(SINCE + 900)
    found = counts(cohorts)[CANARY]
    assert all(n >= a >= 0 for n, a in (*found.looks, *found.late_looks)) or found.looks == ()


def test_router_when_it_left_after_it_was_read_to_its_end_then_it_stays_counted() -> None:
    books = Books("r1")
    books.send([sent(1, ends_after=2), sent(2, STABLE, ends_after=2)])
    cohorts = Cohorts(SINCE, 60)
    cohorts.take("r1", books.read(SINCE + 9), SINCE + 9)
    cohorts.expect([])
    cohorts.look(SINCE + 60)
    found = counts(cohorts)
    assert found[STABLE].looks == found[CANARY].looks == ((1, 0),)


def test_totals_when_a_router_is_gone_unread_then_they_do_not_fall() -> None:
    books = Books("r1")
    books.send([sent(1, ends_after=300), sent(1, outcome="error", first_after=None)])
    cohorts = Cohorts(SINCE, 60)
    cohorts.take("r1", books.read(SINCE + 30), SINCE + 30)
    cohorts.look(SINCE + 30)
    cohorts.expect([])
    cohorts.look(SINCE + 60)
    found = counts(cohorts)[CANARY]
    assert (found.total, found.failed) == (2, 1)
    assert found.late_looks == ()


def test_router_when_it_has_not_answered_yet_then_it_is_waited_for() -> None:
    """An operator that starts anew meets cohorts that were over long ago."""
    quick, slow = Books("r1"), Books("r2")
    for books in (quick, slow):
        books.send([sent(1, outcome="error", first_after=None), sent(1, STABLE)])
    cohorts = Cohorts(SINCE, 60)
    cohorts.expect(["r1", "r2"], SINCE + 500)
    cohorts.take("r1", quick.read(SINCE + 500), SINCE + 500)
    cohorts.look(SINCE + 500)
    assert counts(cohorts)[CANARY].looks == ()
    cohorts.take("r2", slow.read(SINCE + 510), SINCE + 510)
    cohorts.look(SINCE + 510)
    assert counts(cohorts)[CANARY].looks == ((2, 2),)


@pytest.mark.parametrize("seconds", [(60.0, 120.0), (10.0, 40.0)])
@pytest.mark.parametrize("weight", [0.5, 0.02])
def test_canary_when_it_only_answers_slower_and_failures_are_quick_then_no_look_shows_it(
    seconds: tuple[float, float], weight: float
) -> None:
    source = random.Random(11)
    books = Books("r1")
    for number in range(12_000):
        is_canary = source.random() < weight
        failed = source.random() < 0.05
        takes = source.expovariate(1 / seconds[is_canary])
        books.send([
            sent(
                number / 20,
                CANARY if is_canary else STABLE,
                outcome="error" if failed else "answered",
                first_after=None if failed else takes,
                ends_after=0.1 if failed else takes,
            )
        ])  # fmt: skip
    found = counts(played([books], 800))
    for revision in (STABLE, CANARY):
        n, a = (sum(each) for each in zip(*found[revision].looks, strict=True))
        assert abs(a / n - 0.05) < 4 * (0.05 / n) ** 0.5


@pytest.mark.parametrize("leave_after", [30.0, 900.0])
def test_revision_when_it_answers_nothing_while_the_other_does_then_it_hangs(
    leave_after: float,
) -> None:
    books = Books("r1")
    outcome = "abandoned" if leave_after < 60 else "noFirstToken"
    for number in range(40):
        at = 10.0 * number
        books.send([
            sent(at, STABLE),
            sent(at, outcome=outcome, first_after=None, ends_after=leave_after),
        ])  # fmt: skip
    assert counts(played([books], 100))[CANARY].hanging == 0
    found = counts(_again(books, 130))
    assert found[CANARY].hanging >= 3
    assert found[STABLE].hanging == 0


def _again(books: Books, until: float) -> Cohorts:
    """The same router, read from its beginning."""
    cohorts = Cohorts(SINCE, 60)
    cohorts.take("r1", books.read(SINCE + until, everything=True), SINCE + until)
    cohorts.look(SINCE + until)
    return cohorts


@pytest.mark.parametrize("whole", [STABLE, CANARY])
def test_revision_when_nobody_answers_or_it_answers_at_times_then_it_does_not_hang(
    whole: str,
) -> None:
    books = Books("r1")
    for number in range(40):
        at = 10.0 * number
        books.send([sent(at, whole, outcome="abandoned", first_after=None, ends_after=30)])
    if whole == CANARY:  # it refuses now and then, so it lives
        books.send([sent(at, outcome="refused", first_after=None) for at in range(0, 400, 50)])
        books.send([sent(at, STABLE) for at in range(0, 400, 50)])
    found = counts(_again(books, 400))
    assert all(one.hanging == 0 for one in found.values())


def test_rows_when_a_router_says_more_than_any_can_then_they_are_refused() -> None:
    cohorts = Cohorts(SINCE, 60)
    many = (0,) * (2 + len(ENDED))
    with pytest.raises(TooManyRowsError):
        cohorts.take(
            "r1", [BookedRow(SINCE, at, CANARY, "split", 0, many) for at in range(10_000)], 0.0
        )
    cohorts = Cohorts(SINCE, 60)
    with pytest.raises(TooManyRowsError):
        cohorts.take(
            "r1", [BookedRow(SINCE, 1, f"{at:x}", "split", 0, many) for at in range(200_000)], 0.0
        )


def test_rows_when_they_are_of_a_revision_that_is_not_judged_then_they_count_nowhere() -> None:
    books = Books("r1")
    books.send([sent(1), sent(1, "c000000003")])
    cohorts = Cohorts(SINCE, 60, frozenset({STABLE, CANARY}))
    cohorts.take("r1", books.read(SINCE + 60), SINCE + 60)
    assert set(counts(cohorts)) == {CANARY}
