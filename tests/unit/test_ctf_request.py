"""From the options of a CTF job to its request, and from a fit to CTFFIND's text files."""

from typing import NamedTuple, cast

import msgspec
import numpy as np
import pytest
import torch

from algorithms.ctffit import CtfFit, Ice, Tilt
from algorithms.ctffit.textfiles import avrot_text, summary_text
from algorithms.formats import star
from services.kit.errors import Misuse
from services.kit.events import MicrographCtf
from services.kit.options import Options
from services.kit.tables import ctf_columns
from services.prep.ctf import Pictures, ctf_request, fitted_root
from services.prep.ctftask import fit_options
from services.prep.requests import CtfResult
from tests.ctf_images import optics
from tests.shared import shared

PICTURES = Pictures(
    "MotionCorr/job002/Movies/a_PS.mrc",
    "MotionCorr/job002/Movies/a.mrc",
    "MotionCorr/job002/Movies/a_noDW.mrc",
    0.9,
)
PROCESS = "CtfFind/job003/"


class Movie(NamedTuple):
    movie: str = "a"
    voltage_kV: float = 200.0
    spherical_aberration_mm: float = 1.4
    amplitude_contrast: float = 0.1


class Row(CtfResult, frozen=True, kw_only=True):
    """A fit as a table has it."""

    ctf_image: str


def request(pictures: Pictures = PICTURES, /, **values: str):
    return ctf_request(Movie(), pictures, PROCESS, Options("ctffind", values))


def test_the_spectrum_is_fitted_and_the_micrograph_is_at_hand() -> None:
    ask = request(use_noDW="Yes")
    assert ask.power_spectrum == PICTURES.spectrum and ask.image_pixel_A is None
    assert (ask.micrograph, ask.micrograph_pixel_A) == (PICTURES.micrograph_nodw, 0.9)
    assert fitted_root(ask) == "CtfFind/job003/Movies/a_PS"


@pytest.mark.parametrize(
    ("pictures", "values", "image"),
    [
        (PICTURES, {"use_given_ps": "No"}, "a"),
        (PICTURES, {"use_given_ps": "No", "use_noDW": "Yes"}, "a_noDW"),
        (PICTURES._replace(spectrum=None), {}, "a"),
        (PICTURES._replace(spectrum=None, micrograph_nodw=None), {"use_noDW": "Yes"}, "a"),
    ],
)
def test_the_micrograph_is_fitted(pictures: Pictures, values: dict[str, str], image: str) -> None:
    ask = request(pictures, ctf_win="1024", **values)
    assert ask.power_spectrum == f"MotionCorr/job002/Movies/{image}.mrc"
    assert (ask.image_pixel_A, ask.window_px, ask.micrograph) == (0.9, 1024, None)
    assert fitted_root(ask) == f"CtfFind/job003/Movies/{image}"


def test_options_by_relions_names() -> None:
    ask = request(
        box="256",
        resmin="40",
        resmax="4",
        dfmin="3000",
        dfmax="20000",
        dfstep="300",
        dast="100",
        slow_search="Yes",
        do_phaseshift="Yes",
        phase_min="20",
        phase_max="120",
        phase_step="5",
        other_args="--tilt Yes --thickness Yes",
    )
    assert ask.box_px == 256 and ask.window_px is None
    options = fit_options(ask)
    assert (options.min_resolution_A, options.max_resolution_A) == (40.0, 4.0)
    assert (options.min_defocus_A, options.max_defocus_A) == (3000.0, 20000.0)
    assert options.defocus_step_A == 50.0  # finer than asked for: it costs nothing
    assert options.astigmatism_tolerance_A == 100.0
    assert options.exhaustive_astigmatism and options.find_phase_shift
    assert (options.min_phase_shift_deg, options.max_phase_shift_deg) == (20.0, 120.0)
    assert options.phase_shift_step_deg == 5.0
    assert options.find_tilt and options.find_thickness
    assert not (request().tilt or request(other_args="--tilt No").tilt)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dfmin": "-5000"}, "overfocus"),
        ({"dfmin": "60000"}, "dfmin of ctffind is 60000 and dfmax 50000"),
        ({"resmax": "30"}, "the first must be smaller"),
        ({"do_phaseshift": "Yes", "phase_min": "180"}, "phase_min"),
        ({"box": "511"}, "must be even"),
        ({"other_args": "--tilt 30"}, "use Yes or No"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, str], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        request(**values)


