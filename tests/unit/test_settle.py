"""When a file counts as complete: simulated writers, simulated time."""

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


def test_a_quiet_file_is_tested_after_settle_s_and_not_before():
    assert first_test(FileWatch("m", PACE), [10] * 20) == 102.0


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


def test_the_next_look_is_never_later_than_the_end_of_settling():
    watch = FileWatch("m", Pace(poll_s=1.5, settle_s=2.0, stuck_s=30.0))
    watch.observe(facts(1), 10.0)
    assert watch.look_at == 11.5
    watch.observe(facts(1), 11.5)
    assert watch.look_at == 12.0


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
    assert not watch.observe(facts(20), 60.0)
    assert watch.standing is Standing.SETTLING
    assert watch.observe(facts(20), 62.0)
    watch.passed("structure", 62.0)
    assert watch.standing is Standing.COMPLETE and watch.code is None


def test_what_growing_cannot_heal_is_refused_as_soon_as_the_file_has_settled():
    watch = FileWatch("m", PACE)
    watch.observe(facts(10), 0.0)
    assert watch.observe(facts(10), 2.0)
    watch.failed(Code.UNSUPPORTED, "EER", 2.0)
    assert watch.standing is Standing.REFUSED


def test_a_complete_file_is_not_tested_again_until_it_changes():
    watch = FileWatch("m", PACE)
    watch.observe(facts(10), 0.0)
    assert watch.observe(facts(10), 2.0)
    watch.passed("structure", 2.0)
    assert not watch.observe(facts(10), 50.0)
    assert watch.look_at > 50.5, "complete files are looked at less often"
    assert not watch.observe(facts(11), 60.0)
    assert watch.standing is Standing.SETTLING and watch.result is None


def test_a_file_that_changed_while_it_was_read_settles_again():
    watch = FileWatch("m", PACE)
    watch.observe(facts(10), 0.0)
    watch.observe(facts(10), 2.0)
    watch.passed("structure", 2.0)
    watch.again(2.0)
    assert watch.standing is Standing.SETTLING and watch.look_at == 2.0
    assert not watch.observe(facts(10), 2.0)
    assert watch.observe(facts(10), 4.0)
