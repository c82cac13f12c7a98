"""From a movie and the options of a job node to the request of its task.

Option names are RELION's (schemes.md section 14); what the microscope recorded with the movie
(pixel, voltage, dose) is taken from the movie, not typed in.
"""

import re
from typing import Protocol

import msgspec

from services.kit.errors import Misuse
from services.kit.events import MovieSettled
from services.kit.options import Options
from services.kit.schemes import output_root
from services.prep.arguments import with_arguments
from services.prep.requests import MotionRequest

EER_GROUPING = 32  # RELION's default


class Movie(Protocol):
    """What is asked of a movie to correct it; a size of None is not checked against the file."""

    @property
    def movie(self) -> str: ...  # noqa: D102
    @property
    def width_px(self) -> int | None: ...  # noqa: D102
    @property
    def height_px(self) -> int | None: ...  # noqa: D102
    @property
    def n_frames(self) -> int | None: ...  # noqa: D102
    @property
    def pixel_size_A(self) -> float: ...  # noqa: D102
    @property
    def voltage_kV(self) -> float: ...  # noqa: D102
    @property
    def dose_per_frame_e_A2(self) -> float: ...  # noqa: D102


def movie_path(settled: MovieSettled) -> str:
    """Return the movie's name in the RELION project: below the link of the root it lies on."""
    return f"{settled.link or 'Movies'}/{settled.path}"


def gain_of(settled: MovieSettled, options: Options) -> str | None:
    """Return the gain reference of a movie: the job's option, else what was found beside it."""
    typed = options.text("fn_gain_ref")
    if typed:
        return typed
    return _below_movies(settled.gain_path)


def gain_copy(gain: str, process: str, *, is_usual: bool = True) -> str:
    """Return where a job keeps a gain as it is multiplied; a session may have several."""
    name = "" if is_usual else "_" + re.sub("[^A-Za-z0-9+-]+", "_", gain).strip("_")
    return f"{process.rstrip('/')}/gain{name}.mrc"


def gain_turns(settled: MovieSettled, options: Options) -> tuple[int, int]:
    """Return rotation and flip of a movie's gain: the job's, else those the site states.

    A gain that was typed into the job is turned as the job says, and not by the site's camera.
    """
    typed = options.choice("gain_rot"), options.choice("gain_flip")
    if any(typed) or options.text("fn_gain_ref"):
        return typed
    return settled.gain_rotation or 0, settled.gain_flip or 0


def as_taken(ask: MotionRequest, settled: MovieSettled, options: Options) -> MotionRequest:
    """Return a request with what only the acquisition knows.

    That are the gain's turns, the list of defects beside the movie, the dose before and that of
    each frame, binning and grouping of frames, and how an EER movie becomes fractions.
    """
    rotation, flip = gain_turns(settled, options)
    found = _below_movies(settled.defects_path)
    return msgspec.structs.replace(
        ask,
        gain_rotation=rotation,
        gain_flip=flip,
        pixel_size_A=rendered_pixel_A(settled, options),
        dose_per_frame_e_A2=dose_per_frame(settled, options),
        bin_factor=bin_factor(settled, options),
        group_frames=max(ask.group_frames, settled.group_frames or 1),
        pre_exposure_e_A2=ask.pre_exposure_e_A2 + (settled.pre_exposure_e_A2 or 0.0),
        eer_grouping=eer_grouping(settled, options) if settled.format == "eer" else None,
        eer_upsampling=eer_upsampling(options) if settled.format == "eer" else None,
        defect_path=ask.defect_path or found,
        defects_found=ask.defect_path is None and found is not None,
        frame_doses=None if settled.format == "eer" else settled.frame_doses,
    )


def _below_movies(path: str | None) -> str | None:
    """Return a file of the acquisition as the project names it."""
    return path if path is None or path.startswith("/") else f"Movies/{path}"


def eer_grouping(settled: MovieSettled, options: Options) -> int:
    """Return the raw frames per fraction: the job's if it is not RELION's default, else by dose."""
    typed = options.whole("eer_grouping", EER_GROUPING, 1, 16_383)
    return typed if typed != EER_GROUPING else settled.frames_per_fraction or EER_GROUPING


