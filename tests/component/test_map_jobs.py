"""Post-processing and masks as jobs; RELION's programs on the same maps where installed."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from algorithms.formats import mrc, star
from algorithms.maps import shells
from tests.native import described, job_server, ran

BOX, PIXEL_A = 48, 2.5
MASK, POST = "MaskCreate/job001/", "PostProcess/job002/"
HALVES = ["Refine3D/run_half1_class001_unfil.mrc", "Refine3D/run_half2_class001_unfil.mrc"]
needs_relion = pytest.mark.skipif(
    shutil.which("relion_postprocess") is None, reason="relion_postprocess is not installed"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two half-maps of a lumpy particle that falls off, with noise, and a map to mask."""
    place = tmp_path_factory.mktemp("maps")
    (place / "Refine3D").mkdir()
    random = torch.Generator().manual_seed(3)

    def noise() -> torch.Tensor:
        return torch.randn((BOX, BOX, BOX), generator=random, dtype=torch.float64)

    inverse_A = shells.radii(BOX).double() / (BOX * PIXEL_A)
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 12**2).double()
    lumps = shells.from_fourier(shells.to_fourier(noise()) * torch.exp(-120.0 * inverse_A**2), BOX)
    particle = ball * (1.0 + lumps / lumps.std())
    for name in HALVES:
        mrc.write(place / name, (particle + 1.5 * noise()).numpy(), PIXEL_A)
    mrc.write(place / "Refine3D/run_class001.mrc", particle.numpy(), PIXEL_A)
    with job_server(place):
        yield place


def do(project, process, label, code=0, **options):
    return ran(described(project, process, label, options), project, code)


@pytest.fixture(scope="module")
def done(project):
    do(
        project,
        MASK,
        "relion.maskcreate",
        fn_in="Refine3D/run_class001.mrc",
        lowpass_filter="15",
        inimask_threshold="0.3",
        extend_inimask="2",
        width_mask_edge="5",
    )
    said = do(
        project,
        POST,
        "relion.postprocess",
        fn_in=HALVES[0],
        fn_mask=f"{MASK}mask.mrc",
        autob_lowres="15",
    )
    return said.stdout


def relion(project, program, *arguments):
    command = [f"relion_{program}", *map(str, arguments)]
    # The last step of relion_postprocess needs Ghostscript; the tables are written before it.
    subprocess.run(command, cwd=project, capture_output=True, timeout=120, check=False)


@needs_relion
def test_the_mask_is_relions(project, done):
    relion(
        project,
        *("mask_create", "--i", "Refine3D/run_class001.mrc", "--o", "theirs.mrc"),
        *("--ini_threshold", 0.3, "--extend_inimask", 2, "--width_soft_edge", 5),
        *("--lowpass", 15, "--angpix", PIXEL_A),
    )
    ours, theirs = mrc.read(project / MASK / "mask.mrc"), mrc.read(project / "theirs.mrc")
    # A voxel may be on the other side of the threshold by rounding of the transform.
    assert np.mean(np.abs(ours - theirs) > 1e-4) < 1e-4


@needs_relion
def test_curves_bfactor_and_map_are_relions(project, done):
    relion(
        project,
        *("postprocess", "--i", HALVES[0], "--mask", f"{MASK}mask.mrc", "--angpix", PIXEL_A),
        *("--o", "theirs", "--auto_bfac", "--autob_lowres", 15),
    )
    ours, theirs = (
        star.load(project / POST / "postprocess.star"),
        star.load(project / "theirs.star"),
    )
    for label in ("UnmaskedMaps", "MaskedMaps", "ParticleMaskFraction"):
        column = f"rlnFourierShellCorrelation{label}"
        assert ours["fsc"].floats(column) == pytest.approx(
            theirs["fsc"].floats(column), abs=1e-4
        ), label
    # Random phases are others: where they count, curves agree to their own spread.
    column = "rlnFourierShellCorrelationCorrected"
    assert ours["fsc"].floats(column) == pytest.approx(theirs["fsc"].floats(column), abs=0.15)
    for label, tolerance in (
        ("rlnFinalResolution", 0.08),
        ("rlnRandomiseFrom", 1e-4),
        ("rlnParticleBoxFractionSolventMask", 1e-4),
    ):
        pair = [float(t["general"].strings(label)[0]) for t in (ours, theirs)]
        assert pair[0] == pytest.approx(pair[1], rel=tolerance), label
    column = "rlnLogAmplitudesOriginal"
    assert ours["guinier"].floats(column) == pytest.approx(
        theirs["guinier"].floats(column), abs=1e-4
    )
    assert set(theirs["fsc"].columns) == set(ours["fsc"].columns)


