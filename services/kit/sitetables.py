"""The tables of the site's file, and how a microscope and a camera are found in them.

Source: acquisition.md sections 1.2, 2.1, 2.4, 2.5 and 7.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from services.kit.events import Fraction, PixelSizeA, SphericalAberrationMM, VoltageKV

Role = Literal["metadata", "movies", "both"]
Mode = Literal["counting", "linear", "super-resolution"]
AbsolutePath = Annotated[
    str,
    Meta(pattern=r"^/(?!/)(?!(.*/)?\.\.(/|$))[^\0]*$", description="an absolute path without .."),
]
FilePattern = Annotated[
    str,
    Meta(
        pattern=r"^[^/\0]+$",
        description='a pattern for file names, such as "*_gain.tiff", without a folder',
    ),
]
MtfPattern = Annotated[
    str,
    Meta(
        pattern=r"^/(?!(.*/)?\.\.(/|$))([^{}\0]|\{kV\})*$",
        description="an absolute path, where {kV} stands for the voltage",
    ),
]
Name = Annotated[str, Meta(pattern=r"^\S(.*\S)?$", max_length=200, description="a name")]
Patience = Annotated[float, Meta(ge=0.0, le=86_400.0)]
QuarterTurns = Annotated[int, Meta(ge=0, le=3)]
Magnification = Annotated[
    int, Meta(ge=1, le=100_000_000, description="a magnification such as 105000")
]
Address = Annotated[
    str,
    Meta(
        pattern=r"^(tcp|tls|ws|wss)://[^\s/]+:\d{1,5}$",
        description="an address such as tcp://host:8786",
    ),
]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables of the file."""


class Root(Table, frozen=True, kw_only=True):
    """A folder below which sessions appear; it is only read."""

    path: AbsolutePath
    role: Role = "both"  # EPU's metadata disk, the cameras' movies, or both in one tree
    settle_s: Patience | None = None  # None: by the kind of file system
    poll_s: Annotated[float, Meta(gt=0.0, le=600.0)] | None = None


class Camera(Table, frozen=True, kw_only=True):
    """A camera of a microscope, with what its files do not say."""

    model: Name  # as the metadata's commercial name: "Falcon 4i", "K3"
    epu_id: str = ""  # EF-CCD, BM-Falcon, EF-Falcon: what EPU before 3 writes instead of a model
    gain: tuple[FilePattern, ...] = ()  # of gain files beside the movies or in a folder above
    gain_folder: AbsolutePath | None = None  # where gains are that EPU does not copy (EER)
    gain_rotation: QuarterTurns = 0  # quarter turns of the gain, before the flip
    gain_flip: Annotated[int, Meta(ge=0, le=2)] = 0  # 0 none, 1 upside down, 2 left-right
    mtf: dict[Mode, MtfPattern] = {}  # STAR file of the modulation transfer function by mode
    # Magnification to the calibrated pixel of the sensor: unbinned, not super-resolution.
    pixel_sizes_A: dict[Magnification, PixelSizeA] = {}

    def mtf_file(self, mode: Mode, voltage_kV: float) -> Path | None:
        """Return the MTF file of a mode and voltage, None when none is configured."""
        pattern = self.mtf.get(mode)
        return None if pattern is None else Path(pattern.replace("{kV}", f"{voltage_kV:.0f}"))

    def is_gain(self, name: str) -> bool:
        """Tell whether a file name is that of a gain, by the patterns; case does not matter."""
        return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in self.gain)


class Microscope(Table, frozen=True, kw_only=True):
    """A microscope, found by the id that metadata files state."""

    id: Name  # EPU's InstrumentID, the D-number of SerialEM and MRC headers: "3299"
    name: Name
    spherical_aberration_mm: SphericalAberrationMM  # no file says it
    voltage_kV: VoltageKV | None = None  # where the metadata is silent
    aliases: tuple[Name, ...] = ()  # other ids or names in its files
    cameras: tuple[Camera, ...] = ()

    def camera(self, model: str | None, epu_id: str | None) -> Camera | None:
        """Return the camera that took an image; None when that is not certain.

        Parameters
        ----------
        model
            Commercial name of the metadata; it decides where it is known ("BioQuantum K3" is the
            configured "K3", and "Falcon 4" is not "Falcon 4i").
        epu_id
            EPU's detector id; it decides where only one camera has it.
        """
        if model:
            found = [c for c in self.cameras if _is_within(_words(c.model), _words(model))]
            if found:
                return max(found, key=lambda camera: len(_words(camera.model)))
            return None
        found = [c for c in self.cameras if epu_id and c.epu_id.lower() == epu_id.lower()]
        return found[0] if len(found) == 1 else None


