"""The journal against a model: whatever is committed, in whatever portions, comes back."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.events import Body, MicrographRefused, MovieSeen, ResultsOutdated, encode
from services.kit.journal import Attempt, Cursor, Draft, Journal, Reader, chain_hash

names = st.text(min_size=1, max_size=20)
bodies = st.one_of(
    st.builds(MovieSeen, movie=names, path=names),
    st.builds(
        MicrographRefused,
        movie=names,
        stage=names,
        code=names,
        detail=st.text(max_size=300),
        attempts=st.integers(0, 2**40),
    ),
    st.builds(ResultsOutdated, stage=names, movies=st.lists(names, max_size=30).map(tuple)),
)
keys = st.sampled_from("abc")
portions = st.fixed_dictionaries(
    {
        "bodies": st.lists(bodies, max_size=6),
        "cursors": st.dictionaries(
            keys, st.builds(Cursor, st.binary(min_size=16, max_size=16), st.integers(0, 2**40))
        ),
        "attempts": st.lists(
            st.builds(
                Attempt, keys, st.integers(1, 99), st.integers(1, 99), st.integers(0, 3), names
            ),
            max_size=3,
        ),
        "closed": st.lists(keys, max_size=2),
        "reopen": st.booleans(),
    }
)


def opened(folder: Path) -> Journal:
    return Journal(folder / "j.sqlite", "emitter", "s1")


def commit(journal: Journal, portion: dict) -> None:
    drafts = [Draft(body, 1.0) for body in portion["bodies"]]
    journal.commit(drafts, portion["cursors"], portion["attempts"], portion["closed"])


@settings(max_examples=40, deadline=None)
@given(st.lists(portions, max_size=8))
def test_what_was_committed_is_what_is_there(history):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = opened(folder)
        expected: list[Body] = []
        cursors: dict[str, Cursor] = {}
        attempts: dict[str, Attempt] = {}
        for portion in history:
            commit(journal, portion)
            expected += portion["bodies"]
            cursors |= portion["cursors"]
            attempts |= {row.key: row for row in portion["attempts"]}
            for key in portion["closed"]:
                attempts.pop(key, None)
            if portion["reopen"]:
                journal.close()
                journal = opened(folder)
            assert journal.head == len(expected)
            assert (journal.cursors(), journal.attempts()) == (cursors, attempts)
        found = list(journal.read())
        assert [event.body for event in found] == expected
        prev = journal.epoch.ljust(32, b"\0")
        for event, body in zip(found, expected, strict=True):
            kind = str(body.__struct_config__.tag)
            prev = chain_hash(prev, event.seq, kind, encode(body))
            assert event.hash == prev
        for subject in {event.subject for event in found}:
            reader = Reader(folder / "j.sqlite")
            assert reader.about(subject) == [e for e in found if e.subject == subject]
            reader.close()
        journal.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(portions, min_size=1, max_size=6), st.floats(0, 1), st.binary(max_size=5000))
def test_a_log_that_was_cut_anywhere_gives_back_all_that_was_acknowledged(history, where, noise):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = opened(folder)
        wal = folder / "j.sqlite-wal"
        marks = [(wal.stat().st_size, 0, journal.cursors())]
        for portion in history:
            commit(journal, portion)
            marks.append((wal.stat().st_size, journal.head, journal.cursors()))
        copy = folder / "copy"
        copy.mkdir()
        shutil.copy(folder / "j.sqlite", copy)
        log = wal.read_bytes()
        cut = round(marks[0][0] + where * (len(log) - marks[0][0]))
        (copy / wal.name).write_bytes(log[:cut] + noise)
        all_events = list(journal.read())
        journal.close()
        survivor = opened(copy)
        _, head, cursors = [mark for mark in marks if mark[0] <= cut][-1]
        assert survivor.head == head and survivor.cursors() == cursors
        assert list(survivor.read()) == all_events[:head]
        survivor.commit([Draft(MovieSeen(movie="next", path="p"), 1.0)])
        survivor.close()
        reader = Reader(copy / "j.sqlite")
        assert reader.first_broken() is None
        reader.close()
