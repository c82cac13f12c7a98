"""The bus over real sockets: nothing lost, nothing doubled, nobody in who is not on the list."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from services.kit import bus, keys
from services.kit.bus import CREDIT, Fetch, Follower, Page, Producer
from services.kit.errors import Bug, Fatal, Misuse
from services.kit.events import Event, MicrographRefused, ResultsOutdated
from services.kit.journal import Cursor, Draft, Journal, chain_hash
from tests.toy import seen


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    with zmq.Context() as made:
        yield made


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    made = Journal(folder / "emitter.sqlite", "emitter", "s1")
    yield made
    made.close()


@pytest.fixture
def world(context: zmq.Context, folder: Path, journal: Journal) -> Iterator["World"]:
    made = World(context, folder, journal)
    yield made
    made.close()


class World:
    """One producer and its followers, all in this process, turned by hand."""

    def __init__(self, context: zmq.Context, folder: Path, journal: Journal):
        self.context, self.journal = context, journal
        self.bell, self.desk = f"ipc://{folder}/bell", f"ipc://{folder}/desk"
        self.producer: Producer | None = None
        self.followers: list[Follower] = []
        self.got: list[list[Event]] = []

    def produce(self) -> Producer:
        self.producer = Producer(self.context, self.journal, self.bell, self.desk)
        return self.producer

    def follow(self, cursor: Cursor | None = None) -> list[Event]:
        self.followers.append(Follower(self.context, "emitter", self.bell, self.desk, cursor, None))
        self.got.append([])
        return self.got[-1]

    def commit(self, first: int, count: int) -> None:
        self.journal.commit([Draft(seen(n), 0.0) for n in range(first, first + count)])

    def turn(self) -> None:
        now = time.monotonic()
        if self.producer is not None:
            self.producer.beat(now)
            self.producer.serve()
        for follower, got in zip(self.followers, self.got, strict=True):
            follower.listen()
            got += follower.receive()
            follower.patience(now)

    def until(self, done: Callable[[], bool], limit_s: float = 10.0) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.turn()
            time.sleep(0.0005)

    def stop_producer(self) -> None:
        assert self.producer is not None
        self.producer.close()
        self.producer = None

    def close(self) -> None:
        for part in (*self.followers, *([self.producer] if self.producer else [])):
            part.close()


def numbers(got: list[Event]) -> list[int]:
    assert [event.seq for event in got] == list(range(got[0].seq, got[0].seq + len(got)))
    return [int(event.subject[-6:]) for event in got]


# ---- delivery


def test_a_late_follower_gets_everything_and_then_what_is_new(world):
    world.commit(0, 100)
    world.produce()
    early = world.follow()
    world.until(lambda: len(early) == 100)
    late, resumed = world.follow(), world.follow(Cursor(world.journal.epoch, 70))
    world.until(lambda: len(late) == 100 and len(resumed) == 30)
    world.commit(100, 5)
    world.producer.ring()
    world.until(lambda: min(map(len, (early, late))) == 105 and len(resumed) == 35)
    assert numbers(early) == numbers(late) == list(range(105))
    assert numbers(resumed) == list(range(70, 105))
    assert early == list(world.journal.read())
    assert all(follower.lag == 0 for follower in world.followers)
    assert world.followers[0].cursor(early[9]) == Cursor(world.journal.epoch, 10)


def test_five_thousand_events_come_in_order_a_credit_at_a_time(world):
    world.commit(0, 5000)
    world.produce()
    got = world.follow()
    sizes = []
    while len(got) < 5000:
        before = len(got)
        world.turn()
        sizes.append(len(got) - before)
    assert numbers(got) == list(range(5000)) and max(sizes) <= CREDIT


def test_a_page_is_bounded_in_bytes(world, monkeypatch):
    big = ResultsOutdated(stage="s", movies=tuple(f"{'m' * 90}{n:06d}" for n in range(5000)))
    world.journal.commit([Draft(big, 0.0)] * 7)
    producer = world.produce()
    page = producer._answer(Fetch(1, CREDIT))
    assert 1 < len(page.rows) < 7 and len(bus._encode(page)) < 2 * bus.MAX_BYTES + 500_000
    got = world.follow()
    world.until(lambda: len(got) == 7)


def test_one_event_that_names_a_hundred_thousand_movies_arrives(world):
    big = ResultsOutdated(stage="s", movies=tuple(f"{'m' * 90}{n:06d}" for n in range(100_000)))
    world.journal.commit([Draft(big, 0.0), Draft(seen(1), 0.0)])
    world.produce()
    got = world.follow()
    world.until(lambda: len(got) == 2)
    assert got[0].body == big


def test_a_producer_that_comes_back_with_its_journal_is_followed_on(world):
    world.produce()
    got = world.follow()
    world.commit(0, 10)
    world.producer.ring()
    world.until(lambda: len(got) == 10)
    world.stop_producer()
    world.commit(10, 10)
    for _ in range(20):
        world.turn()
    world.produce()
    world.until(lambda: len(got) == 20)
    assert numbers(got) == list(range(20))


def test_a_follower_may_come_before_its_producer(world, monkeypatch):
    monkeypatch.setattr(bus, "PATIENCE_S", 0.01)
    got = world.follow()
    for _ in range(200):  # asks again and again, and does not pile up questions
        world.turn()
        time.sleep(0.002)
    world.commit(0, 1000)
    producer, answers = world.produce(), []
    answer = producer._answer
    monkeypatch.setattr(producer, "_answer", lambda fetch: answers.append(fetch) or answer(fetch))
    monkeypatch.setattr(bus, "PATIENCE_S", 3.0)
    world.until(lambda: len(got) == 1000)
    assert numbers(got) == list(range(1000))
    assert len(answers) <= 12, "4 pages, and the few questions that waited"


def test_frames_that_are_dropped_come_with_the_heartbeat(world, monkeypatch):
    monkeypatch.setattr(bus, "HEARTBEAT_S", 0.05)
    world.produce()
    got = world.follow()
    world.until(lambda: world.followers[0]._asked_at is None)
    world.commit(0, 10)  # and never rings
    begun = time.monotonic()
    world.until(lambda: len(got) == 10)
    assert time.monotonic() - begun < 2.0


def test_any_loss_and_doubling_of_frames_gives_the_same_events(world, monkeypatch):
    monkeypatch.setattr(bus, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(bus, "PATIENCE_S", 0.02)
    rng = random.Random(1)
    world.produce()
    got = world.follow()
    follower = world.followers[0]
    total = 0
    for _ in range(150):
        world.commit(total, count := rng.randrange(1, 8))
        total += count
        if rng.random() < 0.5:
            world.producer.ring()
        if rng.random() < 0.3:  # the answer, or the bell, is lost on its way
            for socket in (follower.desk, follower.bell):
                if socket.poll(1):
                    socket.recv()
        if rng.random() < 0.3:  # a question is asked twice
            follower._ask(time.monotonic())
        world.turn()
    world.until(lambda: len(got) == total)
    assert numbers(got) == list(range(total))


def test_a_repeated_question_does_not_multiply(world):
    world.commit(0, 4 * CREDIT)
    producer = world.produce()
    got = world.follow()
    follower = world.followers[0]
    follower._ask(time.monotonic())
    answers = []
    answer = producer._answer
    producer._answer = lambda fetch: answers.append(fetch) or answer(fetch)
    world.until(lambda: len(got) == 4 * CREDIT)
    assert numbers(got) == list(range(4 * CREDIT))
    assert len(answers) <= 5, "one for each page, and the one that was repeated"


# ---- what must stop a follower


def test_a_journal_that_was_replaced_stops_its_followers(world, folder):
    world.commit(0, 5)
    world.produce()
    got = world.follow()
    world.until(lambda: len(got) == 5)
    world.stop_producer()
    other = Journal(folder / "new.sqlite", "emitter", "s1")
    world.journal, old = other, world.journal
    world.commit(0, 50)
    world.produce()
    with pytest.raises(
        Fatal, match=f"replaced .{old.epoch.hex()[:8]} is now {other.epoch.hex()[:8]}"
    ):
        world.until(lambda: False)
    assert len(got) == 5
    other.close()


def test_a_stored_cursor_of_another_epoch_stops_at_once(world):
    world.commit(0, 5)
    world.produce()
    got = world.follow(Cursor(b"x" * 16, 2))
    with pytest.raises(Fatal, match="replaced"):
        world.until(lambda: False)
    assert got == []


def test_a_journal_that_went_back_is_noticed(world):
    world.commit(0, 5)
    world.produce()
    world.follow(Cursor(world.journal.epoch, 9))
    with pytest.raises(Fatal, match="ends at 5 and 9 of its events"):
        world.until(lambda: False)


def test_another_producers_answer_is_not_taken(world, context):
    world.commit(0, 5)
    world.produce()
    stranger = Follower(context, "prep", world.bell, world.desk, None)
    world.followers.append(stranger)
    world.got.append([])
    with pytest.raises(Fatal, match="emitter answers where prep should"):
        world.until(lambda: False)


@pytest.mark.parametrize("change", ["body", "hash", "gap"])
def test_an_event_that_is_not_what_was_hashed_is_a_bug(world, change):
    world.commit(0, 3)
    producer = world.produce()
    answer = producer._answer

    def spoilt(fetch: Fetch) -> Page:
        page = answer(fetch)
        rows = list(page.rows)
        if change == "gap":
            del rows[1]
        else:
            value = {"body": rows[2].body, "hash": b"0" * 32}[change]
            rows[1] = msgspec.structs.replace(rows[1], **{change: value})
        return msgspec.structs.replace(page, rows=rows)

    producer._answer = spoilt
    world.follow()
    with pytest.raises(Bug, match="sent event 3 after 1" if change == "gap" else "event 2 of"):
        world.until(lambda: False)


def test_events_keep_the_bytes_that_were_hashed(world):
    # A number without a fraction, and a field that was added later, read back as other bytes.
    fields = {"kind": "micrograph.refused", "movie": "m", "stage": "s", "code": "C", "detail": ""}
    older = msgspec.msgpack.encode(fields)
    digest = chain_hash(world.journal.epoch.ljust(32, b"\0"), 1, "micrograph.refused", older)
    world.journal._db.execute(
        "INSERT INTO event VALUES (1, x'00', NULL, 'micrograph.refused', 1, 0.0, 'm', ?, x'', ?)",
        (older, digest),
    )
    world.journal._db.execute("UPDATE event SET prev = ?", (world.journal.epoch.ljust(32, b"\0"),))
    world.journal.head, world.journal._hash = 1, digest
    from tests.report_session import extracted

    whole = msgspec.structs.replace(extracted("m", 3), pixel_size_A=4, took_s=1)
    world.journal.commit([Draft(whole, 0.0)])
    world.produce()
    got = world.follow()
    world.until(lambda: len(got) == 2)
    assert isinstance(got[0].body, MicrographRefused) and got[1].body == whole


# ---- strangers


def test_garbage_at_the_desk_is_ignored(world, context):
    world.commit(0, 5)
    world.produce()
    strangers = [context.socket(zmq.DEALER) for _ in range(2)]
    for stranger in strangers:
        stranger.linger = 0
        stranger.connect(world.desk)
    fetch = msgspec.msgpack.encode
    frames: list[list[bytes]] = [
        [b""],
        [b"", b""],
        [os.urandom(100)],
        [b"a", b"b", b"c"],
        [b"\xc1"],
        [b"\x91" * 30_000],
        [fetch({"first": "1", "max_events": 5})],
        [fetch({"first": 2**63, "max_events": 5})],
        [fetch({"first": 2**64 - 1, "max_events": 2**64 - 1})],
        [fetch({"first": -1, "max_events": 5})],
        [fetch({"first": 1, "max_events": -5})],
        [fetch({"first": 1})],
        [fetch([1, 2])],
    ]
    for message in frames:
        strangers[0].send_multipart(message)
    strangers[1].send(bytes(10 * bus.MAX_QUESTION))
    got = world.follow()
    world.until(lambda: len(got) == 5)
    for _ in range(20):
        world.turn()
        time.sleep(0.001)
    assert all(not stranger.poll(0) for stranger in strangers), "a stranger gets no answer"
    for stranger in strangers:
        stranger.close()


def test_a_question_beyond_the_end_is_answered_with_nothing(world):
    world.commit(0, 5)
    producer = world.produce()
    assert producer._answer(Fetch(6, 10)).rows == []
    assert producer._answer(Fetch(2**62, 10)).rows == []
    assert [row.seq for row in producer._answer(Fetch(4, 10**9)).rows] == [4, 5]


# ---- TCP

TCP = "tcp://127.0.0.1:0"


class Pair:
    """Key files of a server and of clients."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.server = self.key("server")

    def key(self, name: str) -> keys.KeyFile:
        return keys.load(keys.new_pair(self.folder, name)[1])

    def client(self, own: keys.KeyFile, server: keys.KeyFile | None = None) -> keys.Security:
        return keys.Security(own, (server or self.server).public)


