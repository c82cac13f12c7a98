"""Tasks for the tests of worker and runner: each does one thing that a task may do."""

import os
import time
from pathlib import Path

import msgspec

from services.kit.errors import Code, Refused
from services.kit.work import Output, Task, content_key


class Ask(msgspec.Struct, frozen=True):
    """What a test task is asked."""

    movie: str
    number: int = 0
    path: str = ""


def task(call: str, movie: str, number: int = 0, path: str = "") -> Task:
    """Return a task of stage `square` that calls a function of this module."""
    request = msgspec.msgpack.encode(Ask(movie, number, path))
    key = content_key("square", call, request)
    return Task(f"square:{movie}", "square", movie, key, f"{__name__}:{call}", request)


def computed(project: Path) -> int:
    """Return how often `write` has computed."""
    return len(list(project.glob("computed.*")))


def write(request: bytes, folder: Path, project: Path) -> Output:
    """Square a number, into a file."""
    ask = _ask(request)
    (project / f"computed.{time.time_ns()}").touch()
    (folder / "out.txt").write_text(str(ask.number**2))
    return Output(msgspec.msgpack.encode(ask.number**2), {"out.txt": f"Job/job001/{ask.movie}.txt"})


def refuse(request: bytes, folder: Path, project: Path) -> Output:
    """Find the data at fault, after having written half a result."""
    (folder / "half.txt").write_text("half")
    raise Refused(Code.TOO_FEW_FRAMES, f"{_ask(request).movie} has 1 frame: 2 are needed")


def read_absent(request: bytes, folder: Path, project: Path) -> Output:
    """Read a file that is not there."""
    (project / "absent.mrc").read_bytes()
    raise AssertionError


def os_error(request: bytes, folder: Path, project: Path) -> Output:
    """Meet an error of the operating system."""
    number = _ask(request).number
    raise OSError(number, os.strerror(number))


def broken(request: bytes, folder: Path, project: Path) -> Output:
    """Have a bug."""
    raise ZeroDivisionError(_ask(request).movie)


def promise(request: bytes, folder: Path, project: Path) -> Output:
    """Name a file that was not written."""
    return Output(b"", {"never.txt": "Job/job001/never.txt"})


def die(request: bytes, folder: Path, project: Path) -> Output:
    """Take the worker along; only as long as the file `path` is there, when one is named."""
    ask = _ask(request)
    if not ask.path or Path(ask.path).exists():
        if ask.path:
            Path(ask.path).unlink()
        os._exit(1)
    return write(request, folder, project)


def wait(request: bytes, folder: Path, project: Path) -> Output:
    """Take as long as the file `path` is there."""
    ask = _ask(request)
    Path(f"{ask.path}.begun").touch()
    while Path(ask.path).exists():
        time.sleep(0.01)
    return write(request, folder, project)


def _ask(request: bytes) -> Ask:
    return msgspec.msgpack.decode(request, type=Ask)
