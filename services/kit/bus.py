"""Events between processes: a doorbell that may be missed, a desk where nothing is.

A producer commits, then rings a PUB doorbell with its head; it repeats the head every second. A
consumer asks at the producer's ROUTER desk, over a DEALER, for at most `CREDIT` events from its
cursor on. Only the desk carries events, so a lost frame costs a second and never an event. The
backlog of a slow consumer is the journal on disk. Source: reliability.md section 2.4.
"""

import time
from typing import Annotated

import msgspec
import zmq
from msgspec import Meta

from services.kit.errors import Bug, Fatal, Misuse
from services.kit.events import Event, kind_of
from services.kit.journal import Cursor, Journal, Row, chain_hash
from services.kit.keys import Gate, Security

HEARTBEAT_S = 1.0
# Events a consumer takes in at a time, and the bytes a reply may have: bounds its memory.
CREDIT = 256
MAX_BYTES = 1 << 20
# What is larger closes the connection. A question is a few bytes, whoever asks; an answer is from
# the producer we trust, and one event that names every movie of a session has to fit.
MAX_QUESTION, MAX_ANSWER = 1 << 16, 1 << 28
# An unanswered request is repeated after this long: the desk may have died with it.
PATIENCE_S = 3.0


class Bell(msgspec.Struct, frozen=True):
    """What the doorbell says."""

    producer: str
    epoch: bytes
    head: int


class Fetch(msgspec.Struct, frozen=True):
    """What a consumer asks at the desk."""

    first: Annotated[int, Meta(ge=1, le=2**62)]
    max_events: Annotated[int, Meta(ge=1, le=2**31)]


class Page(msgspec.Struct, frozen=True):
    """The desk's answer."""

    producer: str
    session: str
    epoch: bytes
    head: int
    rows: list[Row]


_encode = msgspec.msgpack.Encoder().encode
_bell = msgspec.msgpack.Decoder(Bell)
_fetch = msgspec.msgpack.Decoder(Fetch)
_page = msgspec.msgpack.Decoder(Page)


def _socket(
    context: zmq.Context,
    kind: int,
    endpoint: str,
    security: Security | None,
    *,
    serve: bool,
    gate: Gate | None = None,
) -> zmq.Socket:
    is_local = endpoint.startswith(("ipc://", "inproc://"))
    if not is_local and security is None:
        raise Misuse(f"{endpoint}: TCP needs keys; make them with `coldstream keys new NAME`")
    if not is_local and serve and (gate is None or not gate.guards(context)):
        raise Misuse(f"{endpoint}: TCP needs a gate that is open, else any key would do")
    socket = context.socket(kind)
    try:
        for option, value in (
            (zmq.LINGER, 0),
            # A DEALER asks one question at a time: to a producer that is away, they do not pile up.
            (zmq.SNDHWM, 2 if kind == zmq.DEALER else 1000),
            (zmq.RCVHWM, 1000),
            (zmq.MAXMSGSIZE, MAX_QUESTION if serve else MAX_ANSWER),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.HEARTBEAT_IVL, 1000),
            (zmq.HEARTBEAT_TIMEOUT, 5000),
        ):
            socket.setsockopt(option, value)
        if not is_local and security is not None:
            security.apply(socket, serve=serve)
        if serve:
            socket.bind(endpoint)
        else:
            socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise Fatal(f"{endpoint}: {error}") from error
    except BaseException:
        socket.close()
        raise
    return socket


class Producer:
    """The producer's side: rings and answers.

    Parameters
    ----------
    journal
        The journal whose events are served.
    bell, desk
        Endpoints to bind.
    security, gate
        CURVE keys and the open gate that knows whom to let in, both needed for TCP.
    """

    def __init__(
        self,
        context: zmq.Context,
        journal: Journal,
        bell: str,
        desk: str,
        security: Security | None = None,
        gate: Gate | None = None,
    ):
        self._journal = journal
        self._bell = _socket(context, zmq.PUB, bell, security, serve=True, gate=gate)
        try:
            self.desk = _socket(context, zmq.ROUTER, desk, security, serve=True, gate=gate)
        except BaseException:
            self._bell.close()
            raise
        self._next_beat = 0.0

    def ring(self) -> None:
        """Tell everyone where the head is."""
        bell = Bell(self._journal.producer, self._journal.epoch, self._journal.head)
        self._bell.send(_encode(bell))
        self._next_beat = time.monotonic() + HEARTBEAT_S

    def beat(self, now: float) -> float:
        """Ring if a heartbeat is due; return when the next one is."""
        if now >= self._next_beat:
            self.ring()
        return self._next_beat

    def serve(self) -> None:
        """Answer the requests that are waiting."""
        while True:
            try:
                who, request = self.desk.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue  # not two frames: not one of ours
            try:
                fetch = _fetch.decode(request)
            except msgspec.MsgspecError:
                continue  # a stranger's words; it gets no answer
            self.desk.send_multipart([who, _encode(self._answer(fetch))])

    def _answer(self, fetch: Fetch) -> Page:
        rows, size = [], 0
        for row in self._journal.rows(fetch.first, min(fetch.max_events, CREDIT)):
            rows.append(row)
            size += len(row.body) + 200
            if size > MAX_BYTES:
                break
        journal = self._journal
        return Page(journal.producer, journal.session, journal.epoch, journal.head, rows)

    def close(self) -> None:
        """Close both sockets."""
        self._bell.close()
        self.desk.close()


