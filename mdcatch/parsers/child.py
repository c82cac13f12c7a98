"""Foreign files are parsed in a child process with little memory and little time.

Whatever a file does to its parser costs one refusal and one restart of the child.

Source: reliability.md sections 2.11, 3 (F10, F25).
"""

import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Self

import msgspec

from mdcatch.parsers.childmain import Answer, Request
from mdcatch.parsers.childprocess import GRACE_S, Child, Ended, Slow
from mdcatch.parsers.record import Field, Record, frozen
from services.kit.errors import Code, Refused

MEMORY_MB = 512  # of address space; the interpreter and its libraries take 150 of it
LIMIT_S = 10.0
BATCH = 64  # requests in one message; their answers come one by one
TRIES = 2  # a child may also have been ended from outside


class ParserChild:
    """A parser in a process of its own; every thread may use it, one file is parsed at a time.

    Parameters
    ----------
    roots
        Folders whose files may be opened, absolute. Links below them are not followed.
    memory_MB
        Address space of the child.
    limit_s
        Longest time for one file, reading included.
    """

    def __init__(
        self, roots: Sequence[str | Path], memory_MB: int = MEMORY_MB, limit_s: float = LIMIT_S
    ):
        self._roots = sorted(map(str, roots), key=len, reverse=True)
        self._memory_MB, self._limit_s = memory_MB, limit_s
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._lost: list[Child] = []  # killed, but not gone yet: they hang in a dead share
        self._decoder = msgspec.msgpack.Decoder(Answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def parse(self, path: str | Path, name: str = "") -> Record:
        """Return what a file says.

        Parameters
        ----------
        path
            Below one of the roots; a relative one is below the only root.
        name
            By which the parser knows the file; default: the path.

        Raises
        ------
        Refused
            What its parser raises; BAD_NAME for a path that leads out of the roots, READ_ERROR
            for a file that cannot be read in time, POISON for one that ended the child.
        Transient
            The child does not start.
        """
        result = self.parse_many([(path, name)])[0]
        if isinstance(result, Refused):
            raise result
        return result

    def parse_many(self, files: Sequence[tuple[str | Path, str]]) -> list[Record | Refused]:
        """Return a record or a refusal for each (path, name); see `parse`."""
        located = [self._locate(str(path), name) for path, name in files]
        wanted = [one for one in located if isinstance(one, Request)]
        parsed: list[Record | Refused] = []
        with self._lock:
            while len(parsed) < len(wanted):
                parsed += self._ask(wanted[len(parsed) : len(parsed) + BATCH])
        answers = iter(parsed)
        return [next(answers) if isinstance(one, Request) else one for one in located]

    def close(self) -> None:
        """End the child; a later `parse` starts a new one."""
        with self._lock:
            self._end()

    # ---- requests

    def _locate(self, path: str, name: str) -> Request | Refused:
        """Return root and tail; whether the tail may be opened is decided in the child."""
        if not (path + name).isprintable():  # as are names whose bytes are no UTF-8
            return Refused(Code.BAD_NAME, f"{path[:200]!a} has signs that no path of a movie has")
        if not path.startswith("/") and len(self._roots) == 1:
            return Request(self._roots[0], path, name or path)
        for root in self._roots:
            if PurePosixPath(path).is_relative_to(root):
                tail = str(PurePosixPath(path).relative_to(root))
                return Request(root, tail, name or path)
        return Refused(Code.BAD_NAME, f"{path[:200]!r} is in none of the folders that are watched")

    def _ask(self, requests: list[Request]) -> list[Record | Refused]:
        """Return results of the first files, of at least one: up to where the child ended."""
        told = ""
        for _ in range(TRIES):
            child, done = self._started(), []
            try:
                child.send(msgspec.msgpack.encode(requests), self._limit_s)
                for _ in requests:
                    done.append(self._result(child.receive(self._limit_s + GRACE_S)))
                return done
            except msgspec.DecodeError as error:
                self._end()
                return [*done, Refused(Code.POISON, f"its parser answered nonsense: {error}")]
            except Slow as slow:
                self._end()
                code, whom = (Code.READ_ERROR, "read") if slow.disk else (Code.POISON, "parsed")
                return [*done, Refused(code, f"it was not {whom} within {self._limit_s:g} s")]
            except Ended as ended:
                self._end()
                told = str(ended)
                if done:  # the next file is asked for again, as the first
                    return done
            except BaseException:
                self._end()  # answers that are still to come belong to nobody
                raise
        return [Refused(Code.POISON, f"it ended its parser {TRIES} times ({told})")]

    def _result(self, message: bytes) -> Record | Refused:
        reply = self._decoder.decode(message)
        if reply.record is not None:
            return _tupled(reply.record)
        return Refused(reply.code or Code.POISON, reply.detail)

    def _started(self) -> Child:
        if self._child is None:
            self._child = Child(self._memory_MB, self._limit_s)
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        ended = [*self._lost, child] if child is not None else self._lost
        self._lost = [one for one in ended if not one.end()]


def _tupled(record: Record) -> Record:
    """Vectors are tuples again: on the way they were lists."""
    fields = record.fields.items()
    record.fields = {key: Field(frozen(one.value), one.source) for key, one in fields}
    record.sections = [frozen(one) for one in record.sections]
    return record
