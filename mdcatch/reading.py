"""What is read of a movie: its header and its two ends, and whether it is the one that settled.

Source: acquisition.md sections 5, 6 and 8 (4, 9); reliability.md section 3 (F11).
"""

import msgspec

from mdcatch.ground import Ground
from mdcatch.ledger import Entry
from mdcatch.parsers.record import Field
from mdcatch.settle import Facts
from mdcatch.stimuli import Header
from services.kit.errors import Code, Refused

_encode = msgspec.msgpack.Encoder().encode


def header_of(ground: Ground, inside: str, facts: Facts) -> Header | None:
    """Return what a whole movie's header says, None when `facts` are past.

    Parameters
    ----------
    ground, inside
        The root, and the path below it.
    facts
        What was seen of the file.

    Raises
    ------
    Refused
        TRUNCATED and what its parser raises.
    """
    record = ground.tree.record(inside)
    if record.get("complete") is False:
        raise Refused(Code.TRUNCATED, next(iter(record.notes), "the file ends too early"))
    ends = ground.tree.ends(inside, facts)
    if ends is None:
        return None
    if ends.unwritten:
        raise Refused(Code.TRUNCATED, "it ends in zeros: made at full size, not yet written to it")
    size = record.get("movie_size_px") or record.get("image_size_px")
    if size is None:
        raise Refused(Code.UNSUPPORTED, f"a {record.kind} of format {record.format} is no movie")
    frames = record.get("n_frames") or record.get("n_sections") or 1
    record.fields["n_frames"] = Field(frames, "header")
    record.fields["movie_size_px"] = Field(tuple(size), "header")
    return Header(
        format=record.format.partition("_")[0],
        width_px=size[0],
        height_px=size[1],
        n_frames=frames,
        compression=record.get("compression") or "none",
        record=_encode(record),
        digest=ends.digest,
    )


def difference(ground: Ground, inside: str, entry: Entry) -> str | None:
    """Return how a file differs from the one that was published, "" when it does not.

    A share that comes back may show other times and inode numbers: then the content decides. None
    when it changes at this moment, or a cache shows what is past.
    """
    facts = ground.tree.facts(inside)
    if facts is None or (facts.size, facts.mtime_ns) == (entry.size_bytes, entry.mtime_ns):
        return ""
    ends = ground.tree.ends(inside, facts)
    if ends is None:
        return None
    if facts.size != entry.size_bytes:
        return f"it has {facts.size} bytes now, and had {entry.size_bytes}"
    return "its content is another one" if ends.digest != entry.digest else ""


def defects_of(named: str | None, movie: str, seen: set[str]) -> str | None:
    """Return the defects file of a movie: the one it names, else the only one beside it."""
    folder = movie.rpartition("/")[0]
    beside = [path for path in sorted(seen) if path.rpartition("/")[0] == folder]
    if named:
        return next((p for p in [*beside, *sorted(seen)] if p.rpartition("/")[2] == named), None)
    return beside[0] if len(beside) == 1 else None
