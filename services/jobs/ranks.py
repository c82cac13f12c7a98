"""Processes that share one job: started here, or by `torchrun` on one machine or many.

The first of them is the job. The others only calculate: they take no lock, write no files, and end
when the first one does.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import torch

from algorithms.refine.shards import Shards
from algorithms.refine.types import RefineError
from services.jobs.job import HIDDEN, Failed, Job
from services.kit.process import die_with_parent, show_name

START_S = 300.0  # until all have loaded their programs, on a busy machine
END_S = 30.0
POLL_S = 0.05
_OURS = "COLDSTREAM_RANKS"  # the parent's process id and the file by which they find each other


def rank() -> int:
    """Return the number of this process among those of its job, 0 for the job itself."""
    return int(os.environ.get("RANK", "0"))


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


class Ranks:
    """The other processes of a job; a context manager.

    Parameters
    ----------
    job
        The job; `nr_mpi` says how many processes share it. Under `torchrun` there are as many as
        that has started.
    device
        Of this process.
    """

    def __init__(self, job: Job, device: str):
        self._job, self._device = job, device
        self._folder = job.folder / HIDDEN / "ranks"
        self._children: list[subprocess.Popen[bytes]] = []
        self.shards: Shards | None = None

    def __enter__(self) -> Self:
        size = self._job.options.whole("nr_mpi", 1, 1, 1024)
        if "WORLD_SIZE" in os.environ:
            self.shards = Shards(0, int(os.environ["WORLD_SIZE"]), self._device)
        elif size > 1:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a job that was killed
            self._folder.mkdir()
            try:
                self.shards = self._start(size, self._folder / "store")
            except BaseException:
                self._stop(0.0)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.shards is not None:
            self.shards.end()
        self._stop(END_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, size: int, store: Path) -> Shards:
        common = {"WORLD_SIZE": str(size), _OURS: f"{os.getpid()}:{store}"}
        if sys.platform == "linux":  # nobody else needs to reach them
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        for number in range(1, size):
            environment = {"RANK": str(number), "LOCAL_RANK": str(number)} | common
            self._children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "services.jobs", self._job.process],
                    cwd=self._job.project,
                    stdin=subprocess.DEVNULL,
                    env=os.environ | environment,
                )
            )
        deadline = time.monotonic() + START_S
        while not all(_sign(store, number).exists() for number in range(1, size)):
            dead = [child.returncode for child in self._children if child.poll() is not None]
            if dead or time.monotonic() > deadline:
                how = f"ended with {dead[0]}" if dead else f"was not ready within {START_S:g} s"
                raise Failed(f"one of the {size} processes of nr_mpi {how}: see run.err")
            time.sleep(POLL_S)
        return Shards(0, size, self._device, store)

    def _stop(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        for child in self._children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()


def serve(job: Job) -> None:
    """Do a share of a job that another process has; the life of a process with a rank."""
    store = None
    if _OURS in os.environ:
        parent, _, place = os.environ[_OURS].partition(":")
        die_with_parent(int(parent))
        store = Path(place)
        _sign(store, rank()).touch()
    show_name(f"coldstream-r{rank()}")
    # Ctrl-C comes to all processes of a terminal; the job decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads_of(job))
    try:
        shards = Shards(rank(), int(os.environ["WORLD_SIZE"]), device_of(job), store)
        try:
            shards.serve()
        finally:
            shards.end()
    except RefineError as error:
        raise Failed(str(error)) from error


def threads_of(job: Job) -> int:
    """Return the threads of each process."""
    return job.options.whole("nr_threads", 1, 1, 1024)


def device_of(job: Job) -> str:
    """Return where this process calculates: `gpu_ids` are given out in turn."""
    if not job.options.switch("use_gpu", False):
        return "cpu"
    if not torch.cuda.is_available():
        job.say("note: use_gpu is Yes, but there is no GPU: the processor does it")
        return "cpu"
    given = re.split(r"[:, ]", job.options.text("gpu_ids", "").strip('"'))
    numbers = [one for one in given if one.isdigit()]
    if not numbers:
        return f"cuda:{_local_rank() % torch.cuda.device_count()}"
    return f"cuda:{numbers[_local_rank() % len(numbers)]}"


def _sign(store: Path, number: int) -> Path:
    """Return the file that says that a process has been started."""
    return store.with_name(f"{store.name}.{number}")
