"""Motion correction as a job: movies to micrographs.

Source: schemes.md section 14, preprocessing.md sections 2 and 7.2.
"""

from functools import partial

import msgspec

from algorithms.formats import star
from services.jobs.items import do_items, identity
from services.jobs.job import Job
from services.jobs.logfile import write_logfile
from services.jobs.planning import Item
from services.jobs.tables import GROUP, ORIGINAL_PIXEL, PIXEL, Images, save, with_columns
from services.kit.digest import file_digest
from services.kit.errors import Misuse
from services.kit.work import Manifest
from services.prep import plan
from services.prep.arguments import AT_MOST, arguments
from services.prep.requests import MotionRequest, MotionResult

LEAST_PATCHES = 3


class _Movie(msgspec.Struct, frozen=True, kw_only=True):
    """What the table and the options say about a movie."""

    movie: str
    pixel_size_A: float
    voltage_kV: float
    dose_per_frame_e_A2: float
    # Not in the table: the movie has what it has.
    width_px: None = None
    height_px: None = None
    n_frames: None = None


def motioncorr(job: Job) -> None:
    """Align, dose-weight and sum the movies of a table."""
    at_most = _at_most(job)
    movies = Images(job.project, job.need("input_star_mics"), "movies")
    requests = _requests(job, movies)
    _notes(job, requests)
    planes = {r.gain_path for r in requests} | {r.defect_path for r in requests}
    digests = tuple(file_digest(job.project / path) for path in sorted(filter(None, planes)))
    items = [
        Item(
            r.movie_path,
            (r.movie_path,),
            "services.prep.tasks:motioncorr",
            r,
            facts=(r.pixel_size_A, r.voltage_kV, pre_exposure, *digests),
            fits=partial(_fits, r),
        )
        for r, pre_exposure in zip(requests, _pre_exposures(movies), strict=True)
    ]
    named = {
        r.movie_path: (r, group) for r, group in zip(requests, movies.texts(GROUP), strict=True)
    }

    said: set[str] = set()

    def write(done: dict[str, bytes]) -> None:
        rows = [named[name] for name in done]
        results = [msgspec.msgpack.decode(data, type=MotionResult) for data in done.values()]
        for note in sorted({r.reference_note for r in results if r.reference_note} - said):
            said.add(note)
            job.say(f"warning: {note}")
        _write(job, movies, rows, results)

    do_items(job, items, "movies", write, at_most=at_most)


def _at_most(job: Job) -> int | None:
    value = arguments(job.options).get(AT_MOST, "-1")
    try:
        number = int(value)
    except ValueError:
        raise Misuse(
            f"option other_args of {job.options.job}: {AT_MOST} {value!r} must be a whole number"
        ) from None
    return number if number >= 0 else None


def _notes(job: Job, requests: list[MotionRequest]) -> None:
    patches = requests[0].patches if requests else (1, 1)
    if patches != (1, 1) and min(patches) < LEAST_PATCHES:
        job.say(
            f"note: {patches[0]} x {patches[1]} patches are too few for local motion, which needs "
            f"{LEAST_PATCHES} along both axes: whole frames are aligned"
        )


def _requests(job: Job, movies: Images) -> list[MotionRequest]:
    options = job.options
    gain = job.need("fn_gain_ref") if options.text("fn_gain_ref") not in ("", "None") else None
    if options.text("fn_defect") not in ("", "None"):
        job.need("fn_defect")
    dose = options.number("dose_per_frame", 1.0, 0.0, 1e4)
    weighting = options.switch("do_dose_weighting", True)
    if weighting and dose == 0.0:
        raise Misuse(
            f"option dose_per_frame of {options.job} is 0: dose weighting needs it, in e/A2"
        )
    columns = zip(
        movies.texts("rlnMicrographMovieName"),
        movies.optics_floats(ORIGINAL_PIXEL),
        movies.optics_floats("rlnVoltage"),
        _pre_exposures(movies),
        strict=True,
    )
    requests: dict[str, MotionRequest] = {}
    for path, pixel, voltage, pre_exposure in columns:
        movie = _Movie(
            movie=identity(path), pixel_size_A=pixel, voltage_kV=voltage, dose_per_frame_e_A2=dose
        )
        ask = plan.motion_request(movie, path, gain, options, job.process)
        ask = msgspec.structs.replace(
            ask,
            pre_exposure_e_A2=ask.pre_exposure_e_A2 + pre_exposure,
            # Without weighting the plain sum is the micrograph.
            save_nodw=weighting and options.switch("do_save_noDW", False),
            save_ps=options.switch("do_save_ps", True),
        )
        if ask.root in requests:
            raise Misuse(
                f"{movies.name}: {requests[ask.root].movie_path} and {path} would both become "
                f"{ask.root}.mrc: rename one of them"
            )
        requests[ask.root] = ask
    return list(requests.values())


def _pre_exposures(movies: Images) -> list[float]:
    return movies.floats("rlnMicrographPreExposure", 0.0)


def _fits(ask: MotionRequest, found: Manifest) -> bool:
    """Return whether a result has the files and the pixel that the others will have."""
    names = {f"{ask.root}.mrc", f"{ask.root}.star"}
    names |= {f"{ask.root}_noDW.mrc"} if ask.save_nodw else set()
    names |= {f"{ask.root}_PS.mrc"} if ask.save_ps else set()
    names |= {f"{ask.root}_EVN.mrc", f"{ask.root}_ODD.mrc"} if ask.even_odd else set()
    got = msgspec.msgpack.decode(found.result, type=MotionResult)
    return names <= set(found.files) and got.pixel_size_A == ask.pixel_size_A * ask.bin_factor


def _write(
    job: Job, movies: Images, rows: list[tuple[MotionRequest, str]], results: list[MotionResult]
) -> None:
    asks = [ask for ask, _ in rows]
    columns: dict[str, list] = {}
    if any(ask.save_nodw for ask in asks):
        columns["rlnMicrographNameNoDW"] = [f"{ask.root}_noDW.mrc" for ask in asks]
    if any(ask.save_ps for ask in asks):
        columns["rlnCtfPowerSpectrum"] = [f"{ask.root}_PS.mrc" for ask in asks]
    if any(ask.even_odd for ask in asks):
        columns["rlnMicrographNameEven"] = [f"{ask.root}_EVN.mrc" for ask in asks]
        columns["rlnMicrographNameOdd"] = [f"{ask.root}_ODD.mrc" for ask in asks]
    columns |= {
        "rlnMicrographName": [f"{ask.root}.mrc" for ask in asks],
        "rlnMicrographMetadata": [f"{ask.root}.star" for ask in asks],
        "rlnAccumMotionTotal": [r.motion_total_px for r in results],
        "rlnAccumMotionEarly": [r.motion_early_px for r in results],
        "rlnAccumMotionLate": [r.motion_late_px for r in results],
        GROUP: [group for _, group in rows],
    }
    binning = job.options.number("bin_factor", 1.0, 1.0, 16.0)
    optics = with_columns(
        movies.optics, {PIXEL: lambda row: float(row[ORIGINAL_PIXEL]) * binning}, drop=[PIXEL]
    )
    save(job, "corrected_micrographs.star", optics, "micrographs", star.Table.of(columns))
    motion = {
        "Motion in px": [r.motion_total_px for r in results],
        "Early motion in px": [r.motion_early_px for r in results],
        "Late motion in px": [r.motion_late_px for r in results],
    }
    write_logfile(job.folder / "logfile.pdf", f"{job.process} motion correction", motion)
