"""The balancer's choice of a pod: beside a plain Python version, and what it promises."""

from __future__ import annotations

import ctypes
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hack import native

from tests.unit.router import reference
from tests.unit.router.reference import Pod


class CPod(ctypes.Structure):
    _fields_ = (
        ("hash", ctypes.c_uint64),
        ("active", ctypes.c_uint64),
        ("is_tried", ctypes.c_bool),
    )


class Span(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("length", ctypes.c_size_t))


def _load(balance: Path) -> ctypes.CDLL:
    sources = [balance, native.SOURCES / "key.c"]
    flags = ("-shared", "-fPIC", "-O2", "-std=c11")
    loaded = ctypes.CDLL(str(native.compiled("balance.so", sources, flags)))
    loaded.choose_pod.restype = ctypes.c_size_t
    loaded.choose_pod.argtypes = (ctypes.POINTER(CPod), ctypes.c_size_t, ctypes.c_uint64)
    loaded.pod_hash.restype = ctypes.c_uint64
    loaded.pod_hash.argtypes = (Span,)
    return loaded


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return _load(native.SOURCES / "balance.c")


def _choose(library: ctypes.CDLL, pods: Sequence[Pod], key: int) -> int:
    array = (CPod * len(pods))(*[CPod(pod.hash, pod.active, pod.is_tried) for pod in pods])
    return int(library.choose_pod(array, len(pods), key))


def _cases(count: int) -> Iterator[tuple[list[Pod], int]]:
    chance = random.Random(11)
    for _ in range(count):
        most, tried = chance.choice((1, 3, 30)), chance.choice((0.0, 0.2, 1.0))
        yield (
            [
                Pod(
                    hash=chance.getrandbits(64),
                    active=chance.randrange(most),
                    is_tried=chance.random() < tried,
                )
                for _ in range(chance.randrange(1, 9))
            ],
            chance.getrandbits(64),
        )


def _differences(library: ctypes.CDLL) -> int:
    return sum(
        _choose(library, pods, key) != reference.choose(pods, key) for pods, key in _cases(5_000)
    )


def test_choice_when_pods_are_random_then_it_is_the_plain_version_s(library: ctypes.CDLL) -> None:
    assert not _differences(library)


@pytest.mark.long
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("+ 100 * fresh - 1)", ")"),
        ("kBoundPercent = 125", "kBoundPercent = 150"),
        ("active = 1;", "active = 0;"),
        ("if (!pods[i].is_tried) active", "active"),
        ("height >= highest", "height <= highest"),
    ],
    ids=["rounding", "bound", "this request", "tried ones count", "order"],
)
def test_choice_when_a_mistake_is_made_then_the_plain_version_tells(
    tmp_path: Path, right: str, wrong: str
) -> None:
    for name in ("balance.h", "key.h", "balance.c"):
        text = (native.SOURCES / name).read_text()
        (tmp_path / name).write_text(text.replace(right, wrong))
    whole = "".join((native.SOURCES / name).read_text() for name in ("balance.h", "balance.c"))
    assert whole.count(right) == 1, right
    assert _differences(_load(tmp_path / "balance.c"))


def _idle(library: ctypes.CDLL, count: int) -> list[Pod]:
    addresses = [f"10.0.0.{i}:8000".encode() for i in range(count)]
    return [Pod(hash=library.pod_hash(Span(a, len(a))), active=0) for a in addresses]


def test_keys_when_a_pod_leaves_then_only_its_own_move_and_all_are_spread(
    library: ctypes.CDLL,
) -> None:
    pods = _idle(library, 8)
    keys = [random.Random(5).getrandbits(64) ^ i for i in range(8_000)]
    before = {key: _choose(library, pods, key) for key in keys}
    shares = Counter(before.values())
    # Binomial, 8,000 times 1/8: the standard deviation is 30; five of them.
    assert all(abs(shares[i] - 1_000) < 150 for i in range(8)), shares
    left = pods[:-1]
    moved = [key for key in keys if _choose(library, left, key) != before[key]]
    assert {before[key] for key in moved} == {7}


def test_hot_key_when_its_pod_is_busy_then_no_pod_exceeds_the_bound(library: ctypes.CDLL) -> None:
    pods = _idle(library, 4)
    for sent in range(1, 201):
        chosen = _choose(library, pods, 7)
        pods[chosen] = Pod(hash=pods[chosen].hash, active=pods[chosen].active + 1)
        assert max(pod.active for pod in pods) <= -(-sent * 125 // 400)


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("busy", [1, 5, 100])
def test_retry_when_the_tried_pod_is_the_idlest_then_another_one_is_chosen(
    library: ctypes.CDLL, count: int, busy: int
) -> None:
    dead, *others = _idle(library, count)
    pods = [
        Pod(hash=dead.hash, active=0, is_tried=True),
        *(Pod(hash=pod.hash, active=busy) for pod in others),
    ]
    assert 0 not in {_choose(library, pods, key) for key in range(200)}
