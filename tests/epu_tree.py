"""EPU metadata and trees for tests: an image XML writer, a tree in memory, and a drive loop."""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mdcatch.config import MdcatchConfig
from mdcatch.disk import Ends, Entry
from mdcatch.parsers import Record, parse
from mdcatch.service import Mdcatch, State
from mdcatch.settle import Facts
from mdcatch.source import RawSource
from services.kit import events
from services.kit.errors import Code, Refused

ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
FOLDER = "Images-Disc1/GridSquare_4590776/Data"


def stem(hole: int = 1001, area: int = 2001, number: int = 0) -> str:
    """Name of an exposure as EPU writes it, without suffix."""
    return f"FoilHole_{hole}_Data_{area}_{area + 2}_20261120_{100000 + number}"


def image_xml(
    *,
    pixel_m: str | None = "1e-10",
    voltage_V: str | None = "300000",
    dose_e_m2: str | None = "4.0E+21",
    width: int = 64,
    height: int = 48,
    factor: int = 1,
    frames: int | None = 4,
    beam_shift: tuple[float, float] = (0.01, -0.02),
    magnification: str = "130000",
    instrument: str = "3299",
    extra: str = "",
) -> bytes:
    """Return an image XML; None leaves a field out."""

    def pair(key: str, value: str, kind: str = "x:double") -> str:
        return (
            f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key>"
            f'<a:Value i:type="{kind}">{value}</a:Value></a:KeyValueOfstringanyType>'
        )

    fractions = f"<b:NumberOffractions>{frames}</b:NumberOffractions>"
    custom = pair("AppliedDefocus", "-1.5E-06") + extra
    custom += "" if dose_e_m2 is None else pair("Dose", dose_e_m2)
    camera = pair("SuperResolutionFactor", str(factor)) + pair("ElectronCountingEnabled", "true")
    camera += (
        ""
        if frames is None
        else pair("FractionationSettings", fractions, "b:EquidistantFractionation")
    )
    pixel = f"<x><numericValue>{pixel_m}</numericValue></x>" if pixel_m else ""
    volts = f"<AccelerationVoltage>{voltage_V}</AccelerationVoltage>" if voltage_V else ""
    return (
        '<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects" '
        f'xmlns:i="http://www.w3.org/2001/XMLSchema-instance" xmlns:a="{ARRAYS}" '
        'xmlns:b="urn:b" xmlns:d="urn:d">'
        f"<CustomData>{custom}</CustomData>"
        f"<SpatialScale><pixelSize>{pixel}</pixelSize></SpatialScale><microscopeData><acquisition>"
        "<acquisitionDateTime>2026-11-20T10:15:02.1234567+00:00</acquisitionDateTime><camera>"
        f"<Binning><d:x>1</d:x></Binning><CameraSpecificInput>{camera}</CameraSpecificInput>"
        "<ExposureTime>2.5</ExposureTime><Name>EF-CCD</Name><ReadoutArea>"
        f"<d:height>{height}</d:height><d:width>{width}</d:width></ReadoutArea></camera>"
        f"</acquisition><gun>{volts}</gun><instrument><InstrumentID>{instrument}</InstrumentID>"
        f"</instrument><optics><BeamShift><d:_x>{beam_shift[0]}</d:_x><d:_y>{beam_shift[1]}</d:_y>"
        "</BeamShift><TemMagnification>"
        f"<NominalMagnification>{magnification}</NominalMagnification></TemMagnification></optics>"
        "</microscopeData></MicroscopeImage>"
    ).encode()


