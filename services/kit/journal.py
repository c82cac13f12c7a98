"""The truth: one SQLite file per producer and session, appended to by one process.

What `commit` returned is on disk (WAL, synchronous=FULL). A consumer's cursor, its own output
events and its attempts are one transaction, so a crash leaves all of them or none. Each row is
hash-chained to the one before. Source: reliability.md section 2.3.
"""

import fcntl
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.kit.errors import Fatal, Misuse
from services.kit.events import SCHEMA, Body, Event, decode, encode, kind_of, subject_of
from services.kit.faults import crash_point
from services.kit.paths import refuse_network_file_system

FORMAT = 1
# Rows checked at every start: enough to catch a torn tail, cheap enough never to be felt.
TAIL = 1000
# A predecessor that was told to stop may need this long to let go of the journal.
LOCK_WAIT_S = 10.0

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, uid BLOB NOT NULL UNIQUE, cause BLOB, kind TEXT NOT NULL,
  schema INTEGER NOT NULL, at REAL NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL,
  prev BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS event_subject ON event (subject);
CREATE TABLE IF NOT EXISTS cursor (
  producer TEXT PRIMARY KEY, epoch BLOB NOT NULL, seq INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS attempt (
  key TEXT PRIMARY KEY, n INTEGER NOT NULL, token INTEGER NOT NULL,
  failures INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
"""


class Cursor(NamedTuple):
    """How far a consumer has got with one producer."""

    epoch: bytes
    seq: int


class Attempt(NamedTuple):
    """How often a piece of work was begun (n), how often it failed, and who may deliver it."""

    key: str
    n: int
    token: int
    failures: int
    state: str  # running or failed; work that is done has no row, its event says so


class Draft(NamedTuple):
    """An event that is not yet committed."""

    body: Body
    at: float
    cause: bytes | None = None


class Row(msgspec.Struct, frozen=True, array_like=True):
    """An event as it is stored and sent: the body stays the bytes that were hashed."""

    seq: int
    uid: bytes
    cause: bytes | None
    schema: int
    at: float
    subject: str
    body: bytes
    prev: bytes
    hash: bytes

    def event(self, producer: str, session: str, epoch: bytes) -> Event:
        """Return the event, with its body decoded.

        Raises
        ------
        Fatal
            A newer coldstream wrote it.
        """
        if self.schema > SCHEMA:
            raise Fatal(
                f"event {self.seq} of {producer} has schema {self.schema}, this coldstream knows "
                f"{SCHEMA}: it was written by a newer one"
            )
        try:
            body = decode(self.body)
        except msgspec.MsgspecError as error:
            raise Fatal(
                f"event {self.seq} of {producer} cannot be read by this coldstream: {error}"
            ) from error
        return Event(
            schema=self.schema,
            producer=producer,
            epoch=epoch,
            seq=self.seq,
            uid=self.uid,
            cause=self.cause,
            session=session,
            at=self.at,
            subject=self.subject,
            body=body,
            prev=self.prev,
            hash=self.hash,
        )


def chain_hash(prev: bytes, seq: int, kind: str, body: bytes) -> bytes:
    """Return SHA-256(prev || seq || kind || body)."""
    digest = hashlib.sha256(prev)
    digest.update(seq.to_bytes(8, "big"))
    digest.update(kind.encode())
    digest.update(body)
    return digest.digest()


class Journal:
    """The journal of one producer, opened for writing.

    Parameters
    ----------
    path
        The SQLite file; made when absent.
    producer, session
        Names stored in every event.

    Raises
    ------
    Misuse
        Another process holds the journal, or it would lie on a network file system.
    Fatal
        The file is damaged or belongs to another producer or session.
    """

    def __init__(self, path: Path, producer: str, session: str):
        refuse_network_file_system(path.parent)
        self.path, self.producer, self.session = path, producer, session
        self._lock = _hold(path, producer)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            raise Fatal(f"the journal {path} is damaged: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise
        row = self._db.execute("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        self.head, self._hash = row or (0, self.epoch.ljust(32, b"\0"))

    def _prepare(self) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "cell_size_check=ON",
            "busy_timeout=5000",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        (answer,) = self._db.execute("PRAGMA quick_check").fetchone()
        if answer != "ok":
            raise Fatal(f"the journal {self.path} is damaged: {answer}")
        self._db.executescript(_TABLES)
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if not meta:
            meta = {
                "epoch": secrets.token_bytes(16),
                "format": b"%d" % FORMAT,
                "producer": self.producer.encode(),
                "session": self.session.encode(),
                "created": b"%d" % int(time.time()),
            }
            # One transaction: a crash leaves a journal that is made anew, or a whole one.
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
            self._db.execute("COMMIT")
        if meta["producer"] != self.producer.encode() or meta["session"] != self.session.encode():
            raise Fatal(
                f"the journal {self.path} belongs to {meta['producer'].decode()} of session "
                f"{meta['session'].decode()}, not to {self.producer} of {self.session}"
            )
        self.epoch: bytes = meta["epoch"]
        broken = first_broken(self._db, self.epoch, last=TAIL)
        if broken is not None:
            raise Fatal(f"the journal {self.path} is damaged at event {broken}: hash mismatch")

    def commit(
        self,
        drafts: Sequence[Draft],
        cursors: Mapping[str, Cursor] | None = None,
        attempts: Iterable[Attempt] = (),
        closed: Iterable[str] = (),
    ) -> list[Event]:
        """Append events, move cursors, store attempts and drop closed ones, in one transaction.

        Raises
        ------
        Fatal
            The disk did not take it. After a failed sync nothing in memory can be trusted, so
            the process has to end and replay (reliability.md 2.3).
        """
        events = self._chained(drafts)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO event VALUES (?,?,?,?,?,?,?,?,?,?)",
                [_row(event) for event in events],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?,?,?)",
                [(name, c.epoch, c.seq) for name, c in (cursors or {}).items()],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO attempt VALUES (?,?,?,?,?)", list(attempts)
            )
            self._db.executemany("DELETE FROM attempt WHERE key = ?", [(key,) for key in closed])
            crash_point("after-append-before-commit")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise Fatal(f"the journal {self.path} could not be written: {error}") from error
        if events:
            self.head, self._hash = events[-1].seq, events[-1].hash
            crash_point("after-commit-before-bell")
        return events

    def _chained(self, drafts: Sequence[Draft]) -> list[Event]:
        events, prev = [], self._hash
        for seq, draft in enumerate(drafts, self.head + 1):
            body = encode(draft.body)
            digest = chain_hash(prev, seq, kind_of(draft.body), body)
            events.append(
                Event(
                    schema=SCHEMA,
                    producer=self.producer,
                    epoch=self.epoch,
                    seq=seq,
                    uid=secrets.token_bytes(16),
                    cause=draft.cause,
                    session=self.session,
                    at=draft.at,
                    subject=subject_of(draft.body),
                    body=draft.body,
                    prev=prev,
                    hash=digest,
                )
            )
            prev = digest
        return events

    def read(self, first: int = 1, limit: int = 2**31) -> Iterator[Event]:
        """Yield events from seq `first` on, `limit` at most."""
        for row in self.rows(first, limit):
            yield row.event(self.producer, self.session, self.epoch)

    def rows(self, first: int = 1, limit: int = 2**31) -> Iterator[Row]:
        """Yield the same events as they are stored."""
        return _rows(self._db, first, limit)

    def cursors(self) -> dict[str, Cursor]:
        """Return the stored cursors by producer."""
        rows = self._db.execute("SELECT producer, epoch, seq FROM cursor")
        return {name: Cursor(epoch, seq) for name, epoch, seq in rows}

    def attempts(self) -> dict[str, Attempt]:
        """Return every attempt by key."""
        rows = self._db.execute("SELECT key, n, token, failures, state FROM attempt")
        return {row[0]: Attempt(*row) for row in rows}

    def close(self) -> None:
        """Close the file and let the lock go."""
        self._db.close()
        os.close(self._lock)


class Reader:
    """A journal opened for looking, while its producer may be writing.

    Parameters
    ----------
    path
        The SQLite file; it must exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self._db.execute("PRAGMA busy_timeout=5000")
        try:
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        except sqlite3.OperationalError:  # its tables are just being made
            meta = {}
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise Fatal(f"the journal {path} is damaged: {error}") from error
        if "epoch" not in meta:
            self._db.close()
            raise NotReady(path)
        self.epoch: bytes = meta["epoch"]
        self.producer = meta["producer"].decode()
        self.session = meta["session"].decode()

    def read(self, first: int = 1, limit: int = 2**31) -> Iterator[Event]:
        """Yield events from seq `first` on, `limit` at most."""
        for row in _rows(self._db, first, limit):
            yield row.event(self.producer, self.session, self.epoch)

    def about(self, subject: str) -> list[Event]:
        """Return the story of one subject."""
        rows = _rows(self._db, 1, 2**31, subject)
        return [row.event(self.producer, self.session, self.epoch) for row in rows]

    def cursors(self) -> dict[str, Cursor]:
        """Return the stored cursors by producer."""
        rows = self._db.execute("SELECT producer, epoch, seq FROM cursor")
        return {name: Cursor(epoch, seq) for name, epoch, seq in rows}

    def first_broken(self) -> int | None:
        """Return the first seq whose hash does not fit, checking all of them, or None."""
        return first_broken(self._db, self.epoch)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class NotReady(Misuse):
    """A journal file that its producer has not finished making."""

    def __init__(self, path: Path):
        super().__init__(f"the journal {path} is empty: its service has not started yet")


def first_broken(db: sqlite3.Connection, epoch: bytes, last: int | None = None) -> int | None:
    """Return the first seq among the `last` rows (None: all) that breaks the chain, or None."""
    (head,) = db.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    first = 1 if last is None else max(1, head - last + 1)
    expected: tuple[int, bytes] | None = (1, epoch.ljust(32, b"\0")) if first == 1 else None
    rows = db.execute(
        "SELECT seq, kind, body, prev, hash FROM event WHERE seq >= ? ORDER BY seq", (first,)
    )
    for seq, kind, body, prev, digest in rows:
        if expected is not None and (seq, prev) != expected:
            return seq
        if chain_hash(prev, seq, kind, body) != digest:
            return seq
        expected = (seq + 1, digest)
    return None


def _rows(
    db: sqlite3.Connection, first: int, limit: int, subject: str | None = None
) -> Iterator[Row]:
    where = "seq >= ?" if subject is None else "seq >= ? AND subject = ?"
    arguments = (first, limit) if subject is None else (first, subject, limit)
    found = db.execute(
        "SELECT seq, uid, cause, schema, at, subject, body, prev, hash FROM event "  # noqa: S608
        f"WHERE {where} ORDER BY seq LIMIT ?",
        arguments,
    )
    for row in found:
        yield Row(*row)


def _row(e: Event) -> tuple[object, ...]:
    body = encode(e.body)
    return (e.seq, e.uid, e.cause, kind_of(e.body), e.schema, e.at, e.subject, body, e.prev, e.hash)


def _hold(path: Path, producer: str) -> int:
    """Return a descriptor that holds the journal's lock; it dies with the process."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise Misuse(
                f"the journal {path} is held by {holder or 'another process'}: this session is "
                "already running"
            ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{producer}, process {os.getpid()}".encode(), 0)
    return descriptor
