"""What to simulate: one frozen record, read from TOML, where an unknown key is an error.

Every random choice follows from (recipe, seed): same pair, same bytes.

Source: simulation.md sections 2, 7 and 9.
"""

import dataclasses
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.simulate.faults import FAULTS, Faults

NO_FAULTS = Faults()
ORDERS = ("xml-first", "movie-first", "random")


class RecipeError(ValueError):
    """A recipe cannot be used: the message names the key and says what to write instead."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A simulated session. Lengths are in A, doses in e/A^2, times in s unless the name says so."""

    name: str

    # Movie
    nx: int
    ny: int
    n_frames: int
    pixel_size_A: float
    dose_per_frame_e_A2: float

    # Specimen
    specimen: str = "ribosome30s"
    atom_b_factor_A2: float = 40.0
    n_particles: int = 30
    """Particles aimed at; fewer when the field is full."""
    spacing_diameters: float = 1.0
    """Least distance of two centres; the 30S subunit is long and thin, so 1 is already roomy."""
    layer_height_A: float = 200.0
    n_slabs: int = 5
    preferred_fraction: float = 0.0
    """Share of particles that lie on their preferred side (tilt half-normal, 12 degrees)."""
    decoy_fraction: float = 0.0
    """Ice crystals and ethane blobs per particle."""

    # Optics
    voltage_kV: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    defocus_min_A: float = 13000.0
    defocus_max_A: float = 28000.0
    """Range of the nominal defocus, which is set in steps of 0.1 um as in EPU."""
    defocus_spread_A: float = 400.0
    """Standard deviation of the true defocus around the nominal one."""
    astigmatism_median_A: float = 170.0
    b_factor_A2: float = 60.0
    ice_thickness_A: float = 300.0
    ice_diffusion_A2: float = 0.3
    """Mean square movement of water per axis and e/A^2, halved: rho = exp(-2 pi^2 q^2 D dose)."""
    loss_length_A: float = 0.0
    """Mean free path of electrons that are lost in the ice; 0 = none are lost."""

    # Motion of the specimen over the movie
    burst_A: float = 1.5
    creep_A: float = 9.0
    walk_A: float = 0.15
    """Per frame and axis."""
    local_motion_A: float = 0.0
    """Root mean square of the local movement at the last frame; 0 = rigid."""

    # Detector
    mtf_at_nyquist: float = 0.6
    gain_noise: float = 0.04
    n_hot: int = 20
    n_dead: int = 20
    n_dead_columns: int = 1

    # Session
    start: str = "2026-11-20T10:00:00+00:00"
    """Time on the microscope's clock; the simulator never looks at the real one."""
    n_exposures: int = 1
    pool: int = 0
    """Movies that are rendered; exposures beyond reuse them in turn. 0 = every movie is new."""
    pace_s: float = 0.0
    pace_jitter: float = 0.2
    square_pause_s: float = 0.0
    growth_s: float = 0.0
    growth_chunks: int = 4
    order: str = "xml-first"
    exposures_per_square: int = 12
    areas_per_hole: int = 2
    holes_per_stage: int = 2
    """Holes reached by beam shift alone; with the areas they make the beam-shift groups."""
    super_resolution_factor: int = 1
    eer_raw_frames: int = 0
    """Raw frames of an EER movie that one of the `n_frames` is divided into; 0 = a TIFF movie."""
    microscope_id: str = "3299"
    magnification: int = 105000
    faults: Faults = NO_FAULTS

    def __post_init__(self) -> None:
        self._require("nx", self.nx >= 64 and self.nx % 2 == 0, "even and at least 64")
        self._require("ny", self.ny >= 64 and self.ny % 2 == 0, "even and at least 64")
        self._require("n_frames", self.n_frames >= 1, "at least 1")
        self._require("pixel_size_A", 0.1 <= self.pixel_size_A <= 20, "between 0.1 and 20")
        self._require("dose_per_frame_e_A2", 0 < self.dose_per_frame_e_A2 <= 100, "in (0, 100]")
        self._require("voltage_kV", self.voltage_kV in (200.0, 300.0), "200 or 300")
        self._require("defocus_max_A", self.defocus_max_A >= self.defocus_min_A, ">= the minimum")
        self._require("n_slabs", self.n_slabs >= 1, "at least 1")
        self._require("n_exposures", self.n_exposures >= 1, "at least 1")
        self._require("pool", self.pool >= 0, "0 or more")
        self._require("growth_chunks", self.growth_chunks >= 1, "at least 1")
        self._require("order", self.order in ORDERS, f"one of {', '.join(ORDERS)}")
        self._require("exposures_per_square", self.exposures_per_square >= 1, "at least 1")
        self._require("areas_per_hole", self.areas_per_hole >= 1, "at least 1")
        self._require("holes_per_stage", self.holes_per_stage >= 1, "at least 1")
        self._require("super_resolution_factor", self.super_resolution_factor in (1, 2), "1 or 2")
        self._require("eer_raw_frames", 0 <= self.eer_raw_frames <= 1000, "0 to 1000")
        only_tiff = bool(self.eer_raw_frames and self.faults.wrong_size)
        self._require("eer_raw_frames", not only_tiff, "0 where movies have a wrong size")
        self._require("start", _has_zone(self.start), "an ISO 8601 time with its zone")

    def _require(self, key: str, good: bool, wanted: str) -> None:
        if not good:
            raise RecipeError(
                f"recipe {self.name!r}: {key} = {getattr(self, key)!r}, must be {wanted}"
            )

    @property
    def n_rendered(self) -> int:
        """Number of different movies."""
        return min(self.pool, self.n_exposures) if self.pool else self.n_exposures


