"""Real processes under measurement: how long they take to start, and how much memory they hold."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import torch

from services.kit.cluster import KEEP_BYTES
from tests.system.sessions import environment

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def work_like_a_worker() -> None:
    """Compute on one thread and keep freed memory, as workers do (services/kit/cluster.py)."""
    torch.set_num_threads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(parameter, KEEP_BYTES)


def memory_MB(pid: int, field: str = "VmRSS") -> float:
    """Return the resident memory of a process; `VmHWM` is the most it has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")


def processor_s(pid: int) -> float:
    """Return the processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and its children, whichever of its threads started them."""
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            children.update(map(int, (task / "children").read_text().split()))
    return [pid, *sorted(children)]


class Process:
    """A process of a session, run as `coldstream up` runs it.

    Parameters
    ----------
    module
        What `python -m` starts.
    project
        RELION project folder.
    ready
        Words in the log line that says it is ready.
    log
        File for its output.
    """

    def __init__(self, module: str, project: Path, ready: str, log: Path):
        self.module, self.log, self._ready = module, log, ready
        self._file = open(log, "wb")
        self._begun = time.monotonic()
        self.peak_MB = 0.0  # the most it ever had, known once it is stopped
        self.popen = subprocess.Popen(
            [sys.executable, "-m", module, "--project", str(project)],
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=environment(),
        )

    def started(self, limit_s: float = 60.0) -> float:
        """Wait until it is ready; return the seconds from its start."""
        while self._ready not in self.log.read_text(errors="replace"):
            late = time.monotonic() - self._begun > limit_s
            if late or self.popen.poll() is not None:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.module} did not start:\n{tail}")
            time.sleep(0.005)
        return time.monotonic() - self._begun

    def settle(self, quiet_s: float = 0.7, limit_s: float = 60.0) -> None:
        """Wait until it has had nothing to do for some time."""
        deadline = time.monotonic() + limit_s
        before, since = processor_s(self.popen.pid), time.monotonic()
        while time.monotonic() - since < quiet_s and time.monotonic() < deadline:
            time.sleep(0.1)
            used = processor_s(self.popen.pid)
            if used - before > 0.03:
                before, since = used, time.monotonic()

    def stop(self, limit_s: float = 20.0) -> float:
        """Stop it in order; return the seconds that took."""
        begun = time.monotonic()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            self._reap(begun + limit_s)
        self._file.close()
        return time.monotonic() - begun

    def _reap(self, deadline: float) -> None:
        """Wait for its end, watching what it holds until then."""
        while self.popen.poll() is None:
            self._watch()
            if time.monotonic() > deadline:
                self.popen.kill()
            time.sleep(0.002)

    def _watch(self) -> None:
        try:
            self.peak_MB = max(self.peak_MB, memory_MB(self.popen.pid, "VmHWM"))
        except (OSError, ProcessLookupError):
            pass  # it has ended meanwhile

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def service(name: str, project: Path, log: Path) -> Process:
    """Start mdcatch, prep or proc."""
    module = "mdcatch" if name == "mdcatch" else f"services.{name}"
    return Process(module, project, "service.started", log)


def cluster(project: Path, log: Path) -> Process:
    """Start the cluster of a project."""
    return Process("services.kit.cluster_main", project, "cluster.ready", log)
