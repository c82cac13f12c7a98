"""The parser child: reads requests, opens and parses one file each, answers. Nothing else.

Run as `python -m mdcatch.parsers.childmain MEMORY_BYTES LIMIT_S`; `child.ParserChild` starts it.
It may take little memory, dump no core, and ends by itself when a file takes too long or its
parent is gone.

Source: reliability.md sections 2.11, 3 (F25).
"""

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable

import msgspec

from mdcatch.parsers.beneath import open_beneath, window_of
from mdcatch.parsers.detect import load_all, parse
from mdcatch.parsers.record import Record
from services.kit.errors import Code, Refused

LENGTH = struct.Struct("<I")


class Request(msgspec.Struct, array_like=True, frozen=True):
    """One file: a path below a root, and the name by which its parser knows it."""

    root: str
    path: str
    name: str


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Its record, or the code and the sentence of its refusal."""

    record: Record | None = None
    code: Code | None = None
    detail: str = ""


def answer(request: Request) -> Answer:
    """Return what a file says, or why it is refused."""
    try:
        descriptor = open_beneath(request.root, request.path)
        try:
            return Answer(record=parse(window_of(descriptor), request.name))
        finally:
            os.close(descriptor)
    except Refused as refused:
        return Answer(code=refused.code, detail=refused.detail)
    except OSError as error:
        return Answer(code=Code.READ_ERROR, detail=f"cannot be read: {error.strerror}")
    except (MemoryError, RecursionError) as error:
        told = f"parsing it took more than is allowed ({type(error).__name__})"
        return Answer(code=Code.POISON, detail=told)


def frame(content: bytes) -> bytes:
    """Return a message with its length before it."""
    return LENGTH.pack(len(content)) + content


def whole(read: Callable[[int], bytes], length: int) -> bytes | None:
    """Return exactly `length` bytes, None when the stream ends before."""
    pieces = []
    while length > 0:
        piece = read(length)
        if not piece:
            return None
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def serve(source: int, target: int, limit_s: float) -> None:
    """Answer batches of requests, one message per request, until the parent closes the pipe."""
    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(list[Request])
    _send(target, b"")
    while (batch := _receive(source)) is not None:
        for request in decoder.decode(batch):
            # The default action of SIGALRM ends the process: no file holds it longer than this.
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            reply = encoder.encode(answer(request))
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            _send(target, reply)


def _receive(source: int) -> bytes | None:
    head = whole(lambda wanted: os.read(source, wanted), LENGTH.size)
    if head is None:
        return None
    return whole(lambda wanted: os.read(source, wanted), LENGTH.unpack(head)[0])


def _send(target: int, content: bytes) -> None:
    view = memoryview(frame(content))
    while view:
        view = view[os.write(target, view) :]


def main(arguments: list[str]) -> int:
    """Limit this process, then serve."""
    memory, limit_s = int(arguments[0]), float(arguments[1])
    load_all()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        serve(sys.stdin.fileno(), sys.stdout.fileno(), limit_s)
    except BrokenPipeError:
        return 1  # the parent is gone
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