def fit(**other) -> CtfFit:
    ctf = optics(16000, 15000, 30, 90)
    curve = np.linspace(0.0, 0.5, 5)
    names = ("s", "rotational", "epa", "model", "frc", "frc_sigma")
    return CtfFit(
        defocus_u_A=ctf.defocus_u_A,
        defocus_v_A=ctf.defocus_v_A,
        angle_deg=ctf.angle_deg,
        phase_shift_deg=ctf.phase_shift_deg,
        pixel_size_A=1.4,
        score=0.2,
        max_resolution_A=3.5,
        reliable=True,
        doubts=(),
        significance=30.0,
        cross_validated_A=4.0,
        aliasing_A=None,
        ice=Ice(density=1.0, iciness=0.5, peak_sigma=2.0),
        profile=dict.fromkeys(names, curve),
        diagnostic=torch.zeros(4, 4),
        optics=ctf,
        **other,
    )


def test_text_files_are_ctffinds() -> None:
    lines = summary_text(fit(), "a_PS.mrc").splitlines()
    assert [line[0] for line in lines] == ["#"] * 4 + ["1"]
    numbers = [float(word) for word in lines[-1].split()]
    assert numbers == pytest.approx([1, 16000, 15000, 30, 1.570796, 0.2, 3.5], abs=1e-6)
    lines = avrot_text(fit(), "a_PS.mrc").splitlines()
    assert [line[0] == "#" for line in lines] == [True] * 5 + [False] * 6
    assert {len(line.split()) for line in lines[5:]} == {5}


def test_tilt_and_thickness_are_further_columns() -> None:
    tilt = Tilt(gradient_x=0.0, gradient_y=1.0, width_A=1.0, height_A=1.0, log_odds=50.0)
    line = summary_text(fit(tilt=tilt, thickness_A=900.0), "a_PS.mrc").splitlines()[-1]
    assert [float(word) for word in line.split()][7:] == pytest.approx([0.0, 45.0, 900.0])
    line = summary_text(fit(thickness_A=900.0), "a_PS.mrc").splitlines()[-1]
    # CTFFIND 5 has the thickness as its tenth number.
    assert [float(word) for word in line.split()][7:] == [0.0, 0.0, 900.0]


def test_own_columns_only_where_asked_for() -> None:
    plain = CtfResult(
        defocus_u_A=16000.0,
        defocus_v_A=15000.0,
        defocus_angle_deg=30.0,
        phase_shift_deg=0.0,
        figure_of_merit=0.2,
        max_resolution_A=3.5,
        reliable=True,
        ice_ring_density=1.5,
    )
    thick = msgspec.structs.replace(plain, thickness_A=900.0)
    rows = [Row(**msgspec.structs.asdict(found), ctf_image="a.ctf:mrc") for found in (plain, thick)]
    columns = ctf_columns(cast("list[MicrographCtf]", rows))
    assert columns["rlnCtfIceRingDensity"] == [1.5, 1.5]
    assert columns["rlnColdstreamThickness"] == [0.0, 900.0]
    assert not any("Tilt" in label or "Phase" in label for label in columns)
    assert "rlnColdstreamThickness" not in ctf_columns(cast("list[MicrographCtf]", rows[:1]))


def test_conventions_are_those_of_relions_tutorial() -> None:
    name = "data/star/relion_tutorial/CtfFind/job003/micrographs_ctf.star"
    table = star.load(shared(name))["micrographs"]
    u, v = (np.array(table.floats(f"rlnDefocus{axis}")) for axis in "UV")
    assert (u >= v).all()
    assert np.array(table.floats("rlnCtfAstigmatism")) == pytest.approx(u - v, abs=2e-3)
    angle = np.array(table.floats("rlnDefocusAngle"))
    assert ((angle > -90) & (angle <= 90)).all()
    for image, micrograph in zip(
        table.strings("rlnCtfImage"), table.strings("rlnMicrographName"), strict=True
    ):
        pictures = Pictures(micrograph.replace(".mrc", "_PS.mrc"), micrograph, None, 0.885)
        assert image == f"{fitted_root(request(pictures))}.ctf:mrc"
