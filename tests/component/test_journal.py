"""The journal on a real disk: all or nothing, one writer, and damage that is noticed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from services.kit import journal as journals
from services.kit.errors import Fatal, Misuse
from services.kit.events import SCHEMA, MicrographRefused, decode, encode
from services.kit.journal import Attempt, Cursor, Draft, Journal, NotReady, Reader, chain_hash
from tests.toy import seen

EPOCH = b"p" * 16


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "emitter.sqlite"


@contextmanager
def opened(path: Path, producer: str = "emitter", session: str = "s1") -> Iterator[Journal]:
    journal = Journal(path, producer, session)
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    reader = Reader(path)
    try:
        yield reader
    finally:
        reader.close()


def drafts(first: int, count: int) -> list[Draft]:
    return [Draft(seen(number), 1000.0 + number) for number in range(first, first + count)]


def movies(journal: Journal | Reader) -> list[int]:
    found = list(journal.read())
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [int(event.subject[-6:]) for event in found]


def change(path: Path, statement: str, *arguments: object) -> None:
    """Change a journal behind its producer's back."""
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, arguments)
    db.close()


# ---- one transaction


def test_events_cursors_and_attempts_survive_together(path):
    with opened(path) as journal:
        events = journal.commit(
            drafts(1, 2),
            {"mdcatch": Cursor(EPOCH, 7)},
            [Attempt("k1", 1, 1, 0, "running"), Attempt("k2", 2, 2, 1, "a worker died")],
        )
        journal.commit(drafts(3, 1), {"mdcatch": Cursor(EPOCH, 9)}, closed=["k1"])
        assert journal.head == 3
    with opened(path) as journal:
        assert movies(journal) == [1, 2, 3] and journal.head == 3
        assert journal.cursors() == {"mdcatch": Cursor(EPOCH, 9)}
        assert journal.attempts() == {"k2": Attempt("k2", 2, 2, 1, "a worker died")}
        assert list(journal.read(1, 2)) == events
        assert [e.seq for e in journal.read(2)] == [2, 3] and list(journal.read(4)) == []


def test_an_event_tells_where_it_comes_from(path):
    with opened(path) as journal:
        (cause,) = journal.commit(drafts(1, 1))
        (event,) = journal.commit([Draft(seen(2), 5.0, cause.uid)])
        assert event == next(journal.read(2))
        assert (event.producer, event.session, event.schema, event.at) == (
            "emitter",
            "s1",
            SCHEMA,
            5.0,
        )
        assert event.cause == cause.uid != event.uid and event.epoch == journal.epoch
        assert event.prev == cause.hash and cause.prev == journal.epoch.ljust(32, b"\0")
        assert event.hash == chain_hash(cause.hash, 2, "movie.seen", encode(seen(2)))


_CHILD = """
import sys
from pathlib import Path
from services.kit.faults import name_process
from services.kit.journal import Attempt, Cursor, Journal
from tests.component.test_journal import EPOCH, drafts
name_process("emitter")
journal = Journal(Path(sys.argv[1]), "emitter", "s1")
journal.commit(drafts(1, 1), {"mdcatch": Cursor(EPOCH, 1)}, [Attempt("k1", 1, 1, 0, "running")])
print("acknowledged", flush=True)
Path(sys.argv[2]).touch()
journal.commit(drafts(2, 3), {"mdcatch": Cursor(EPOCH, 4)}, [Attempt("k2", 1, 1, 0, "running")],
    closed=["k1"])
print("acknowledged too", flush=True)
"""