@dataclass
class MemoryTree:
    """A file system in memory: a movie is whole when its content ends with b"END".

    b"|3END" has three frames; b"HOLE" at the start has the full size, and zeros at its end. It can
    behave as a share does: with `is_stale`, names, sizes and times are those of the last `refresh`,
    as clients cache them, while what is opened is read from the server.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gone: bool = False
    ticks: int = 0
    times: dict[str, int] = field(default_factory=dict)
    inodes: int = 0  # added to every inode number: another one after a share came back
    is_stale: bool = False
    cache: dict[tuple[str, str], Any] = field(default_factory=dict)

    def put(self, path: str, content: bytes) -> None:
        """Write a file."""
        self.files[path] = content
        self.ticks += 1
        self.times[path] = self.ticks

    def remove(self, path: str) -> None:
        """Delete a file."""
        del self.files[path]
        self.ticks += 1

    def move(self, path: str, new: str) -> None:
        """Rename a file; its time stays."""
        self.files[new], self.times[new] = self.files.pop(path), self.times.pop(path)
        self.ticks += 1

    def refresh(self) -> None:
        """Let the client ask the server again."""
        self.cache = {}

    def changed(self, folder: str) -> int:
        """Return a folder's time: the number of changes serves."""
        return self._cached("changed", folder, lambda: self.ticks)

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's names."""
        return self._cached("entries", folder, lambda: self._entries(folder))

    def facts(self, path: str) -> Facts | None:
        """Return a file's facts."""
        return self._cached("facts", path, lambda: self._facts(path))

    def _cached(self, kind: str, path: str, ask: Callable[[], Any]) -> Any:
        if self.gone:
            raise FileNotFoundError(2, "No such file or directory")
        if self.is_stale and (kind, path) in self.cache:
            return self.cache[kind, path]
        answer = ask()
        if answer is not None:
            self.cache[kind, path] = answer
        return answer

    def _entries(self, folder: str) -> list[Entry]:
        prefix = f"{folder}/" if folder else ""
        rest = {p.removeprefix(prefix) for p in self.files if p.startswith(prefix)}
        found = sorted({(name.partition("/")[0], "/" in name) for name in rest})
        return [Entry(name, inner, True, self._inode(prefix + name)) for name, inner in found]

    def _facts(self, path: str) -> Facts | None:
        if path not in self.files:
            return None
        return Facts(len(self.files[path]), self.times[path], self._inode(path))

    def _inode(self, path: str) -> int:
        return self.inodes + zlib.crc32(path.encode(errors="surrogateescape"))

    def record(self, path: str) -> Record:
        """Return what a file says."""
        if self.gone or path not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        content = self.files[path]
        if path.lower().endswith((".xml", ".mdoc", ".dm")):
            return parse(content, path)
        if not content:
            raise Refused(Code.EMPTY_FILE, "0 bytes")
        whole = content.endswith(b"END")
        form = "eer" if path.endswith(".eer") else "mrc" if path.endswith("mrc") else "tiff"
        record = Record(format=form, kind="movie")
        record.put("complete", whole, "header")
        if not whole:
            record.notes.append("not complete: the end is missing")
            return record
        frames = int(content.partition(b"|")[2][:-3] or 4)
        record.put("n_frames", frames if frames > 1 else None, "header")
        record.put("movie_size_px" if frames > 1 else "image_size_px", (64, 48), "header")
        record.put("compression", "lzw" if form == "tiff" else None, "header")
        return record

    def ends(self, path: str, facts: Facts) -> Ends | None:
        """Return a file's digest; opening it asks the server."""
        if self.gone or path not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        content = self.files[path]
        if (len(content), self.times[path]) != (facts.size, facts.mtime_ns):
            self.cache.pop(("facts", path), None)
            return None
        return Ends(hashlib.sha256(content).hexdigest(), content.startswith(b"HOLE"))


OPEN: list["Drive"] = []


def close_drives() -> None:
    """Close the sources of all drives: on real folders they have a parser process."""
    while OPEN:
        OPEN.pop().source.close()


class Drive:
    """Polls a source and folds the service's decisions, as the host does; time is simulated."""

    def __init__(
        self,
        config: MdcatchConfig,
        tree: MemoryTree | None = None,
        start: float = 100.0,
        trees: dict[str, MemoryTree] | None = None,
    ):
        self.service = Mdcatch(config)
        self.source = RawSource(config, tree, dict(trees or {}), clock=lambda: 0.0)
        self._trees = trees
        OPEN.append(self)
        self.now = start
        self.state = self.service.empty()
        self.bodies: list[events.Body] = []
        self.history: list[tuple[events.Body, float]] = []  # of all drives before, too

    def step(self, seconds: float = 0.5) -> list[events.Body]:
        """Poll once, then let time pass."""
        stimuli, _ = self.source.poll(self.now, self.state)
        new: list[events.Body] = []
        for stimulus in stimuli:
            for body in self.service.decide(self.state, stimulus):
                self.service.apply(self.state, body, self.now)
                self.history.append((body, self.now))
                new.append(body)
                events.decode(events.encode(body))
        self.bodies += new
        self.now += seconds
        return new

    def run(self, seconds: float, step_s: float = 0.5) -> list[events.Body]:
        """Poll for some time; return the new events."""
        new: list[events.Body] = []
        for _ in range(round(seconds / step_s)):
            new += self.step(step_s)
        return new

    def run_until(self, done: Callable[[State], bool], limit_s: float) -> None:
        """Poll until the state is as wanted; fail when it never is."""
        begin = self.now
        while not done(self.state):
            assert self.now - begin < limit_s, self.state
            self.step()

    def of(self, kind: type[events.Body]) -> list:
        """Return all events of one kind."""
        return [body for body in self.bodies if isinstance(body, kind)]

    def codes(self) -> dict[str, str]:
        """Return the code of every exposure that is refused or waits, by its last component."""
        entries = self.state.exposures.items()
        return {name.rpartition("/")[2]: e.code for name, e in entries if e.code}

    def restarted(self, config: MdcatchConfig, tree: MemoryTree | None = None) -> "Drive":
        """Return a drive whose state is the fold of this one's events, after a snapshot's way."""
        self.source.close()
        other = Drive(config, tree, start=self.now + 1000.0, trees=self._trees)
        other.history = list(self.history)
        for body, at in self.history:
            other.service.apply(other.state, body, at)
        packed = msgspec.msgpack.encode(other.state)
        assert packed == msgspec.msgpack.encode(self.state)
        other.state = msgspec.msgpack.decode(packed, type=State)
        return other


def plain(body: events.MovieSettled) -> events.MovieSettled:
    """Return an event without what differs between two writings of the same files."""
    return msgspec.structs.replace(body, mtime_ns=0, complete_by="", optics_provisional=None)
