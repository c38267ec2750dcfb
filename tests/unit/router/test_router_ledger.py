"""The ledger: what the module's C books, read by the agent, without Envoy."""

from __future__ import annotations

import ctypes
import re
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hack import native
from prometheus_client import CollectorRegistry

from llmfleet_router import ledger_report
from llmfleet_router.ledger import (
    CLASSES,
    OUTCOMES,
    SLOT_SECONDS,
    TIME_BOUNDS_SECONDS,
    TIMES,
    Ledger,
    LedgerError,
)
from llmfleet_router.ledger_metrics import LedgerMetrics
from llmfleet_router.ledger_report import report_ledger
from llmfleet_router.settings import Settings

REVISION = "a000000001"
ROWS = 32000


class Text(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("length", ctypes.c_size_t))


class End(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_uint),
        ("is_client_gone", ctypes.c_bool),
        ("timeout_ms", ctypes.c_uint64),
    )


class Booking(ctypes.Structure):
    _fields_ = (("generation", ctypes.c_uint64), ("kind", ctypes.c_uint))


class Sent(ctypes.Structure):
    _fields_ = (
        ("ledger", ctypes.c_void_p),
        ("key", ctypes.c_uint8 * 32),
        ("row", ctypes.c_void_p),
        ("birth", ctypes.c_uint64),
        ("at_ms", ctypes.c_uint64),
        ("failure", ctypes.c_uint),
        ("is_first_there", ctypes.c_bool),
        ("is_over", ctypes.c_bool),
        ("has_other", ctypes.c_bool),
    )


def _text(words: str) -> Text:
    return Text(words.encode(), len(words.encode()))


@dataclass
class Module:
    """The module's C with a table of its own."""

    library: ctypes.CDLL
    path: Path
    table: int

    def send(
        self, how: str = "7 split", revision: str = REVISION, size: int = 100, other: str = ""
    ) -> Sent:
        booking = Booking()
        assert self.library.read_booking(_text(how), ctypes.byref(booking))
        sent = Sent()
        cluster = f"arm-{revision}_{other}" if other else f"rev-{revision}"
        self.library.count_sent(
            ctypes.byref(sent), self.table, ctypes.byref(booking), _text(cluster), size
        )
        return sent

    def end(
        self, sent: Sent, status: int = 200, *, gone: bool = False, timeout: int = 60000
    ) -> None:
        self.library.count_end(ctypes.byref(sent), End(status, gone, timeout))

    def booked(self, kind: int = 0) -> dict[str, int]:
        """What all cohorts of a class count together, without zeros."""
        totals = [0] * len(OUTCOMES)
        for cohort in Ledger(self.path).cohorts_since(0):
            if cohort.key.kind == kind:
                totals = [a + b for a, b in zip(totals, cohort.counts, strict=False)]
        return {name: n for name, n in zip(OUTCOMES, totals, strict=True) if n}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    sources = [native.SOURCES / "ledger.c", native.SOURCES / "counting.c"]
    path = native.compiled("ledger.so", sources, ("-shared", "-fPIC", "-O2", "-std=c11"))
    loaded = ctypes.CDLL(str(path))
    loaded.ledger_make.restype = ctypes.c_void_p
    loaded.read_booking.restype = ctypes.c_bool
    loaded.read_booking.argtypes = (Text, ctypes.c_void_p)
    loaded.count_sent.argtypes = (
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        Text,
        ctypes.c_uint64,
    )
    loaded.count_own_answer.argtypes = (ctypes.c_void_p, Text)
    loaded.count_pod.argtypes = (ctypes.c_void_p, ctypes.c_double)
    loaded.count_elsewhere.restype = ctypes.c_bool
    loaded.count_elsewhere.argtypes = (ctypes.c_void_p, Text)
    loaded.count_end.argtypes = (ctypes.c_void_p, End)
    return loaded


@pytest.fixture
def module(library: ctypes.CDLL, tmp_path: Path) -> Module:
    path = tmp_path / "ledger"
    table = library.ledger_make(str(path).encode())
    assert table
    return Module(library, path, table)


Step = Callable[[Module, Sent], None]


def _first(module: Module, sent: Sent) -> None:
    module.library.count_first(ctypes.byref(sent))


def _over(module: Module, sent: Sent) -> None:
    sent.is_over = True


def _own(details: str) -> Step:
    return lambda module, sent: module.library.count_own_answer(ctypes.byref(sent), _text(details))


