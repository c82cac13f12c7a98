"""Slices that are cut when they are asked for, and what images add up to in each, in bounded room.

The rotations that the particles of a batch ask for are a small part of the grid, and those of
neighbours in a list are often the same. A slice is cut once as long as there is room, and what was
added up for it is put into the volume once; when the room is full, all is put away and begun anew.

Source: refinement.md sections 9.1 and 9.3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.refine.lookups import Reference
from algorithms.refine.space import slicing
from algorithms.refine.space.volume import Space

# Even where little memory is allowed; slices that are put into a volume at the same time.
LEAST_SLOTS, _PUT = 256, 128
Matrices = Callable[[Tensor], Tensor]


class Slots:
    """Slices of references, and sums for each: a `Store`.

    Parameters
    ----------
    reference
        What slices are cut from.
    points
        Where the pixels are in the volume, `[3, Q]`.
    matrices
        Returns the orientations of rotations.
    n
        Rotations there are.
    like
        Type and device.
    memory_bytes
        Of the slices and sums, about.
    """

    def __init__(
        self,
        reference: Reference,
        points: Tensor,
        matrices: Matrices,
        n: int,
        like: Tensor,
        memory_bytes: int,
    ):
        assert isinstance(reference.plane, Space)  # noqa: S101
        self._space, self._points, self._matrices, self._n = reference.plane, points, matrices, n
        self._values = reference.values.to(like.dtype.to_complex())
        q, device = points.shape[1], like.device
        room = max(LEAST_SLOTS, memory_bytes // (5 * like.element_size() * q))
        self._room = min(room, n * len(self._values))
        # A system only gives memory for what is written to.
        self.slices = torch.empty((self._room, q), dtype=self._values.dtype, device=device)
        self._keys = torch.empty(0, dtype=torch.int64, device=device)  # ascend
        self._slot = torch.empty(0, dtype=torch.int64, device=device)  # of each key
        self._used = 0

    @property
    def most(self) -> int:
        """How many slices may be asked for at the same time."""
        return self._room

    def rows(self, klass: Tensor, rotation: Tensor) -> Tensor:
        """Return the rows of slices; they are good until rows are asked for again."""
        keys, which = torch.unique(klass * self._n + rotation, return_inverse=True)
        slot = self._found(keys)
        new = keys[slot < 0]
        if self._used + len(new) > self._room:
            self.flush()
            new, slot = keys, torch.full_like(keys, -1)
        if len(new):
            slot[slot < 0] = self._cut(new)
        return slot[which]

    def _found(self, keys: Tensor) -> Tensor:
        """Return the slots of keys, -1 for those that have none."""
        if not len(self._keys):
            return torch.full_like(keys, -1)
        at = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        return torch.where(self._keys[at] == keys, self._slot[at], -1)

    def _cut(self, keys: Tensor) -> Tensor:
        """Cut slices into free slots; return these."""
        begin, end = self._used, self._used + len(keys)
        self._open(begin, end)
        klass, rotation = keys // self._n, torch.remainder(keys, self._n)
        matrices = self._matrices(rotation)
        for k in torch.unique_consecutive(klass).tolist():
            mine = klass == k
            cut = slicing.sample(self._values[k], self._space, matrices[mine], self._points)
            self.slices[begin:end][mine] = cut
        slots = torch.arange(begin, end, device=keys.device)
        both = torch.cat([self._keys, keys])
        order = torch.argsort(both)
        self._keys, self._slot = both[order], torch.cat([self._slot, slots])[order]
        self._used = end
        return slots

    def _open(self, begin: int, end: int) -> None:
        """Make slots ready."""

    def sinks(self, half: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Refuse: nothing is added up here."""
        raise NotImplementedError

    def flush(self) -> None:
        """Make room."""
        self._used = 0
        self._keys, self._slot = self._keys[:0], self._slot[:0]

    def finish(self) -> None:
        """Do what is left to be done."""
        self.flush()


class SummedSlots(Slots):
    """Slices with the sums of images; these end in volumes.

    Parameters
    ----------
    reference, points, matrices, n, like, memory_bytes
        As of `Slots`.
    volumes
        Data and weight `[H, K, voxels]`: are added to.
    residual
        Whether what the reference explains is taken off (VDAM).
    """

    def __init__(
        self,
        reference: Reference,
        points: Tensor,
        matrices: Matrices,
        n: int,
        like: Tensor,
        memory_bytes: int,
        volumes: tuple[Tensor, Tensor],
        *,
        residual: bool,
    ):
        halves = len(volumes[0])
        share = 2.0 / (2.0 + 3.0 * halves)
        super().__init__(reference, points, matrices, n, like, int(memory_bytes * share * 2.5))
        self._volumes, self._residual = volumes, residual
        q = points.shape[1]
        self._data = self.slices.new_empty((halves, self._room, q))
        self._weight = like.new_empty((halves, self._room, q))
        self._dirty = torch.zeros((halves, self._room), dtype=torch.bool, device=like.device)

    def _open(self, begin: int, end: int) -> None:
        self._data[:, begin:end] = 0.0
        self._weight[:, begin:end] = 0.0

    def sinks(self, half: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums, and the rows to add to."""
        q, many = self._data.shape[2], self._data.shape[1]
        self._dirty[half, row] = True
        return self._data.view(-1, q), self._weight.view(-1, q), half * many + row

    def flush(self) -> None:
        """Put all sums into the volumes, each slice once, in the order of classes and rotations."""
        klass, rotation = self._keys // self._n, torch.remainder(self._keys, self._n)
        for half, (data, weight) in enumerate(zip(*self._volumes, strict=True)):
            is_dirty = self._dirty[half][self._slot]
            for k in torch.unique_consecutive(klass).tolist():
                mine = (klass == k) & is_dirty
                if not bool(mine.any()):
                    continue
                slot, matrices = self._slot[mine], self._matrices(rotation[mine])
                self._put(half, slot, matrices, data[k], weight[k])
        self._dirty[:] = False
        super().flush()

    def _put(
        self, half: int, slots: Tensor, matrices: Tensor, data: Tensor, weight: Tensor
    ) -> None:
        for start in range(0, len(slots), _PUT):
            part = slice(start, start + _PUT)
            slot = slots[part]
            images, weights = self._data[half, slot], self._weight[half, slot]
            if self._residual:
                images = images - weights * self.slices[slot]
            where = (self._space, matrices[part], self._points)
            slicing.spread(images, weights, *where, data, weight)
