"""An E-step that several processes share, on one machine or many, with processors or GPUs.

One process (rank 0) has the run: the model, the files, the M-step. The others are given the model
and what is known of the particles, look at their block of the particles, and hand back sums and
columns. Nothing that lasts is with them, so a run goes on from its files with any number of
processes. They read images themselves, by the same paths.

Sums are added along a tree that only depends on the number of processes: with as many of them,
the same bytes come out; with more or fewer, the same but for rounding.

Source: refinement.md section 9.3.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from algorithms.refine.expectation import Work, expectation
from algorithms.refine.joining import WRITTEN as _FOUND
from algorithms.refine.sums import Sums
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Model, Options, Particles, RefineError

# A process that ends is noticed at once, by its connection; only a machine that vanishes is waited
# for, and for longer than any iteration takes.
PATIENCE = timedelta(hours=24)
_TOLD = (
    "offset_A",
    "norm",
    "rot_deg",
    "tilt_deg",
    "psi_deg",
)  # what the E-step wants to know of a particle's past


class _Agreed(RefineError):
    """A process has failed, and all know."""


@dataclass(frozen=True)
class _Given:
    """What an iteration begins with; the data only when they are new."""

    data: DataSet | None
    model: Model
    options: Options
    subset: np.ndarray
    told: dict[str, np.ndarray]
    only_class: np.ndarray | None


class Shards:
    """The processes of a run, as one of them sees them.

    Parameters
    ----------
    rank, size
        Number of this process, from 0, and how many there are.
    device
        Where this process does its share.
    store
        A file that all of them see and that does not exist yet: how they find each other. None:
        by the environment, as `torchrun` sets it.
    """

    def __init__(self, rank: int, size: int, device: str = "cpu", store: Path | None = None):
        self.rank, self.size, self.device = rank, size, device
        gpu = device.startswith("cuda")
        if gpu:
            torch.cuda.set_device(device)
        rendezvous: dict[str, Any] = {"timeout": PATIENCE}
        if store is not None:
            found = dist.FileStore(str(store), size)  # pyright: ignore[reportPrivateImportUsage]
            rendezvous |= {"store": found, "rank": rank, "world_size": size}
        self._known: tuple[DataSet, int] | None = None  # what the others have, and its size
        self._is_over = False
        with self._connected():
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", **rendezvous)

    def end(self) -> None:
        """Let the other processes end; after a failure they do so themselves."""
        if self.rank == 0 and not self._is_over:
            with suppress(RefineError), self._connected():
                dist.broadcast_object_list([None], src=0)
        dist.destroy_process_group()

    def block(self, subset: np.ndarray, rank: int | None = None) -> np.ndarray:
        """Return the particles of one process, this one by default."""
        return np.array_split(subset, self.size)[self.rank if rank is None else rank]

    # ---- rank 0

    def begin(
        self,
        data: DataSet,
        model: Model,
        options: Options,
        subset: np.ndarray,
        only_class: np.ndarray | None = None,
    ) -> None:
        """Give all processes what an iteration begins with.

        Raises
        ------
        RefineError
            A process has ended.
        """
        told = {name: getattr(data.particles, name)[subset] for name in _TOLD}
        is_known = (
            self._known is not None and self._known[0] is data and self._known[1] == len(data)
        )
        self._known = (data, len(data))
        given = _Given(
            None if is_known else data, replace(model, moments=None), options, subset, told,
            only_class,
        )  # fmt: skip
        with self._connected():
            dist.broadcast_object_list([given], src=0)

    def expectation(
        self, work: Work, subset: np.ndarray, tell: Callable[[int], None] = lambda n: None
    ) -> Sums:
        """Do this process's share of the E-step; rank 0 has the sums and columns of all.

        Parameters
        ----------
        work, subset, tell
            As of `algorithms.refine.expectation.expectation`; the subset is that of all.

        Raises
        ------
        RefineError
            An image cannot be used, or a process has failed or ended.
        """
        problem, sums = "", None
        try:
            many = len(subset)
            sums = expectation(work, self.block(subset), lambda n: tell(min(many, n * self.size)))
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the others are waiting for this process and have to be told.
            problem = _words(error)
        with self._connected():
            self._agree(problem)
            assert sums is not None  # noqa: S101
            self._add_up(sums)
            self._collect(work.data.particles, subset)
        return sums

    # ---- the others

    def serve(self) -> None:
        """Do the share of one iteration after another, until rank 0 has ended or any has failed.

        Raises
        ------
        RefineError
            A process has ended.
        """
        data: DataSet | None = None
        while True:
            box: list[_Given | None] = [None]
            with self._connected():
                dist.broadcast_object_list(box, src=0)
            given = box[0]
            if given is None:
                return
            data = given.data or data
            assert data is not None  # noqa: S101
            for name, values in given.told.items():
                getattr(data.particles, name)[given.subset] = values
            lookup = tables(given.model, given.options, self.device)
            try:
                work = Work(data, given.model, given.options, lookup, self.device, given.only_class)
                self.expectation(work, given.subset)
            except _Agreed:
                return  # rank 0 says it

    # ---- all

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn what torch says of a connection that broke into words."""
        try:
            yield
        except RuntimeError as error:
            self._is_over = True
            whose = "another process" if self.rank == 0 else "the first process"
            raise RefineError(
                f"{whose} of the run has ended or cannot be reached: see what it said; started "
                f"again, the run goes on from its last iteration ({str(error).splitlines()[0]})"
            ) from error

    def _agree(self, problem: str) -> None:
        """Fail in all processes when one has failed."""
        problems: list[Any] = [None] * self.size
        dist.all_gather_object(problems, problem)
        for rank, one in enumerate(problems):
            if one:
                self._is_over = True
                where = "" if rank == 0 else f"process {rank + 1} of {self.size}: "
                raise _Agreed(f"{where}{one}")

    def _add_up(self, sums: Sums) -> None:
        """Add all sums into those of rank 0: neighbours first, then pairs of pairs."""
        step = 1
        while step < self.size:
            if self.rank % (2 * step) == step:
                for part in _parts(sums):
                    dist.send(part, self.rank - step)
                return
            if self.rank + step < self.size:
                for part in _parts(sums):
                    theirs = torch.empty_like(part)
                    dist.recv(theirs, self.rank + step)
                    part += theirs
            step *= 2

    def _collect(self, particles: Particles, subset: np.ndarray) -> None:
        """Write the columns of all particles of the subset, at rank 0."""
        for rank in range(1, self.size):
            block = self.block(subset, rank)
            for name in _FOUND if len(block) else ():
                column = getattr(particles, name)
                values = torch.as_tensor(column[block])
                if self.rank == rank:
                    dist.send(values, 0)
                elif self.rank == 0:
                    dist.recv(values, rank)
                    column[block] = values.numpy()


def _parts(sums: Sums) -> Iterator[Tensor]:
    for tensor in sums.tensors():
        yield torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, RefineError) else f"{type(error).__name__}: {error}"
