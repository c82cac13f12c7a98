"""CTF estimation as a job: micrographs to micrographs with a fitted CTF.

Source: schemes.md section 14, preprocessing.md sections 3 and 7.3.
"""

from typing import NamedTuple, cast

import msgspec

from algorithms.formats import star
from services.jobs.items import do_items, identity
from services.jobs.job import Job
from services.jobs.logfile import write_logfile
from services.jobs.planning import Item
from services.jobs.tables import ORIGINAL_PIXEL, PIXEL, Images, save
from services.kit.errors import Misuse
from services.kit.events import MicrographCtf
from services.kit.schemes import output_root
from services.kit.tables import ctf_columns
from services.prep import plan
from services.prep.requests import CtfRequest, CtfResult

SPECTRUM, NO_DW, NAME = "rlnCtfPowerSpectrum", "rlnMicrographNameNoDW", "rlnMicrographName"
FIRST = (NO_DW, NAME, "rlnOpticsGroup")


class _Optics(NamedTuple):
    """What the table says about a micrograph."""

    movie: str
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float


class _Fit(CtfResult, frozen=True, kw_only=True):
    """A fit as the table has it."""

    ctf_image: str


def ctffind(job: Job) -> None:
    """Fit the CTF of the micrographs of a table."""
    job.extra_arguments({})
    _check(job)
    micrographs = Images(job.project, job.need("input_star_mics"), "micrographs")
    requests = _requests(job, micrographs)
    names = micrographs.texts(NAME)
    items = [
        Item(
            name,
            (ask.power_spectrum,),
            "services.prep.tasks:ctffind",
            ask,
            facts=(ask.voltage_kV, ask.spherical_aberration_mm, ask.amplitude_contrast),
            fits=lambda found, ask=ask: f"{fitted_root(ask)}.ctf" in found.files,
        )
        for name, ask in zip(names, requests, strict=True)
    ]
    row_of = {name: i for i, name in enumerate(names)}

    def write(done: dict[str, bytes]) -> None:
        rows = [row_of[name] for name in done]
        results = [msgspec.msgpack.decode(data, type=CtfResult) for data in done.values()]
        fits = [
            _Fit(**msgspec.structs.asdict(r), ctf_image=f"{fitted_root(requests[i])}.ctf:mrc")
            for r, i in zip(results, rows, strict=True)
        ]
        table = micrographs.keep(rows)
        first = {label: table.columns.pop(label) for label in FIRST if label in table.columns}
        # It asks for the fields of a fit, no more.
        columns = {**first, **ctf_columns(cast("list[MicrographCtf]", fits))}
        columns |= {label: v for label, v in table.columns.items() if label not in columns}
        save(job, "micrographs_ctf.star", micrographs.optics, "micrographs", star.Table.of(columns))
        shown = {
            "Defocus in A": [(f.defocus_u_A + f.defocus_v_A) / 2 for f in fits],
            "Astigmatism in A": [abs(f.defocus_u_A - f.defocus_v_A) for f in fits],
            "Fitted to, in A": [f.max_resolution_A for f in fits],
            "Figure of merit": [f.figure_of_merit for f in fits],
        }
        write_logfile(job.folder / "logfile.pdf", f"{job.process} CTF estimation", shown)

    do_items(job, items, "micrographs", write)


def fitted_root(ask: CtfRequest) -> str:
    """Return the path, without suffix, of what a fit leaves."""
    return ask.root if ask.image_pixel_A is not None else f"{ask.root}_PS"


def _check(job: Job) -> None:
    """Check the numbers against each other; tell what is not looked at."""
    options = job.options
    for low, high, least in (("resmax", "resmin", 0.5), ("dfmin", "dfmax", 1.0)):
        bounds = options.number(low, 5.0, least, 1e6), options.number(high, 5e4, least, 1e6)
        if bounds[0] >= bounds[1]:
            raise Misuse(
                f"option {low} of {options.job} is {bounds[0]:g} and {high} {bounds[1]:g}: "
                "the first must be smaller"
            )
    job.say("note: the fit is coldstream's own; fn_ctffind_exe and slow_search are not looked at")
    if options.whole("ctf_win", -1) > 0:
        job.say("note: the whole micrograph is fitted; ctf_win is not looked at")


def _requests(job: Job, micrographs: Images) -> list[CtfRequest]:
    options = job.options
    given = options.switch("use_given_ps", True) and micrographs.has(SPECTRUM)
    if options.switch("use_given_ps", True) and not given and len(micrographs):
        job.say(f"note: {micrographs.name} names no power spectra: they are made of micrographs")
    image = NAME
    if options.switch("use_noDW", False) and micrographs.has(NO_DW):
        image = NO_DW
    paths = micrographs.texts(SPECTRUM if given else image)
    pixels = [None] * len(paths) if given else micrographs.optics_floats(PIXEL, ORIGINAL_PIXEL)
    facts = zip(
        map(identity, micrographs.texts(NAME)),
        micrographs.optics_floats("rlnVoltage"),
        micrographs.optics_floats("rlnSphericalAberration"),
        micrographs.optics_floats("rlnAmplitudeContrast"),
        strict=True,
    )
    return [
        msgspec.structs.replace(
            plan.ctf_request(
                _Optics(*fact),
                path,
                output_root(job.process, path).removesuffix("_PS" if given else ""),
                options,
            ),
            image_pixel_A=pixel,
        )
        for fact, path, pixel in zip(facts, paths, pixels, strict=True)
    ]
