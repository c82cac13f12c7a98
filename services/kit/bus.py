"""Events between processes: a doorbell that may be missed, a desk where nothing is.

A producer commits, then rings a PUB doorbell with its head; it repeats the head every second. A
consumer asks at the producer's ROUTER desk, over a DEALER, for at most `CREDIT` events from its
cursor on. Only the desk carries events, so a lost frame costs a second and never an event. The
backlog of a slow consumer is the journal on disk. Source: reliability.md section 2.4.
"""

import time

import msgspec
import zmq

from services.kit.errors import Fatal, Misuse
from services.kit.events import Body, Event, decode, encode
from services.kit.journal import Cursor, Journal, check_event
from services.kit.keys import Security

HEARTBEAT_S = 1.0
# Events a consumer takes in at a time, and the bytes a reply may have: bounds its memory.
CREDIT = 256
MAX_BYTES = 1 << 20
# An unanswered request is repeated after this long: the desk may have died with it.
PATIENCE_S = 3.0


class Bell(msgspec.Struct, frozen=True):
    """What the doorbell says."""

    producer: str
    epoch: bytes
    head: int


class Fetch(msgspec.Struct, frozen=True):
    """What a consumer asks at the desk."""

    first: int
    max_events: int


class Row(msgspec.Struct, frozen=True, array_like=True):
    """An event on the wire; the body stays as its producer encoded it."""

    schema: int
    seq: int
    uid: bytes
    cause: bytes | None
    at: float
    subject: str
    body: bytes
    prev: bytes
    hash: bytes


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
    context: zmq.Context, kind: int, endpoint: str, security: Security | None, *, serve: bool
):
    socket = context.socket(kind)
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, 1000),
        (zmq.RCVHWM, 1000),
        (zmq.MAXMSGSIZE, 4 * MAX_BYTES),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.HEARTBEAT_IVL, 1000),
        (zmq.HEARTBEAT_TIMEOUT, 5000),
    ):
        socket.setsockopt(option, value)
    if not endpoint.startswith(("ipc://", "inproc://")):
        if security is None:
            raise Misuse(f"{endpoint}: TCP needs keys; make them with `coldstream keys new NAME`")
        security.apply(socket, serve=serve)
    if serve:
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    return socket


class Producer:
    """The producer's side: rings and answers.

    Parameters
    ----------
    journal
        The journal whose events are served.
    bell, desk
        Endpoints to bind.
    security
        CURVE keys, needed for TCP.
    """

    def __init__(
        self,
        context: zmq.Context,
        journal: Journal,
        bell: str,
        desk: str,
        security: Security | None = None,
    ):
        self._journal = journal
        self._bell = _socket(context, zmq.PUB, bell, security, serve=True)
        self.desk = _socket(context, zmq.ROUTER, desk, security, serve=True)
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
        for e in self._journal.read(max(1, fetch.first), max(0, min(fetch.max_events, CREDIT))):
            body = encode(e.body)
            rows.append(Row(e.schema, e.seq, e.uid, e.cause, e.at, e.subject, body, e.prev, e.hash))
            size += len(body) + 200
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
        try:
            self.desk.send(_encode(Fetch(self._seq + 1, CREDIT)), zmq.NOBLOCK)
            self._asked_at = now
        except zmq.Again:
            self._asked_at = now  # no room: asked again when patience ends

    def listen(self) -> None:
        """Take in the doorbell; ask when it tells of something new."""
        while True:
            try:
                bell = _bell.decode(self.bell.recv(zmq.NOBLOCK))
            except zmq.Again:
                break
            self._check_epoch(bell.epoch)
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
            self._asked_at = None
            self._check_epoch(page.epoch)
            self.head = max(self.head, page.head)
            for row in page.rows:
                if row.seq != self._seq + 1:
                    continue  # an answer to a repeated question: already had
                events.append(_event(page, row))
                self._seq = row.seq
            if self.lag:
                self._ask(time.monotonic())

    def patience(self, now: float) -> None:
        """Ask again when an answer is overdue."""
        if self._asked_at is not None and now - self._asked_at > PATIENCE_S:
            self._ask(now)

    def _check_epoch(self, epoch: bytes) -> None:
        if self._epoch is None:
            self._epoch = epoch
        elif epoch != self._epoch:
            raise Fatal(
                f"the journal of {self.producer} was replaced ({self._epoch.hex()[:8]} is now "
                f"{epoch.hex()[:8]}): its events cannot be matched with what was already processed"
            )

    def cursor(self, event: Event) -> Cursor:
        """Return the cursor that says `event` was handled."""
        return Cursor(event.epoch, event.seq)

    def close(self) -> None:
        """Close both sockets."""
        self.bell.close()
        self.desk.close()


def _event(page: Page, row: Row) -> Event:
    body: Body = decode(row.body)
    event = Event(
        schema=row.schema,
        producer=page.producer,
        epoch=page.epoch,
        seq=row.seq,
        uid=row.uid,
        cause=row.cause,
        session=page.session,
        at=row.at,
        subject=row.subject,
        body=body,
        prev=row.prev,
        hash=row.hash,
    )
    check_event(event)
    return event
