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
from services.kit.events import MicrographCtf
from services.kit.tables import ctf_columns
from services.prep.ctf import EXTRA, Pictures, check_options, ctf_request, fitted_root
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
    job.extra_arguments(EXTRA)
    check_options(job.options)
    _notes(job)
    micrographs = Images(job.project, job.need("input_star_mics"), "micrographs")
    requests = _requests(job, micrographs)
    names = micrographs.texts(NAME)
    items = [_item(name, ask) for name, ask in zip(names, requests, strict=True)]
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


def _item(name: str, ask: CtfRequest) -> Item:
    return Item(
        name,
        _inputs(ask),
        "services.prep.ctftask:ctffind",
        ask,
        facts=(ask.voltage_kV, ask.spherical_aberration_mm, ask.amplitude_contrast),
        fits=lambda found: f"{fitted_root(ask)}.ctf" in found.files,
    )


def _inputs(ask: CtfRequest) -> tuple[str, ...]:
    """Return the files that a fit needs; a micrograph beside its spectrum only for a tilt."""
    if ask.tilt and ask.micrograph is not None:
        return ask.power_spectrum, ask.micrograph
    return (ask.power_spectrum,)


def _notes(job: Job) -> None:
    """Tell what is not looked at."""
    job.say("note: the fit is coldstream's own; fn_ctffind_exe is not looked at")
    if job.options.whole("ctf_win", -1) > 0 and job.options.switch("use_given_ps", True):
        job.say("note: power spectra are of whole micrographs; ctf_win is not looked at")


def _requests(job: Job, micrographs: Images) -> list[CtfRequest]:
    options = job.options
    names = micrographs.texts(NAME)
    given = micrographs.has(SPECTRUM)
    if options.switch("use_given_ps", True) and not given and len(micrographs):
        job.say(f"note: {micrographs.name} names no power spectra: they are made of micrographs")
    none = [None] * len(names)
    pictures = zip(
        micrographs.texts(SPECTRUM) if given else none,
        names,
        micrographs.texts(NO_DW) if micrographs.has(NO_DW) else none,
        micrographs.optics_floats(PIXEL, ORIGINAL_PIXEL),
        strict=True,
    )
    facts = zip(
        map(identity, names),
        micrographs.optics_floats("rlnVoltage"),
        micrographs.optics_floats("rlnSphericalAberration"),
        micrographs.optics_floats("rlnAmplitudeContrast"),
        strict=True,
    )
    return [
        ctf_request(_Optics(*fact), Pictures(*files), job.process, options)
        for fact, files in zip(facts, pictures, strict=True)
    ]
