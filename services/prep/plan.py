"""From a movie and the options of a job node to the request of its task.

Option names are RELION's (schemes.md section 14); what the microscope recorded with the movie
(pixel, voltage, dose) is taken from the movie, not typed in.
"""

from typing import Protocol

from services.kit.events import MovieSettled
from services.kit.options import Options
from services.kit.schemes import output_root
from services.prep.requests import CtfRequest, MotionRequest


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


class Optics(Protocol):
    """What is asked of a micrograph's movie to fit the CTF."""

    @property
    def movie(self) -> str: ...  # noqa: D102
    @property
    def voltage_kV(self) -> float: ...  # noqa: D102
    @property
    def spherical_aberration_mm(self) -> float: ...  # noqa: D102
    @property
    def amplitude_contrast(self) -> float: ...  # noqa: D102


def movie_path(settled: MovieSettled) -> str:
    """Return the movie's name in the RELION project: below the link of the root it lies on."""
    return f"{settled.link or 'Movies'}/{settled.path}"


def gain_of(settled: MovieSettled, options: Options) -> str | None:
    """Return the gain reference of a movie: the job's option, else what was found beside it."""
    typed = options.text("fn_gain_ref")
    if typed:
        return typed
    found = settled.gain_path
    if found is None:
        return None
    return found if found.startswith("/") else f"Movies/{found}"


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
    bin_factor = options.number("bin_factor", 1.0, 1.0, 16.0)
    bfactor = options.number("bfactor", -1.0, -1.0, 1e5)  # -1: from the pixel size
    return MotionRequest(
        movie=settled.movie,
        movie_path=path,
        root=output_root(process, path),
        gain_path=gain,
        gain_name=gain,
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
        last_frame=options.whole("last_frame_sum", -1, -1),
        bin_factor=bin_factor,
        bfactor_px2=bfactor if bfactor > 0 else None,
        dose_weighting=options.switch("do_dose_weighting", True),
        save_nodw=options.switch("do_save_noDW", True),
        save_ps=True,  # the CTF is fitted to it
        dose_per_ps_e_A2=options.number("group_for_ps", 4.0, 0.01, 1e4),
        float16=options.switch("do_float16", True),
    )


def ctf_request(settled: Optics, spectrum: str, root: str, options: Options) -> CtfRequest:
    """Return the CTF request of a micrograph.

    Parameters
    ----------
    settled
        The movie.
    spectrum
        Power spectrum as the project names it.
    root
        Of the outputs.
    options
        Of the job.
    """
    return CtfRequest(
        movie=settled.movie,
        power_spectrum=spectrum,
        root=root,
        voltage_kV=settled.voltage_kV,
        spherical_aberration_mm=settled.spherical_aberration_mm,
        amplitude_contrast=settled.amplitude_contrast,
        box_px=options.whole("box", 512, 64, 4096),
        resolution_min_A=options.number("resmin", 30.0, 1.0, 1000.0),
        resolution_max_A=options.number("resmax", 5.0, 0.5, 100.0),
        defocus_min_A=options.number("dfmin", 5000.0, -1e5, 1e6),
        defocus_max_A=options.number("dfmax", 50000.0, -1e5, 1e6),
        defocus_step_A=options.number("dfstep", 500.0, 1.0, 1e5),
        astigmatism_A=options.number("dast", 500.0, 0.0, 1e5),
        phase_shift=options.switch("do_phaseshift", False),
        phase_min_deg=options.number("phase_min", 0.0, -360.0, 360.0),
        phase_max_deg=options.number("phase_max", 180.0, -360.0, 360.0),
        phase_step_deg=options.number("phase_step", 10.0, 0.1, 180.0),
    )