@contextmanager
def tcp_producer(context: zmq.Context, journal: Journal, pair: Pair, gate: keys.Gate):
    producer = Producer(context, journal, TCP, TCP, keys.Security(pair.server), gate)
    ends = [s.getsockopt_string(zmq.LAST_ENDPOINT) for s in (producer._bell, producer.desk)]
    yield producer, ends
    producer.close()


def received(
    producer: Producer, ends: list[str], security: keys.Security | None, limit_s: float
) -> int:
    """Return how many events a client of its own process and context gets."""
    with zmq.Context() as context:
        follower = Follower(context, "emitter", ends[0], ends[1], None, security)
        got: list[Event] = []
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and len(got) < 5:
            producer.ring()
            producer.serve()
            follower.listen()
            got += follower.receive()
            time.sleep(0.005)
        assert len(got) == 5 or follower.head == 0, "not even the bell is heard"
        follower.close()
    return len(got)


def test_tcp_needs_keys_and_a_gate(context, journal, folder):
    pair = Pair(folder)
    with pytest.raises(Misuse, match="TCP needs keys"):
        Producer(context, journal, TCP, TCP)
    with pytest.raises(Misuse, match="TCP needs keys"):
        Follower(context, "emitter", "tcp://127.0.0.1:9", "tcp://127.0.0.1:9", None)
    security = keys.Security(pair.server)
    with pytest.raises(Misuse, match="gate"):
        Producer(context, journal, TCP, TCP, security)
    with zmq.Context() as elsewhere, keys.Gate(elsewhere, []) as gate:
        with pytest.raises(Misuse, match="gate"):
            Producer(context, journal, TCP, TCP, security, gate)
    with keys.Gate(context, []) as gate:
        pass
    with pytest.raises(Misuse, match="gate"):
        Producer(context, journal, TCP, TCP, security, gate)


