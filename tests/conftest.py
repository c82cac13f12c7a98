"""No test leaves anything behind: no process, no thread, no socket, no open file."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Ending takes a moment; what is still there after this time was forgotten.
GRACE_S = 5.0
# The default run has 12 minutes on two cores, for thousands of tests.
SHOWN, SLOW_S = 25, 3.0
# Threads and helpers that their libraries keep for the next use; none holds work of ours.
KEPT_THREADS = ("asyncio_", "Dask-", "IO loop", "Profile", "ThreadPoolExecutor", "Tornado", "tmx_")
KEPT_PROCESSES = ("resource_tracker", "forkserver")


def children() -> set[str]:
    """Return the child processes, ended ones that nobody has waited for included."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except OSError:
            continue  # a thread that has ended meanwhile
        found.update(f"{pid} {_command(pid)}" for pid in pids)
    return {child for child in found if not any(name in child for name in KEPT_PROCESSES)}


def _command(pid: str) -> str:
    try:
        line = Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return ""
    return line.replace(b"\0", b" ").decode(errors="replace").strip()[:120]


def threads() -> set[str]:
    """Return the threads that Python knows."""
    alive = (f"{t.name} ({t.ident})" for t in threading.enumerate())
    return {name for name in alive if not name.startswith(KEPT_THREADS)}


def descriptors() -> set[str]:
    """Return open sockets, pipes, events and files, each with its number."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the one that lists this folder
        if not target.startswith(("/dev/", "/proc/")):
            found.add(f"{number} {target}")
    return found


# As `make` has it: several threads of several tests on two cores wait for each other, and a test of
# ten seconds takes minutes. Read by torch and NumPy when they are imported, which is after this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
LOOKS = (children, threads, descriptors) if Path("/proc/self/fd").exists() else (threads,)


def pytest_configure(config: pytest.Config) -> None:
    """Tell at the end which tests are slow, unless the command line says how many to tell."""
    if config.getoption("durations") is None:
        config.option.durations, config.option.durations_min = SHOWN, SLOW_S


def pytest_collection_finish() -> None:
    """Keep the collector from looking, thousands of times, at the modules that are loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves processes, threads, sockets or files behind."""
    before = [look() for look in LOOKS]
    yield
    deadline = time.monotonic() + GRACE_S
    while True:
        left = set().union(*(look() - had for look, had in zip(LOOKS, before, strict=True)))
        if not left:
            return
        gc.collect()
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + ", ".join(sorted(left)), pytrace=False)
        time.sleep(0.02)