@pytest.mark.parametrize(
    ("steps", "end", "expected"),
    [
        ((_first, _over), {}, {"first": 1, "answered": 1}),
        ((_over,), {}, {"first": 1, "answered": 1}),
        ((_first,), {}, {"first": 1, "cut": 1}),
        ((), {}, {"reset": 1}),
        ((_first,), {"gone": True}, {"first": 1, "answered": 1}),
        ((), {"gone": True}, {"abandoned": 1}),
        ((), {"status": 0, "gone": True}, {"abandoned": 1}),
        ((), {"status": 0, "gone": True, "timeout": 0}, {"noFirstToken": 1}),
        ((), {"status": 0}, {"reset": 1}),
        ((_over,), {"status": 400}, {"badRequest": 1}),
        ((), {"status": 400, "gone": True}, {"badRequest": 1}),
        ((_over,), {"status": 401}, {"unauthorized": 1}),
        ((_over,), {"status": 403}, {"unauthorized": 1}),
        ((_over,), {"status": 404}, {"notFound": 1}),
        ((_over,), {"status": 409}, {"otherClient": 1}),
        ((_over,), {"status": 413}, {"tooLarge": 1}),
        ((_over,), {"status": 422}, {"unprocessable": 1}),
        ((_over,), {"status": 429}, {"refused": 1}),
        ((_over,), {"status": 500}, {"error": 1}),
        ((_over,), {"status": 503}, {"refused": 1}),
        ((_over,), {"status": 504}, {"error": 1}),
        (
            (_own("upstream_reset_before_response_started{remote_connection_failure|x}"), _over),
            {"status": 503},
            {"connect": 1},
        ),
        (
            (_own("upstream_reset_before_response_started{connection_timeout}"), _over),
            {"status": 503},
            {"connect": 1},
        ),
        (
            (_own("upstream_reset_before_response_started{connection_termination}"), _over),
            {"status": 503},
            {"reset": 1},
        ),
        ((_own("no_healthy_upstream"), _over), {"status": 503}, {"connect": 1}),
        ((_own("stream_idle_timeout"), _over), {"status": 504}, {"noFirstToken": 1}),
        (
            (_first, _own("stream_idle_timeout")),
            {"status": 504},
            {"first": 1, "cut": 1},
        ),
        (
            (_first, _own("upstream_reset_after_response_started{connection_termination}")),
            {"status": 200},
            {"first": 1, "cut": 1},
        ),
    ],
)  # fmt: skip
def test_request_when_it_ends_then_it_is_booked_once_as_what_it_was(
    module: Module, steps: tuple[Step, ...], end: dict[str, Any], expected: dict[str, int]
) -> None:
    sent = module.send()
    assert module.booked() == {"sent": 1}
    for step in steps:
        step(module, sent)
    module.end(sent, **end)
    module.end(sent, **end)  # nothing is booked twice
    assert module.booked() == {"sent": 1, **expected}