def test_only_a_client_on_the_list_with_the_right_server_key_gets_anything(
    context, journal, folder
):
    journal.commit([Draft(seen(n), 0.0) for n in range(5)])
    pair = Pair(folder)
    known, unknown, other = pair.key("prep"), pair.key("stranger"), pair.key("other-server")
    public = keys.load(folder / "prep.public")
    denied: list[tuple[str, str]] = []
    with keys.Gate(context, [public], lambda *who: denied.append(who)) as gate:
        with tcp_producer(context, journal, pair, gate) as (producer, ends):
            assert received(producer, ends, pair.client(known), 10.0) == 5
            assert denied == []
            assert received(producer, ends, pair.client(unknown), 0.6) == 0
            assert denied and set(denied) == {("127.0.0.1", unknown.public)}
            assert received(producer, ends, pair.client(known, other), 0.4) == 0
            assert received(producer, ends, pair.client(known), 10.0) == 5


def test_a_client_without_keys_gets_nothing(context, journal, folder):
    journal.commit([Draft(seen(n), 0.0) for n in range(5)])
    pair = Pair(folder)
    with keys.Gate(context, [pair.server]) as gate:
        with tcp_producer(context, journal, pair, gate) as (producer, ends):
            with zmq.Context() as plain:
                bell, desk = plain.socket(zmq.SUB), plain.socket(zmq.DEALER)
                bell.subscribe(b"")
                for socket, end in ((bell, ends[0]), (desk, ends[1])):
                    socket.linger = 0
                    socket.connect(end)
                desk.send(bus._encode(Fetch(1, 5)))
                for _ in range(40):
                    producer.ring()
                    producer.serve()
                    assert not bell.poll(5) and not desk.poll(5)
                bell.close()
                desk.close()


def test_when_the_gate_is_gone_nobody_new_gets_in(context, journal, folder):
    journal.commit([Draft(seen(n), 0.0) for n in range(5)])
    pair = Pair(folder)
    known = pair.key("prep")
    gate = keys.Gate(context, [known])
    with tcp_producer(context, journal, pair, gate) as (producer, ends):
        gate.close()
        assert received(producer, ends, pair.client(known), 0.6) == 0


def test_an_endpoint_that_is_none_is_fatal(context, journal, folder):
    with pytest.raises(Fatal, match="ipc"):
        Producer(context, journal, f"ipc://{folder}/absent/bell", f"ipc://{folder}/desk")
    with pytest.raises(Fatal, match="ipc"):
        Producer(context, journal, f"ipc://{folder}/bell", f"ipc://{folder}/absent/desk")