@needs_relion
def test_bfactor_and_map_are_relions(project, done):
    """Without the weight, into which random phases go, all is as RELION's."""
    do(
        project,
        "PostProcess/job005/",
        "relion.postprocess",
        **{"fn_in": HALVES[1], "fn_mask": f"{MASK}mask.mrc", "autob_lowres": "15"},
        **{"do_skip_fsc_weighting": "Yes", "low_pass": "9"},
    )
    relion(
        project,
        *("postprocess", "--i", HALVES[0], "--mask", f"{MASK}mask.mrc", "--angpix", PIXEL_A),
        *("--o", "plain", "--auto_bfac", "--autob_lowres", 15),
        *("--skip_fsc_weighting", "--low_pass", 9),
    )
    tables = [
        star.load(project / name)["general"]
        for name in ("PostProcess/job005/postprocess.star", "plain.star")
    ]
    for label in (
        "BfactorUsedForSharpening",
        "FittedSlopeGuinierPlot",
        "CorrelationFitGuinierPlot",
    ):
        pair = [float(table.strings(f"rln{label}")[0]) for table in tables]
        assert pair[0] == pytest.approx(pair[1], rel=1e-3), label
    for part in ("", "_masked"):
        names = (f"PostProcess/job005/postprocess{part}.mrc", f"plain{part}.mrc")
        maps = [mrc.read(project / name) for name in names]
        assert np.std(maps[0] - maps[1]) < 1e-4 * np.std(maps[1])


def test_all_files_are_there_and_tell_the_same(project, done):
    general = star.load(project / POST / "postprocess.star")["general"]
    resolution = float(general.strings("rlnFinalResolution")[0])
    assert f"resolution {resolution:.2f} A" in done
    assert 5.0 < resolution < 15.0
    masked = mrc.read(project / POST / "postprocess_masked.mrc")
    mask = mrc.read(project / MASK / "mask.mrc")
    assert not masked[mask == 0].any()
    assert masked[mask == 1].std() > 0
    assert (project / POST / "logfile.pdf").read_bytes().startswith(b"%PDF")
    assert "<y>1</y>" in (project / POST / "postprocess_fsc.xml").read_text()
    picture = np.asarray(Image.open(project / POST / "postprocess.png").convert("L"))
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fn_in": "Refine3D/run_class001.mrc"}, "no half1 or half2"),
        ({"fn_in": "Refine3D/gone_half1.mrc"}, "does not exist"),
        ({"fn_mask": "small.mrc"}, "small.mrc is 16 px wide"),
        ({"fn_mask": HALVES[1]}, "a mask goes from 0 to 1"),
        ({"do_adhoc_bfac": "Yes"}, "choose one"),
        ({"fn_mtf": "MaskCreate/job001/mask.mrc"}, "mask.mrc"),
        ({"autob_lowres": "5.0"}, "autob_lowres"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(project, done, options, message):
    mrc.write(project / "small.mrc", np.ones((16, 16, 16)), PIXEL_A)
    given = {"fn_in": HALVES[0], "fn_mask": f"{MASK}mask.mrc"} | options
    said = do(project, "PostProcess/job003/", "relion.postprocess", code=1, **given)
    assert message in said.stderr


def test_a_threshold_above_all_densities_names_them(project):
    said = do(
        project,
        "MaskCreate/job004/",
        "relion.maskcreate",
        code=1,
        fn_in="Refine3D/run_class001.mrc",
        inimask_threshold="99",
    )
    assert "densities of the map go from" in said.stderr
