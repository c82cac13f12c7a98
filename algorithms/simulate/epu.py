"""How EPU names a session's files, and the XML it writes for an image.

Paths inside a session are `Images-Disc1/GridSquare_<id>/Data/<stem>.xml` and
`<stem>_fractions.tiff` or `<stem>_EER.eer`, with stem
`FoilHole_<hole>_Data_<area>_<seq>_<YYYYMMDD>_<HHMMSS>`.

Source: acquisition.md sections 1.5 and 2.1 to 2.5.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from string import Template

from algorithms.simulate.faults import fault_of
from algorithms.simulate.recipe import Recipe, random_stream

# The microscope's own rhythm, which file names and XML show; `pace_s` is the writer's.
_EXPOSURE_INTERVAL_S = 15.0
_SQUARE_INTERVAL_S = 240.0
_FRAME_TIME_S = 0.1
# Beam shift in EPU's arbitrary units: holes 0.1 apart, areas of a hole 0.03, jitter far below.
_HOLE_STEP, _AREA_STEP, _SHIFT_JITTER = 0.1, 0.03, 4e-4


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One planned exposure; identifiers are kept as texts."""

    index: int
    square_id: str
    hole_id: str
    area_id: str
    seq_id: str
    acquired_at: datetime
    movie_index: int
    """Which rendered movie it shows."""
    beam_shift: tuple[float, float]
    beam_shift_group: int
    stage_m: tuple[float, float, float]
    fault: str | None

    @property
    def stem(self) -> str:
        """Name without suffix."""
        when = self.acquired_at.strftime("%Y%m%d_%H%M%S")
        return f"FoilHole_{self.hole_id}_Data_{self.area_id}_{self.seq_id}_{when}"

    @property
    def movie(self) -> str:
        """Identity of the movie: path below the session folder without the movie suffix."""
        return f"Images-Disc1/GridSquare_{self.square_id}/Data/{self.stem}"


def session_name(recipe: Recipe) -> str:
    """Folder name that EPU would give the session."""
    start = datetime.fromisoformat(recipe.start)
    return f"Supervisor_{start:%Y%m%d_%H%M%S}_{recipe.name}"


def plan_session(recipe: Recipe, seed: int) -> list[Exposure]:
    """List every exposure of the session in order of acquisition."""
    first_id = int(random_stream(seed, "identifiers").integers(18_000_000, 19_000_000))
    now = datetime.fromisoformat(recipe.start)
    plan = []
    for index in range(recipe.n_exposures):
        rng = random_stream(seed, "exposure", index)
        square, place = divmod(index, recipe.exposures_per_square)
        hole, area = divmod(place, recipe.areas_per_hole)
        new_square = index > 0 and place == 0
        pause = _SQUARE_INTERVAL_S if new_square else _EXPOSURE_INTERVAL_S
        now += timedelta(seconds=pause * float(rng.uniform(0.9, 1.2)))
        stage_hole = hole % recipe.holes_per_stage
        shift_x = _HOLE_STEP * (stage_hole % 3) + _AREA_STEP * (area % 3)
        shift_y = _HOLE_STEP * (stage_hole // 3) + _AREA_STEP * (area // 3)
        jitter_x, jitter_y = rng.normal(0.0, _SHIFT_JITTER, 2)
        move = hole // recipe.holes_per_stage
        plan.append(
            Exposure(
                index=index,
                square_id=str(first_id + square),
                hole_id=str(first_id + 1000 * (square + 1) + hole),
                # Constant over holes: the shot position of the template.
                area_id=str(first_id + 500 + 10 * area),
                seq_id=str(first_id + 502 + 10 * area),
                acquired_at=now,
                movie_index=index % recipe.n_rendered,
                beam_shift=(shift_x + float(jitter_x), shift_y + float(jitter_y)),
                beam_shift_group=stage_hole * recipe.areas_per_hole + area,
                stage_m=(1e-4 * (square + 1) + 5e-6 * move, -2e-4, 8e-5),
                fault=fault_of(recipe.faults, index, random_stream(seed, "fault", index)),
            )
        )
    return plan


def exposure_xml(recipe: Recipe, exposure: Exposure, nominal_defocus_A: float, seed: int) -> str:
    """The XML of one image; `nominal_defocus_A` is what was asked for, underfocus positive."""
    text = (
        resources.files("algorithms.simulate").joinpath("data", "exposure.xml").read_text("utf-8")
    )
    factor = recipe.super_resolution_factor
    dose = recipe.dose_per_frame_e_A2 * recipe.n_frames
    image_pixel_A = recipe.pixel_size_A * factor
    identity = random_stream(seed, "unique id", exposure.index).bytes(16)
    x, y, z = exposure.stage_m
    return Template(text).substitute(
        stem=exposure.stem,
        unique_id=uuid.UUID(bytes=identity, version=4),
        applied_defocus_m=_number(-nominal_defocus_A * 1e-10),
        dose_per_m2=_number(dose * 1e20),
        dose_on_camera=_number(dose * image_pixel_A**2),
        image_pixel_m=_number(image_pixel_A * 1e-10),
        acquired_at=_seven_decimals(exposure.acquired_at),
        super_resolution=factor,
        n_frames=recipe.n_frames * (recipe.eer_raw_frames or 1),
        exposure_time_s=_number(recipe.n_frames * _FRAME_TIME_S),
        image_ny=recipe.ny // factor,
        image_nx=recipe.nx // factor,
        voltage_V=round(recipe.voltage_kV * 1000),
        microscope_id=recipe.microscope_id,
        beam_shift_x=_number(exposure.beam_shift[0]),
        beam_shift_y=_number(exposure.beam_shift[1]),
        lens_defocus_m=_number(-nominal_defocus_A * 1e-10 + 1.3e-6),
        magnification=recipe.magnification,
        stage_x_m=_number(x),
        stage_y_m=_number(y),
        stage_z_m=_number(z),
    )


def _number(value: float) -> str:
    """A double as .NET prints it: 15 digits, capital E."""
    return f"{value:.15g}".upper()


def _seven_decimals(when: datetime) -> str:
    """ISO 8601 with EPU's seven decimals and the zone."""
    return f"{when:%Y-%m-%dT%H:%M:%S.%f}0{when.isoformat()[-6:]}"
