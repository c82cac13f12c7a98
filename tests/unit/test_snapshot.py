"""Snapshots: a cache of the fold that may be missing, broken or foreign, never wrong."""

import os
from typing import Any

import msgspec
import pytest

from services.kit import snapshot
from services.kit.events import Body
from services.kit.paths import Layout
from tests.toy import Counter, Seen, seen

EPOCH, CODE = b"e" * 16, "1:Seen"


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "P")
    made.make()
    return made


def fold(bodies: list[Body], state: Seen | None = None) -> Seen:
    service = Counter()
    state = service.empty() if state is None else state
    for body in bodies:
        service.apply(state, body, 0.0)
    return state


def load(layout: Layout, **changes: Any) -> tuple[int, Seen] | None:
    given = {"epoch": EPOCH, "head": 100, "code": CODE, "kind": Seen, **changes}
    return snapshot.load(layout, "counter", **given)


def files(layout: Layout):
    return sorted((layout.snapshots / "counter").glob("*.msgpack"))


def test_snapshot_and_tail_fold_to_what_all_events_fold_to(layout):
    bodies: list[Body] = [seen(i % 17) for i in range(60)]
    for k in (1, 20, 59, 60):
        snapshot.save(layout, "counter", EPOCH, k, CODE, fold(bodies[:k]))
        found = load(layout)
        assert found is not None
        seq, state = found
        assert seq == k and fold(bodies[seq:], state) == fold(bodies)


def test_the_newest_three_are_kept(layout):
    for seq in (1, 9, 10, 99, 100):
        snapshot.save(layout, "counter", EPOCH, seq, CODE, fold([seen(seq)]))
    assert [path.stem for path in files(layout)] == [f"{n:012d}" for n in (10, 99, 100)]
    assert load(layout) == (100, fold([seen(100)]))
    assert load(layout, head=99) == (99, fold([seen(99)])), "one ahead of the journal is not used"


@pytest.mark.parametrize("change", ["empty", "cut", "flipped", "noise", "gone", "folder"])
def test_a_broken_one_is_passed_over(layout, change):
    for seq in (1, 2):
        snapshot.save(layout, "counter", EPOCH, seq, CODE, fold([seen(seq)]))
    path = files(layout)[-1]
    data = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "gone":
        broken = {
            "empty": b"",
            "cut": data[:-5],
            "flipped": data.replace(b"m000002", b"m000003"),
            "noise": os.urandom(len(data)),
        }
        path.write_bytes(broken[change])
    assert load(layout) == (1, fold([seen(1)]))


def test_any_bit_that_flips_in_the_state_is_noticed(layout):
    snapshot.save(layout, "counter", EPOCH, 1, CODE, fold([seen(1)]))
    (path,) = files(layout)
    good = path.read_bytes()
    start = good.index(b"m000001") - 20
    for place in range(start, len(good), 3):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(bad))
        assert load(layout) is None, place


def test_a_foreign_one_is_not_used(layout):
    snapshot.save(layout, "counter", EPOCH, 1, CODE, fold([seen(1)]))
    assert load(layout, epoch=b"x" * 16) is None
    assert load(layout, code="2:Seen") is None

    class Other(msgspec.Struct):
        count: list[int]

    assert load(layout, kind=Other) is None
    assert snapshot.load(layout, "other", EPOCH, 100, CODE, Seen) is None
    assert load(layout) is not None