class Follower:
    """The consumer's side: follows one producer from a cursor.

    Parameters
    ----------
    producer
        Name expected in every answer.
    bell, desk
        Endpoints to connect to; the producer need not be there yet.
    cursor
        Where to go on, or None for the beginning.
    """

    def __init__(
        self,
        context: zmq.Context,
        producer: str,
        bell: str,
        desk: str,
        cursor: Cursor | None,
        security: Security | None = None,
    ):
        self.producer = producer
        self._epoch = cursor.epoch if cursor else None
        self._seq = cursor.seq if cursor else 0
        self.head = self._seq
        # Subscribe first, ask second: what happens in between is announced again.
        self.bell = _socket(context, zmq.SUB, bell, security, serve=False)
        self.bell.setsockopt(zmq.SUBSCRIBE, b"")
        self.desk = _socket(context, zmq.DEALER, desk, security, serve=False)
        self._asked_at: float | None = None
        self._ask(time.monotonic())

    @property
    def lag(self) -> int:
        """Number of events known to exist and not yet received."""
        return max(0, self.head - self._seq)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        try:
            self.desk.send(_encode(Fetch(self._seq + 1, CREDIT)), zmq.NOBLOCK)
        except zmq.Again:
            pass  # enough questions wait for the producer; asked again when patience ends

    def listen(self) -> None:
        """Take in the doorbell; ask when it tells of something new."""
        while True:
            try:
                bell = _bell.decode(self.bell.recv(zmq.NOBLOCK))
            except zmq.Again:
                break
            self._check(bell)
            self.head = max(self.head, bell.head)
        if self.lag and self._asked_at is None:
            self._ask(time.monotonic())

    def receive(self) -> list[Event]:
        """Return the next events in order; asks for more while there are more."""
        events: list[Event] = []
        while True:
            try:
                page = _page.decode(self.desk.recv(zmq.NOBLOCK))
            except zmq.Again:
                return events
            self._check(page)
            if page.head < self._seq:
                raise Fatal(
                    f"the journal of {self.producer} ends at {page.head} and {self._seq} of its "
                    "events were processed: it was replaced by an older copy"
                )
            if page.rows and page.rows[0].seq <= self._seq:
                continue  # the answer to a repeated question
            self._asked_at = None
            self.head = max(self.head, page.head)
            for row in page.rows:
                if row.seq != self._seq + 1:
                    raise Bug(f"{self.producer} sent event {row.seq} after {self._seq}")
                events.append(_event(page, row))
                self._seq = row.seq
            if self.lag:
                self._ask(time.monotonic())

    def patience(self, now: float) -> None:
        """Ask again when an answer is overdue."""
        if self._asked_at is not None and now - self._asked_at > PATIENCE_S:
            self._ask(now)

    def _check(self, answer: Bell | Page) -> None:
        if answer.producer != self.producer:
            raise Fatal(f"{answer.producer} answers where {self.producer} should")
        if self._epoch is None:
            self._epoch = answer.epoch
        elif answer.epoch != self._epoch:
            raise Fatal(
                f"the journal of {self.producer} was replaced ({self._epoch.hex()[:8]} is now "
                f"{answer.epoch.hex()[:8]}): its events cannot be matched with what was already "
                "processed"
            )

    def cursor(self, event: Event) -> Cursor:
        """Return the cursor that says `event` was handled."""
        return Cursor(event.epoch, event.seq)

    def close(self) -> None:
        """Close both sockets."""
        self.bell.close()
        self.desk.close()


def _event(page: Page, row: Row) -> Event:
    event = row.event(page.producer, page.session, page.epoch)
    if chain_hash(row.prev, row.seq, kind_of(event.body), row.body) != row.hash:
        raise Bug(f"event {row.seq} of {page.producer} does not match its hash")
    return event