def bin_factor(settled: MovieSettled, options: Options) -> float:
    """Return the binning: the job's if it is not RELION's default, else super-resolution's 2."""
    typed = options.number("bin_factor", 1.0, 1.0, 16.0)
    return typed if typed != 1.0 or settled.format == "eer" else float(settled.bin_factor or 1)


def eer_upsampling(options: Options) -> int:
    """Return how finely EER movies are rendered; RELION takes it among the other arguments."""
    options = with_arguments(options)
    upsampling = options.whole("eer_upsampling", 1, -1, 3)
    if upsampling == 0:
        raise Misuse(f"option eer_upsampling of {options.job} is 0: it must be 1, 2, 3 or -1")
    return upsampling


def rendered_pixel_A(settled: MovieSettled, options: Options) -> float:
    """Return the pixel of a movie as it is read: of an EER movie, as it is rendered."""
    if settled.format != "eer":
        return settled.pixel_size_A
    upsampling = eer_upsampling(options)
    return settled.pixel_size_A * (2.0 if upsampling == -1 else 0.5 ** (upsampling - 1))


def dose_per_frame(settled: MovieSettled, options: Options) -> float:
    """Return the dose of a frame as it is read: of an EER movie, of a fraction."""
    if settled.format != "eer":
        return settled.dose_per_frame_e_A2
    return settled.dose_per_frame_e_A2 * eer_grouping(settled, options)


def motion_request(
    settled: Movie, path: str, gain: str | None, options: Options, process: str
) -> MotionRequest:
    """Return the motion correction request of a movie.

    Parameters
    ----------
    settled
        The movie.
    path, gain
        Movie and gain reference as the project names them.
    options
        Of the job.
    process
        Folder of the job.
    """
    options = with_arguments(options)
    bfactor = options.number("bfactor", -1.0, -1.0, 1e5)  # -1: from the pixel size
    is_eer = path.lower().endswith(".eer")
    return MotionRequest(
        movie=settled.movie,
        movie_path=path,
        root=output_root(process, path),
        gain_path=gain,
        gain_name=None if gain is None else gain_copy(gain, process),
        gain_rotation=options.choice("gain_rot"),
        gain_flip=options.choice("gain_flip"),
        width_px=settled.width_px,
        height_px=settled.height_px,
        n_frames=settled.n_frames,
        pixel_size_A=settled.pixel_size_A,
        voltage_kV=settled.voltage_kV,
        dose_per_frame_e_A2=settled.dose_per_frame_e_A2,
        pre_exposure_e_A2=options.number("pre_exposure", 0.0, 0.0, 1e4),
        first_frame=options.whole("first_frame_sum", 1, 1),
        last_frame=options.whole("last_frame_sum", -1, -1) or -1,  # RELION: 0 is all, too
        bin_factor=options.number("bin_factor", 1.0, 1.0, 16.0),
        bfactor_px2=bfactor if bfactor > 0 else None,
        dose_weighting=options.switch("do_dose_weighting", True),
        save_nodw=options.switch("do_save_noDW", True),
        save_ps=True,  # the CTF is fitted to it
        dose_per_ps_e_A2=options.number("group_for_ps", 4.0, 0.01, 1e4),
        float16=options.switch("do_float16", True),
        eer_grouping=options.whole("eer_grouping", EER_GROUPING, 1, 16_383) if is_eer else None,
        eer_upsampling=eer_upsampling(options) if is_eer else None,
        patches=(options.whole("patch_x", 1, 1, 64), options.whole("patch_y", 1, 1, 64)),
        group_frames=options.whole("group_frames", 1, 1, 1000),
        even_odd=_wants_halves(options),
        ps_size=options.whole("ps_size", 512, 32, 8192) // 2 * 2,
        max_iter=options.whole("max_iter", 10, 1, 1000),
        early_dose_e_A2=options.number("dose_motionstats_cutoff", 4.0, 0.0, 1e4),
        defect_path=_named(options, "fn_defect"),
        skip_defects=options.switch("skip_defect", False),
    )


def _wants_halves(options: Options) -> bool:
    names = ("do_even_odd_split", "even_odd_split")
    return any(options.switch(name, False) for name in names)


def _named(options: Options, key: str) -> str | None:
    """Return an option that names a file, None where it names none."""
    name = options.text(key)
    return None if name in ("", "None") else name
