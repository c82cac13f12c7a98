"""EPU metadata and trees for tests: an image XML writer, a tree in memory, and a drive loop."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from algorithms.formats.errors import FormatError
from algorithms.formats.movie import Structure
from mdcatch.config import MdcatchConfig
from mdcatch.disk import Entry
from mdcatch.service import Mdcatch, State
from mdcatch.settle import Facts
from mdcatch.source import EpuSource
from services.kit import events

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
    """A file system in memory: a movie is whole when its content ends with b"END"."""

    files: dict[str, bytes] = field(default_factory=dict)
    gone: bool = False
    ticks: int = 0
    times: dict[str, int] = field(default_factory=dict)

    def put(self, path: str, content: bytes) -> None:
        """Write a file."""
        self.files[path] = content
        self.ticks += 1
        self.times[path] = self.ticks

    def changed(self, folder: str) -> int:
        """Return a folder's time: the number of its names serves."""
        if self.gone:
            raise FileNotFoundError(2, "No such file or directory")
        return len(self.files)

    def entries(self, folder: str) -> list[Entry]:
        """Return a folder's names."""
        prefix = f"{folder}/" if folder else ""
        rest = {p.removeprefix(prefix) for p in self.files if p.startswith(prefix)}
        return sorted({Entry(name.partition("/")[0], "/" in name) for name in rest})

    def facts(self, path: str) -> Facts | None:
        """Return a file's facts."""
        if path not in self.files:
            return None
        return Facts(len(self.files[path]), self.times[path], 1)

    def read(self, path: str, limit: int) -> bytes:
        """Return a file's content."""
        return self.files[path][:limit]

    def structure(self, path: str) -> Structure:
        """Return a movie's structure."""
        content = self.files[path]
        if not content:
            raise FormatError(path, "EMPTY_FILE", "0 bytes")
        if not content.endswith(b"END"):
            raise FormatError(path, "TRUNCATED", "the end is missing")
        return Structure(
            format="tiff",
            nx=64,
            ny=48,
            n_frames=4,
            dtype="uint8",
            compression="lzw",
            pixel_size_A=None,
            complete_bytes=len(content),
        )

    def digest(self, path: str, facts: Facts) -> str | None:
        """Return a file's digest."""
        return hashlib.sha256(self.files[path]).hexdigest()


class Drive:
    """Polls a source and folds the service's decisions, as the host does; time is simulated."""

    def __init__(self, config: MdcatchConfig, tree: MemoryTree | None = None, start: float = 100.0):
        self.service = Mdcatch(config)
        self.source = EpuSource(config, tree, clock=lambda: 0.0)
        self.now = start
        self.state = self.service.empty()
        self.bodies: list[events.Body] = []

    def step(self, seconds: float = 0.5) -> list[events.Body]:
        """Poll once, then let time pass."""
        stimuli, _ = self.source.poll(self.now, self.state)
        new: list[events.Body] = []
        for stimulus in stimuli:
            for body in self.service.decide(self.state, stimulus):
                self.service.apply(self.state, body, self.now)
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
        other = Drive(config, tree, start=self.now + 1000.0)
        for body in self.bodies:
            other.service.apply(other.state, body, 0.0)
        packed = msgspec.msgpack.encode(other.state)
        assert packed == msgspec.msgpack.encode(self.state)
        other.state = msgspec.msgpack.decode(packed, type=State)
        return other


def plain(body: events.MovieSettled) -> events.MovieSettled:
    """Return an event without what differs between two writings of the same file."""
    return msgspec.structs.replace(body, mtime_ns=0)