@pytest.mark.parametrize("point", ["after-append-before-commit", "after-commit-before-bell"])
def test_a_kill_leaves_all_of_a_transaction_or_none(path, tmp_path, point):
    result = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), str(tmp_path / f"emitter.{point}")],
        env={**os.environ, "COLDSTREAM_CRASH_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, "acknowledged\n"), result.stderr
    with opened(path) as journal:
        if point == "after-append-before-commit":
            assert movies(journal) == [1] and journal.cursors() == {"mdcatch": Cursor(EPOCH, 1)}
            assert list(journal.attempts()) == ["k1"]
        else:
            assert movies(journal) == [1, 2, 3, 4]
            assert journal.cursors() == {"mdcatch": Cursor(EPOCH, 4)}
            assert list(journal.attempts()) == ["k2"]


def test_a_transaction_that_fails_is_fatal_and_leaves_nothing(path):
    with opened(path) as journal:
        journal.commit(drafts(1, 1))
        broken = Attempt("k", 1, 1, 0, None)  # pyright: ignore[reportArgumentType]
        with pytest.raises(Fatal, match="could not be written"):
            journal.commit(drafts(2, 5), {"mdcatch": Cursor(EPOCH, 5)}, [broken])
    with opened(path) as journal:
        assert movies(journal) == [1] and not journal.cursors() and not journal.attempts()


def test_a_full_disk_is_fatal_and_nothing_acknowledged_is_lost(path):
    with opened(path) as journal:
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count={pages + 5}")
        acknowledged = 0
        with pytest.raises(Fatal, match="full"):
            for number in range(10_000):
                journal.commit(drafts(number, 10))
                acknowledged += 10
    with opened(path) as journal:
        assert journal.head == acknowledged == len(movies(journal)) > 0


# ---- damage


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("column", ["body", "prev", "hash", "kind"])
@pytest.mark.parametrize("seq", [1, 25, 50])
def test_a_flipped_bit_is_found_at_its_event(path, column, seq):
    with opened(path) as journal:
        journal.commit(drafts(1, 50))
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    value = db.execute("SELECT * FROM event WHERE seq = ?", (seq,)).fetchone()[column]
    db.close()
    bad = flip(value) if isinstance(value, bytes) else "movie.seem"
    statement = {
        "body": "UPDATE event SET body = ? WHERE seq = ?",
        "prev": "UPDATE event SET prev = ? WHERE seq = ?",
        "hash": "UPDATE event SET hash = ? WHERE seq = ?",
        "kind": "UPDATE event SET kind = ? WHERE seq = ?",
    }[column]
    change(path, statement, bad, seq)
    with reading(path) as reader:
        assert reader.first_broken() == seq
    with pytest.raises(Fatal, match=f"damaged at event {seq}:"):
        Journal(path, "emitter", "s1")


@pytest.mark.parametrize("seq", [1, 30])
def test_a_missing_event_is_found(path, seq):
    with opened(path) as journal:
        journal.commit(drafts(1, 50))
    change(path, "DELETE FROM event WHERE seq = ?", seq)
    with reading(path) as reader:
        assert reader.first_broken() == seq + 1
    with pytest.raises(Fatal, match=f"damaged at event {seq + 1}:"):
        Journal(path, "emitter", "s1")


def test_two_events_that_were_exchanged_are_found(path):
    with opened(path) as journal:
        journal.commit(drafts(1, 5))
    for old, new in ((2, 99), (3, 2), (99, 3)):
        change(path, "UPDATE event SET seq = ? WHERE seq = ?", new, old)
    with reading(path) as reader:
        assert reader.first_broken() == 2


def test_old_damage_is_found_by_the_full_check_and_does_not_stop_the_session(path):
    with opened(path) as journal:
        journal.commit(drafts(1, journals.TAIL + 100))
        assert journals.first_broken(journal._db, journal.epoch) is None
    change(path, "UPDATE event SET body = ? WHERE seq = 50", encode(seen(7)))
    with opened(path) as journal:
        journal.commit(drafts(9000, 1))
    with reading(path) as reader:
        assert reader.first_broken() == 50


@pytest.mark.parametrize("damage", ["noise", "no database", "page"])
def test_a_file_that_is_no_journal_any_more_is_fatal(path, damage):
    with opened(path) as journal:
        journal.commit(drafts(1, 500))
    data = bytearray(path.read_bytes())
    if damage == "noise":
        data[:100] = os.urandom(100)
    elif damage == "no database":
        data[:] = b"this is a text file\n" * 1000
    else:
        data[5 * 4096 : 7 * 4096] = bytes(2 * 4096)
    path.write_bytes(data)
    with pytest.raises(Fatal, match="damaged"):
        Journal(path, "emitter", "s1")
    path.write_bytes(b"")
    with opened(path) as journal:  # and the lock is not held by the one that failed
        assert journal.head == 0


def test_a_torn_write_ahead_log_keeps_every_acknowledged_event(path, tmp_path):
    wal = path.with_name(path.name + "-wal")
    acknowledged: list[tuple[int, int]] = []
    with opened(path) as journal:
        acknowledged.append((wal.stat().st_size, 0))
        for number in range(7):
            journal.commit(drafts(journal.head, 1 + number % 3), {"x": Cursor(EPOCH, number)})
            acknowledged.append((wal.stat().st_size, journal.head))
        epoch, main, log = journal.epoch, path.read_bytes(), wal.read_bytes()
    first = acknowledged[0][0]
    frame = 4096 + 24
    places = {end + shift for end, _ in acknowledged for shift in (-frame, -1, 0, 24)}
    places |= set(range(first, len(log), 5003))
    copy = tmp_path / "copy" / path.name
    for place in sorted(p for p in places if first <= p <= len(log)):
        # Not random bytes: the last one of a commit would be the right one once in 256 times.
        other = bytes(byte ^ 0xFF for byte in log[place:])
        for torn in (log[:place], log[:place] + other):
            shutil.rmtree(copy.parent, ignore_errors=True)
            copy.parent.mkdir()
            copy.write_bytes(main)
            copy.with_name(wal.name).write_bytes(torn)
            with opened(copy) as journal:
                expected = max(head for end, head in acknowledged if end <= place)
                assert journal.epoch == epoch and movies(journal) == list(range(expected)), place


# ---- who may write


def test_the_epoch_is_made_once(path):
    with opened(path) as journal:
        first = journal.epoch
    with opened(path) as journal:
        assert journal.epoch == first
    path.unlink()
    with opened(path) as journal:
        assert journal.epoch != first, "a new journal is told from the old one"


@pytest.mark.parametrize(("producer", "session"), [("prep", "s1"), ("emitter", "s2")])
def test_a_journal_of_another_is_refused(path, producer, session):
    with opened(path):
        pass
    with pytest.raises(Fatal, match=f"belongs to emitter of session s1, not to {producer}"):
        Journal(path, producer, session)


_HOLDER = """
import sys, time
from pathlib import Path
from services.kit.journal import Journal
journal = Journal(Path(sys.argv[1]), "emitter", "s1")
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_with_the_holders_name_until_the_holder_dies(path, monkeypatch):
    monkeypatch.setattr(journals, "LOCK_WAIT_S", 0.1)
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            name = f"held by emitter, process {holder.pid}: this session is already running"
            with pytest.raises(Misuse, match=name):
                Journal(path, "emitter", "s1")
        finally:
            holder.kill()
    with opened(path) as journal:
        journal.commit(drafts(1, 1))


def test_a_successor_waits_for_the_one_that_is_stopping(path):
    first = Journal(path, "emitter", "s1")
    first.commit(drafts(1, 1))
    descriptor = os.dup(first._lock)
    first.close()

    def let_go() -> None:
        time.sleep(0.3)
        os.close(descriptor)

    closer = threading.Thread(target=let_go)
    closer.start()
    begun = time.monotonic()
    with opened(path) as journal:
        assert movies(journal) == [1] and time.monotonic() - begun > 0.2
    closer.join()


# ---- readers


def test_a_reader_sees_a_whole_prefix_while_the_producer_writes(path):
    with opened(path) as journal:
        journal.commit(drafts(0, 3))
        with reading(path) as reader, reading(path) as slow:
            assert (reader.producer, reader.session) == ("emitter", "s1")
            half = slow.read()
            assert next(half).seq == 1
            for number in range(1, 40):
                journal.commit(drafts(3 * number, 3), {"mdcatch": Cursor(EPOCH, number)})
                found = movies(reader)
                assert found == list(range(3 * number + 3))
                assert reader.cursors() == {"mdcatch": Cursor(EPOCH, number)}
            assert [e.seq for e in half] == [2, 3], "what was begun before sees no half of later"
            assert [e.seq for e in reader.about(seen(7).movie)] == [8]
            assert reader.about("nobody") == []


def test_a_reader_can_look_after_the_producer_has_gone(path):
    with opened(path) as journal:
        journal.commit(drafts(0, 3))
    with reading(path) as reader:
        assert movies(reader) == [0, 1, 2] and reader.first_broken() is None
        with opened(path) as journal:
            journal.commit(drafts(3, 1))
        assert movies(reader) == [0, 1, 2, 3]


def test_a_reader_does_not_write(path):
    with opened(path):
        pass
    with reading(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM meta")


@pytest.mark.parametrize("stage", ["empty", "tables"])
def test_a_journal_that_is_not_ready_is_told_from_a_broken_one(path, stage):
    path.touch()
    if stage == "tables":
        change(path, "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT")
    with pytest.raises(NotReady, match="has not started yet"):
        Reader(path)
    with opened(path), reading(path) as reader:
        assert movies(reader) == []
    path.write_bytes(b"this is a text file\n" * 1000)
    with pytest.raises(Fatal, match="damaged"):
        Reader(path)


# ---- other versions


def test_an_event_of_a_newer_schema_is_fatal(path):
    with opened(path) as journal:
        journal.commit(drafts(1, 3))
    change(path, "UPDATE event SET schema = ? WHERE seq = 2", SCHEMA + 1)
    with opened(path) as journal, pytest.raises(Fatal, match=r"event 2 of emitter has schema 2"):
        list(journal.read())


def test_an_event_of_an_unknown_kind_is_fatal(path):
    with opened(path) as journal:
        journal.commit(drafts(1, 1))
    newer = msgspec.msgpack.encode({"kind": "movie.dreamt", "movie": "m"})
    digest = chain_hash(journal.epoch.ljust(32, b"\0"), 1, "movie.dreamt", newer)
    change(path, "UPDATE event SET kind='movie.dreamt', body=?, hash=?", newer, digest)
    with opened(path) as journal, pytest.raises(Fatal, match="event 1 of emitter cannot be read"):
        list(journal.read())


def test_an_event_from_before_a_field_was_added_is_read_and_keeps_its_bytes(path):
    with opened(path) as journal:
        journal.commit(drafts(1, 1))
    fields = {"kind": "micrograph.refused", "movie": "m", "stage": "s", "code": "C", "detail": ""}
    older = msgspec.msgpack.encode(fields)  # `attempts` has a default
    digest = chain_hash(journal.epoch.ljust(32, b"\0"), 1, "micrograph.refused", older)
    change(path, "UPDATE event SET kind='micrograph.refused', body=?, hash=?", older, digest)
    with opened(path) as journal:
        (event,), (row,) = journal.read(), journal.rows()
        assert isinstance(event.body, MicrographRefused) and event.body.attempts == 1
        assert row.body == older != encode(decode(older))
        journal.commit(drafts(2, 1))
    with reading(path) as reader:
        assert reader.first_broken() is None
