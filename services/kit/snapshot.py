"""A cache of the fold: state bytes at a sequence number, checked by digest, deletable.

Source: reliability.md section 2.6.
"""

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from services.kit.paths import Layout, atomic_write

KEEP = 3
EVERY_EVENTS = 1000

S = TypeVar("S")


class Snapshot(msgspec.Struct, frozen=True):
    """What a snapshot file holds."""

    epoch: bytes
    seq: int
    code: str  # a state of other code is not used
    state: bytes
    sha256: bytes


def _folder(layout: Layout, producer: str) -> Path:
    return layout.snapshots / producer


def save(layout: Layout, producer: str, epoch: bytes, seq: int, code: str, state: object) -> None:
    """Write a snapshot and remove the oldest ones."""
    data = msgspec.msgpack.encode(state)
    snapshot = Snapshot(epoch, seq, code, data, hashlib.sha256(data).digest())
    folder = _folder(layout, producer)
    atomic_write(folder / f"{seq:012d}.msgpack", msgspec.msgpack.encode(snapshot))
    for old in sorted(folder.glob("*.msgpack"))[:-KEEP]:
        old.unlink(missing_ok=True)


def load(
    layout: Layout, producer: str, epoch: bytes, head: int, code: str, kind: type[S]
) -> tuple[int, S] | None:
    """Return (seq, state) of the newest usable snapshot, or None.

    A snapshot that is broken, of another journal, of other code, or ahead of the journal is
    passed over: it is only a cache.
    """
    for path in sorted(_folder(layout, producer).glob("*.msgpack"), reverse=True):
        try:
            snapshot = msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
            good = hashlib.sha256(snapshot.state).digest() == snapshot.sha256
            if not good or snapshot.epoch != epoch or snapshot.code != code or snapshot.seq > head:
                continue
            return snapshot.seq, msgspec.msgpack.decode(snapshot.state, type=kind)
        except (OSError, msgspec.MsgspecError):
            continue
    return None
