"""When a file counts as complete: simulated writers, simulated time."""

import itertools

import pytest

from mdcatch.settle import Facts, FileWatch, Pace, Standing
from services.kit.errors import Code

PACE = Pace(poll_s=0.5, settle_s=2.0, stuck_s=30.0)


def facts(size: int, mtime_ns: int = 1, inode: int = 7) -> Facts:
    return Facts(size, mtime_ns, inode)


def first_test(watch: FileWatch, sizes: list[int], start: float = 100.0) -> float | None:
    """Observe a growing file every half second; return when a test is first asked for."""
    for step, size in enumerate(sizes):
        if watch.observe(facts(size), start + 0.5 * step):
            return start + 0.5 * step
    return None


def settled(size: int = 10, start: float = 0.0) -> FileWatch:
    """Return the watch of a file whose test is asked for at this moment."""
    watch = FileWatch("m", PACE)
    assert [watch.observe(facts(size), start + s) for s in (0.0, 1.0, 2.0)] == [False, False, True]
    return watch


def test_a_quiet_file_is_tested_after_settle_s_and_not_before():
    assert first_test(FileWatch("m", PACE), [10] * 20) == 102.0


def test_time_alone_is_not_enough_three_looks_have_to_show_the_same():
    watch = FileWatch("m", PACE)
    assert not watch.observe(facts(10), 0.0)
    assert not watch.observe(facts(10), 50.0), "two looks: a cache may have answered both"
    assert watch.observe(facts(10), 50.5)


def test_a_dribbling_writer_is_never_tested_while_it_writes():
    dribble = [10 * (step // 3) for step in range(60)]  # grows every 1.5 s
    assert first_test(FileWatch("m", PACE), dribble) is None
    assert first_test(FileWatch("m", PACE), [*dribble, *[999] * 10]) == 100.0 + 30.0 + 2.0


@pytest.mark.parametrize(
    "change", [facts(11), facts(10, mtime_ns=2), facts(10, inode=8)], ids=["size", "mtime", "inode"]
)
def test_any_change_of_facts_starts_again(change: Facts):
    watch = FileWatch("m", PACE)
    assert not watch.observe(facts(10), 0.0)
    assert not watch.observe(change, 1.9)
    assert not watch.observe(change, 3.8)
    assert watch.observe(change, 3.9)


def test_a_share_that_gives_another_inode_to_every_look_does_not_hold_a_file_back():
    watch = FileWatch("m", PACE)
    looks = [watch.observe(facts(10, inode=step), 0.5 * step) for step in range(8)]
    assert looks.index(True) <= 6
    assert not watch.observe(facts(11, inode=99), 5.0), "a change of size still counts"


def test_the_looks_that_are_needed_fit_into_the_time_of_settling():
    watch = FileWatch("m", Pace(poll_s=1.5, settle_s=2.0, stuck_s=30.0))
    watch.observe(facts(1), 10.0)
    assert watch.look_at == 11.0
    watch.observe(facts(1), 11.0)
    assert watch.look_at == 12.0
    assert watch.observe(facts(1), 12.0)


def test_a_witness_shortens_settling_to_one_more_look():
    watch = FileWatch("m", Pace(poll_s=0.5, settle_s=20.0, stuck_s=30.0))
    assert not watch.observe(facts(10), 0.0)
    watch.vouched(0.2)
    assert watch.look_at == 0.5
    assert watch.observe(facts(10), 0.5)
    watch.passed("structure", 0.5)
    assert watch.complete_by == "witness"
    other = FileWatch("m", Pace(poll_s=0.5, settle_s=20.0, stuck_s=30.0))
    other.observe(facts(10), 0.0)
    other.vouched(0.2)
    assert not other.observe(facts(11), 0.5), "what changes is not complete, whoever says so"


def test_a_file_that_does_not_heal_is_refused_after_stuck_s_and_again_looked_at_when_it_changes():
    watch = FileWatch("m", PACE)
    now, tests, refused_at = 0.0, 0, None
    while now < 60.0:
        if watch.observe(facts(10), now):
            tests += 1
            watch.failed(Code.TRUNCATED, "the end is missing", now)
            if refused_at is None and watch.standing is Standing.REFUSED:
                refused_at = now
        now = max(now + 0.01, watch.look_at)
    assert refused_at == pytest.approx(30.0, abs=0.02)
    assert tests < 12, "tests of an unchanged file are spaced out"
    assert [watch.observe(facts(20), 60.0 + s) for s in (0.0, 1.0, 2.0)] == [False, False, True]
    assert watch.standing is Standing.SETTLING
    watch.passed("structure", 62.0)
    assert watch.standing is Standing.COMPLETE and watch.code is None


def test_a_refused_file_is_tested_once_a_minute_for_a_day_and_then_only_when_it_changes():
    watch = FileWatch("m", PACE)
    now, tests = 0.0, []
    while now < 3 * 86_400.0:
        if watch.observe(facts(10), now):
            tests.append(now)
            watch.failed(Code.TRUNCATED, "the end is missing", now)
        now = max(now + 0.01, watch.look_at)
    pauses = [b - a for a, b in itertools.pairwise(tests)]
    assert max(pauses) <= 130.0 and len(tests) > 700
    assert tests[-1] < 86_400.0 + 200.0
    assert [watch.observe(facts(11), now + s) for s in (0.0, 1.0, 2.0)] == [False, False, True]


def test_what_growing_cannot_heal_is_refused_as_soon_as_the_file_has_settled():
    watch = settled()
    watch.failed(Code.UNSUPPORTED, "another kind of file", 2.0)
    assert watch.standing is Standing.REFUSED


def test_a_file_that_ended_its_parser_is_not_given_to_it_again():
    watch = settled()
    watch.failed(Code.POISON, "it ended its parser", 2.0)
    assert watch.standing is Standing.REFUSED
    assert not any(watch.observe(facts(10), 100.0 * step) for step in range(1, 50))


def test_a_complete_file_is_not_tested_again_until_it_changes():
    watch = settled()
    watch.passed("structure", 2.0)
    assert not watch.observe(facts(10), 50.0)
    assert watch.look_at > 50.5, "complete files are looked at less often"
    assert not watch.observe(facts(11), 60.0)
    assert watch.standing is Standing.SETTLING and watch.result is None


def test_a_file_that_changed_while_it_was_read_settles_again():
    watch = settled()
    watch.passed("structure", 2.0)
    watch.again(2.0)
    assert watch.standing is Standing.SETTLING and watch.look_at == 2.0
    assert [watch.observe(facts(10), s) for s in (2.0, 3.0, 4.0)] == [False, False, True]