class Defaults(Table, frozen=True, kw_only=True):
    """What new sessions begin with; None leaves the built-in value."""

    projects: AbsolutePath = "/var/lib/coldstream"  # where new projects are made
    pipeline: Literal["native", "relion", "scipion"] = "native"
    picker: Literal["log", "topaz", "cryolo"] = "log"
    picker_model: AbsolutePath | None = None  # trained model of Topaz or crYOLO
    particle_diameter_A: Annotated[float, Meta(gt=0.0, le=100_000.0)] | None = None
    symmetry: Annotated[
        str, Meta(pattern=r"^([CD][1-9]\d?|[TO]|I[1-4]?)$", description="C1, D2, T, O, I or such")
    ] = "C1"
    dose_per_fraction_e_A2: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0  # for EER
    ctf_resolution_A: Annotated[float, Meta(gt=1.0, le=100.0)] | None = None  # selection
    amplitude_contrast: Fraction | None = None
    settle_s: Patience | None = None  # local disks
    network_settle_s: Patience = 20.0  # shares, whose clients cache sizes and times
    stuck_s: Patience | None = None
    metadata_wait_s: Patience | None = None
    settings: dict[str, str] = {}  # options of the Schemes: prep__motioncorr__patch_x = "5"


class Cluster(Table, frozen=True, kw_only=True):
    """Where the work is done."""

    workers: Annotated[int, Meta(ge=1, le=1024)] | None = None  # None: one per core
    worker_memory: str | None = None  # "8GB"; None divides the machine's
    scheduler: Address | None = None  # a running Dask scheduler instead of own workers
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0  # that this host must have


class Programs(Table, frozen=True, kw_only=True):
    """Other people's programs: names on the PATH, or absolute paths."""

    relion: Name = "relion_refine"
    topaz: Name = "topaz"
    cryolo: Name = "cryolo_predict.py"
    scipion: Name = "scipion3"
    mail: Name = "mail"


class Notify(Table, frozen=True, kw_only=True):
    """Who is told when something needs a person."""

    mail: tuple[
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_][A-Za-z0-9._%=+-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?$",
                description="a mail address",
            ),
        ],
        ...,
    ] = ()
    command: tuple[str, ...] = ()  # program and arguments; the message is its standard input


class Security(Table, frozen=True, kw_only=True):
    """Keys for TCP between hosts; see `coldstream keys new`."""

    key: AbsolutePath | None = None  # own secret key file
    server: AbsolutePath | None = None  # public key file of the server that is connected to
    allowed: tuple[AbsolutePath, ...] = ()  # public key files of the clients that are let in


class Site(Table, frozen=True, kw_only=True):
    """The whole file; without one, everything is built-in."""

    roots: dict[str, Root] = {}
    microscopes: tuple[Microscope, ...] = ()
    defaults: Defaults = Defaults()
    cluster: Cluster = Cluster()
    programs: Programs = Programs()
    notify: Notify = Notify()
    security: Security = Security()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for microscope in self.microscopes:
            for name in {_key(n) for n in (microscope.id, microscope.name, *microscope.aliases)}:
                if name in seen:
                    raise ValueError(
                        f"microscopes {seen[name]} and {microscope.name} share the id or name "
                        f"{name!r}; their files could not be told apart: correct one of them"
                    )
                seen[name] = microscope.name

    def root_of(self, path: Path) -> Root | None:
        """Return the root that a path lies in, the innermost one."""
        found = [root for root in self.roots.values() if path.is_relative_to(root.path)]
        return max(found, key=lambda root: len(root.path), default=None)

    def microscope(self, stated: str | None) -> Microscope | None:
        """Return the microscope with an id, name or alias as a file states it."""
        wanted = _key(stated or "")
        for microscope in self.microscopes:
            if wanted in map(_key, (microscope.id, microscope.name, *microscope.aliases)):
                return microscope
        return None


def _key(text: str) -> str:
    """Compare ids without case, and D-numbers with and without their D."""
    return re.sub(r"^d(?=\d+$)", "", text.strip().lower())


def _words(model: str) -> list[str]:
    """Split "Falcon4i", "Falcon 4i" and "FALCON-4I" into the same words."""
    return re.findall(r"[a-z]+|\d+[a-z]*", model.lower())


def _is_within(words: list[str], text: list[str]) -> bool:
    size = len(words)
    return any(text[start : start + size] == words for start in range(len(text) - size + 1))