def test_cohort_when_sent_then_it_has_slot_generation_revision_class_and_size(
    module: Module,
) -> None:
    before = int(time.time()) // SLOT_SECONDS
    for size in (0, 1023, 1024, 8 << 20):
        module.send("9223372036854775807 preview", size=size)
    keys = [cohort.key for cohort in Ledger(module.path).cohorts_since(0)]
    assert {key.generation for key in keys} == {2**63 - 1}
    assert {key.revision for key in keys} == {REVISION}
    assert {CLASSES[key.kind] for key in keys} == {"preview"}
    assert sorted(key.size for key in keys) == [0, 1, 14]
    assert all(before <= key.slot <= int(time.time()) // SLOT_SECONDS for key in keys)


@pytest.mark.parametrize(
    "how",
    ["", "7", "7 ", "split", "-1 split", "7  split", "7 young", "7 Split", "7 split a", "7 splits",
     "9223372036854775808 split"],
)  # fmt: skip
def test_booking_when_it_is_anything_else_then_it_is_refused(
    library: ctypes.CDLL, how: str
) -> None:
    assert not library.read_booking(_text(how), ctypes.byref(Booking()))


@pytest.mark.parametrize(
    "cluster",
    ["", "mirror-a000000001", "rev", "rev-" + "a" * 17, "arm-a", f"arm-{'a' * 17}_b"],
)
def test_request_when_its_cluster_is_no_revision_s_then_it_is_not_counted(
    module: Module, cluster: str
) -> None:
    sent, booking = Sent(), Booking(7, 0)
    module.library.count_sent(
        ctypes.byref(sent), module.table, ctypes.byref(booking), _text(cluster), 1
    )
    module.end(sent)
    assert module.booked() == {}


@pytest.mark.parametrize("first", [False, True])
def test_pod_when_it_was_ready_for_less_than_a_minute_then_its_requests_are_young(
    module: Module, first: bool
) -> None:
    old, young = module.send(), module.send()
    if first:
        _first(module, young)
    module.library.count_pod(ctypes.byref(old), time.time() - 70)
    module.library.count_pod(ctypes.byref(young), time.time() - 20)
    for sent in (old, young):
        sent.is_over = True
        module.end(sent)
    one = {"sent": 1, "first": 1, "answered": 1}
    assert module.booked() == one
    assert module.booked(CLASSES.index("young")) == one


def test_first_token_when_it_comes_then_its_time_is_in_the_histogram_of_the_minute(
    module: Module,
) -> None:
    sent = module.send()
    sent.at_ms -= 300
    _first(module, sent)
    (times,) = [c for c in Ledger(module.path).cohorts_since(0) if c.key.kind == TIMES]
    assert times.key.slot * SLOT_SECONDS % 60 == 0
    (bucket,) = [at for at, n in enumerate(times.counts) if n]
    assert TIME_BOUNDS_SECONDS[bucket - 1] <= 0.3 <= TIME_BOUNDS_SECONDS[bucket]


def test_outcomes_when_compared_with_the_module_s_then_they_are_the_same(
    library: ctypes.CDLL,
) -> None:
    header = (native.SOURCES / "ledger.h").read_text()
    outcomes, kinds = (
        re.findall(r"^  k(\w+),", part, re.MULTILINE)
        for part in re.findall(r"^enum \w+ \{(.*?)^\};", header, re.MULTILINE | re.DOTALL)
    )

    def plain(names: Any) -> list[str]:
        return [name.lower() for name in names]

    assert plain(outcomes) == [*plain(n.removesuffix("Token") for n in OUTCOMES), "outcomes"]
    assert plain(kinds) == [*CLASSES, "times", "classes"]
    bounds = [library.bucket_of(ctypes.c_uint64(round(1000 * b))) for b in TIME_BOUNDS_SECONDS]
    assert bounds == list(range(len(TIME_BOUNDS_SECONDS)))


def test_rows_when_more_are_made_than_there_are_then_the_oldest_are_lost_and_nothing_else(
    module: Module,
) -> None:
    held = module.send()
    for generation in range(ROWS + 100):
        module.send(f"{generation} split")
    module.end(held)  # its row is another one's now
    assert module.booked() == {"sent": ROWS}


def test_rows_when_many_cohorts_are_written_in_turn_then_none_is_made_twice(module: Module) -> None:
    sizes = [1 << bits for bits in range(9, 23)]
    for _ in range(200):
        for revision in ("a000000001", "b000000002"):
            for size in sizes:
                module.send(revision=revision, size=size)
    assert len(list(Ledger(module.path).rows())) <= 2 * 2 * len(sizes)  # the slot may change once


def test_ledger_when_no_new_one_can_be_made_then_the_old_one_is_gone(module: Module) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert not module.library.ledger_make(str(module.path).encode())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(LedgerError):
        Ledger(module.path).epoch()
    assert list(module.path.parent.glob(f"{module.path.name}*")) == []


def test_ledger_when_another_envoy_makes_one_at_once_then_its_file_is_left_alone(
    module: Module,
) -> None:
    """Cut short under whoever has it mapped, it would end him with SIGBUS."""
    names = [f"{module.path.name}.new", f"{module.path.name}.a1B2c3"]
    made_by_others = [module.path.with_name(name) for name in names]
    for each in made_by_others:
        each.write_bytes(bytes(8192))
    assert module.library.ledger_make(str(module.path).encode())
    assert [each.stat().st_size for each in made_by_others] == [8192, 8192]


def test_ledger_when_its_file_is_deleted_then_the_agent_reads_on(module: Module) -> None:
    module.send()
    ledger = Ledger(module.path)
    assert list(ledger.rows())
    module.path.unlink()
    module.send()
    assert ledger.cohorts_since(0)[0].counts[0] == 2


def test_metrics_when_two_scrapes_come_at_once_then_nothing_is_added_twice(module: Module) -> None:
    metrics = LedgerMetrics(Settings(namespace="team-a", name="chat"), Ledger(module.path))
    metrics.update()
    for generation in range(2000):
        module.send(f"{generation} split")
    threads = [threading.Thread(target=metrics.update) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _page(metrics)[f"llmfleet_router_sent_total/{REVISION}"] == 2000


def test_metrics_when_the_agent_starts_beside_a_table_then_they_begin_at_nothing(
    module: Module,
) -> None:
    """A sum that was counted before would be taken for new by whoever reads counters."""
    for _ in range(10):
        module.send()
    metrics = LedgerMetrics(Settings(namespace="team-a", name="chat"), Ledger(module.path))
    assert _page(metrics) == {}
    module.send()
    assert _page(metrics) == {f"llmfleet_router_sent_total/{REVISION}": 1}


def test_threads_when_both_book_in_a_cohort_then_its_rows_are_added_up(module: Module) -> None:
    def work() -> None:
        for _ in range(1000):
            sent = module.send()
            sent.is_over = True
            module.end(sent)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert module.booked() == {"sent": 4000, "first": 4000, "answered": 4000}


def test_report_when_asked_again_then_only_what_changed_comes(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_report, "STILL_CHANGING_SECONDS", 0)
    module.send("1 split", "a")
    kept = module.send("2 split", "b")
    first = report_ledger(Ledger(module.path), 0, {"pod": "p"})
    assert {row[2] for row in first["rows"]} == {"a", "b"}
    assert first["pod"] == "p"
    time.sleep(0.002)  # the next millisecond
    kept.is_over = True
    module.end(kept)
    again = report_ledger(Ledger(module.path), first["next"], {})
    (row,) = again["rows"]
    assert dict(zip(again["columns"], row, strict=True)) == {
        "slot": row[0], "generation": 2, "revision": "b", "class": "split", "size": 0,
        **dict.fromkeys(OUTCOMES, 0), "sent": 1, "first": 1, "answered": 1,
    }  # fmt: skip
    assert again["epoch"] == first["epoch"]
    assert not again["more"]


def test_report_when_it_is_too_long_then_the_rest_comes_with_the_next(module: Module) -> None:
    for generation in range(500):
        module.send(f"{generation} split", "a")
        time.sleep(0.0001)
    seen: set[int] = set()
    since, answers, more = 0, 0, True
    while more:
        answer = report_ledger(Ledger(module.path), since, {}, largest=3000)
        seen |= {row[1] for row in answer["rows"]}
        since, more = answer["next"], answer["more"]
        answers += 1
    assert seen == set(range(500))
    assert answers > 3


def _page(metrics: LedgerMetrics) -> dict[str, float]:
    """Samples of this revision's series, without zeros, by name and last label."""
    metrics.update()
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        f"{sample.name}/{list(sample.labels.values())[-1]}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value and sample.labels["revision"] == REVISION
    }


def test_metrics_when_rows_grow_move_and_go_then_counters_only_rise(module: Module) -> None:
    metrics = LedgerMetrics(Settings(namespace="team-a", name="chat"), Ledger(module.path))
    assert _page(metrics) == {}
    sent = module.send()
    assert _page(metrics) == {f"llmfleet_router_sent_total/{REVISION}": 1}
    sent.at_ms -= 300
    _first(module, sent)
    module.library.count_pod(ctypes.byref(sent), time.time())
    sent.is_over = True
    module.end(sent)
    ended = {
        f"llmfleet_router_sent_total/{REVISION}": 1,
        "llmfleet_router_outcomes_total/answered": 1,
        "llmfleet_router_first_token_seconds_bucket/0.4": 1,
        "llmfleet_router_first_token_seconds_bucket/+Inf": 1,
    }
    assert ended.items() <= _page(metrics).items()
    assert "llmfleet_router_first_token_seconds_bucket/0.25" not in _page(metrics)
    assert module.library.ledger_make(str(module.path).encode())  # Envoy starts anew
    assert ended.items() <= _page(metrics).items()


def test_ledger_when_envoy_starts_anew_then_the_new_table_is_read(module: Module) -> None:
    module.send()
    ledger = Ledger(module.path)
    before = ledger.epoch()
    assert list(ledger.rows())
    assert module.library.ledger_make(str(module.path).encode())
    assert ledger.epoch() > before
    assert not list(ledger.rows())


@pytest.mark.parametrize("content", [None, b"", b"x" * 10, b"\0" * 5_000_000])
def test_ledger_when_there_is_none_or_another_then_it_is_said(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ledger"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError):
        Ledger(path).epoch()


def test_ledger_when_the_file_cannot_be_made_then_nothing_is_counted(
    library: ctypes.CDLL, tmp_path: Path
) -> None:
    assert not library.ledger_make(str(tmp_path / "no" / "ledger").encode())
    assert not library.ledger_make(b"x" * 5000)
    nowhere = Module(library, tmp_path, 0)
    sent = nowhere.send()
    nowhere.end(sent)


@pytest.mark.parametrize("first", [False, True])
def test_request_when_another_revisions_pod_answers_then_its_own_was_not_connected_to(
    module: Module, first: bool
) -> None:
    sent = module.send(other="b000000002")
    assert module.library.count_elsewhere(ctypes.byref(sent), _text("b000000002"))
    if not first:
        sent.is_over = True
    module.end(sent)
    assert module.booked() == {"sent": 1, "connect": 1}


@pytest.mark.parametrize("revision", [REVISION, "a" * 16])
def test_request_when_its_own_pod_answers_then_it_is_booked_as_what_it_was(
    module: Module, revision: str
) -> None:
    sent = module.send(revision=revision, other="b000000002")
    assert {c.key.revision for c in Ledger(module.path).cohorts_since(0)} == {revision}
    assert not module.library.count_elsewhere(ctypes.byref(sent), _text(revision))
    sent.is_over = True
    module.end(sent)
    assert module.booked() == {"sent": 1, "first": 1, "answered": 1}