def _has_zone(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("algorithms.simulate").joinpath("recipes")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by its name, or a recipe file by its path (ending in .toml).

    Raises
    ------
    RecipeError
        No such recipe, no TOML, an unknown or missing key, or a value out of range.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise RecipeError(f"no recipe file {text}")
        return parse_recipe(path.read_text(encoding="utf-8"), name=path.stem)
    if text not in shipped_recipes():
        raise RecipeError(
            f"no recipe {text!r}; shipped are {', '.join(shipped_recipes())}, "
            "or give the path of a .toml file"
        )
    file = resources.files("algorithms.simulate").joinpath("recipes", f"{text}.toml")
    return parse_recipe(file.read_text(encoding="utf-8"), name=text)


def parse_recipe(text: str, *, name: str) -> Recipe:
    """Make a recipe of TOML text; `name` is used unless the text gives one."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name!r} is no TOML: {error}") from error
    values = {"name": name, **table}
    faults = values.pop("faults", {})
    if not isinstance(faults, dict):
        raise RecipeError(f"recipe {name!r}: faults must be a table of {', '.join(FAULTS)}")
    kinds = {f: tuple(v) if isinstance(v, list) else v for f, v in faults.items()}
    _check_keys(Faults, kinds, f"recipe {name!r}, faults")
    _check_keys(Recipe, values, f"recipe {name!r}")
    values = {key: _cast(key, value, name) for key, value in values.items()}
    try:
        values["faults"] = Faults(**kinds)
    except ValueError as error:
        raise RecipeError(f"recipe {name!r}: {error}") from error
    try:
        return Recipe(**values)
    except TypeError as error:
        raise RecipeError(f"recipe {name!r}: {error}") from error


def _check_keys(kind: type[Any], table: Mapping[str, Any], where: str) -> None:
    known = {f.name for f in fields(kind)}
    for key in table:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")


def _cast(key: str, value: Any, name: str) -> Any:
    """Check the type of one value; an integer is good where a float is wanted."""
    wanted = Recipe.__annotations__[key]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise RecipeError(f"recipe {name!r}: {key} = {value!r} must be of type {wanted.__name__}")
    return value


def as_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values: what the truth records and a restart compares."""
    return dataclasses.asdict(recipe)


def random_stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Generator of one purpose and movie: what one part draws never moves another part's draws."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), index])
