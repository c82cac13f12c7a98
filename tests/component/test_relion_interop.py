"""A processed session in the hands of RELION's programs; written against Debian's RELION 3.1.3.

RELION reads what coldstream wrote, and where it does the same work its results are compared with
ours. Micrographs and stacks are float32 here: RELION 3.1 refuses float16, RELION 4 and 5 read it.
"""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree

from algorithms.extraction import ExtractOptions, extract
from algorithms.formats import mrc, star
from algorithms.motion import MotionOptions, motion_statistics
from algorithms.motion.starfile import read_motion
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.session import simulate_session
from algorithms.simulate.specimen import load_specimen
from algorithms.simulate.truth import read_movie_truth, truth_folder
from tests.relion import (
    Session,
    columns,
    correlation,
    moved,
    positions,
    radius_px,
    shifts,
    spread,
)
from tests.system import sessions

PROGRAMS = (
    "autopick image_handler motion_refine preprocess reconstruct refine run_ctffind "
    "run_motioncorr star_handler star_printtable"
).split()
MISSING = [name for name in PROGRAMS if shutil.which(f"relion_{name}") is None]

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(bool(MISSING), reason=f"RELION's {', '.join(MISSING)} not installed"),
]

FLOAT32 = ("prep__motioncorr__do_float16=No", "proc__extract__do_float16=No")
PIXEL_A, DOSE, DIAMETER_A = 2.0, 1.5, 260.0
MATCH_A = 0.3 * DIAMETER_A
FINEST_A = 30  # so few particles leave most of a finer transform unmeasured

MOVIES = "Import/job001/movies.star"
CORRECTED = "MotionCorr/job002/corrected_micrographs.star"
FITTED = "CtfFind/job003/micrographs_ctf.star"
SELECTED = "Select/job004/micrographs.star"
PICKED = "AutoPick/job005/autopick.star"
PARTICLES = "Extract/job006/particles.star"
TABLES = [
    MOVIES,
    CORRECTED,
    FITTED,
    SELECTED,
    PICKED,
    "AutoPick/job005/summary.star",
    PARTICLES,
    "MotionCorr/job002/Movies/**/*_fractions.star",
    "AutoPick/job005/Movies/**/*_autopick.star",
    "Extract/job006/Movies/**/*_extract.star",
    "*/job*/job.star",
]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interop")
    raw, project = folder / "Simulated", folder / "project"
    # `ci`: 1024 px of 2 A, 16 frames of 1.5 e/A^2; exposures in two optics groups.
    recipe = replace(load_recipe("ci"), n_exposures=3)
    simulate_session(recipe, raw, seed=17, realtime=False)
    options = [word for setting in FLOAT32 for word in ("--set", setting)]
    done = sessions.process(raw, project, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    names = star.load(project / CORRECTED)["micrographs"].strings("rlnMicrographName")
    assert len(names) == 3
    stems = {name: Path(name).stem.removesuffix("_fractions") for name in names}
    truth = {name: read_movie_truth(truth_folder(raw) / stem) for name, stem in stems.items()}
    return Session(project, truth)


# STAR


@pytest.mark.parametrize("pattern", TABLES)
def test_relion_prints_every_loop_as_we_read_it(session, pattern):
    for path in session.files(pattern):
        loops = {name: table for name, table in session.load(path).items() if table.loop}
        assert loops
        for name, table in loops.items():
            # In turned order: a value in the wrong column would come out in another place. The
            # program, a script, takes the words of a quoted text for columns.
            labels = [x for x, values in table.columns.items() if " " not in "".join(values)][::-1]
            printed = session.relion("star_printtable", path, f"data_{name}", *labels)
            rows = [
                ["" if value == '""' else value for value in line.split()]
                for line in printed.splitlines()
            ]
            assert len(rows) == len(table)
            assert rows == [[table.row(i)[label] for label in labels] for i in range(len(table))]


@pytest.mark.parametrize("path", [MOVIES, CORRECTED, FITTED, SELECTED, PARTICLES])
def test_relion_reads_and_rewrites_our_tables(session, path):
    again = f"again/{Path(path).name}"
    (session.project / "again").mkdir(exist_ok=True)
    session.relion("star_handler", "--i", path, "--o", again)
    ours, theirs = session.load(path), session.load(again)
    assert set(theirs) == set(ours)
    for name, table in ours.items():
        assert set(theirs[name].columns) == set(table.columns)
        for label in table.columns:
            try:
                values = table.floats(label)
            except ValueError:
                assert theirs[name].strings(label) == table.strings(label)
            else:
                np.testing.assert_allclose(theirs[name].floats(label), values, rtol=1e-6)


# Images


def test_relion_reads_micrographs_spectra_and_stacks(session):
    number = r"avg= (\S+) stddev= (\S+) minval= (\S+) maxval= (\S+); angpix = (\S+)"
    pictures = session.files("MotionCorr/job002/Movies/**/*.mrc")
    assert len(pictures) == 9  # weighted, unweighted and spectrum of each movie
    for path in [*pictures, *session.files("Extract/job006/Movies/**/*.mrcs")]:
        images = session.read(path).astype(np.float64)
        images = images[None] if images.ndim == 2 else images
        side, pixel = images.shape[-1], mrc.read_header(session.project / path).pixel_size_A
        printed = session.relion("image_handler", "--i", path, "--stats")
        assert printed.count(f"{side} x {side} x 1 x 1") == len(images)
        found = np.array([[float(v) for v in row] for row in re.findall(number, printed)])
        wanted = [[i.mean(), i.std(), i.min(), i.max(), pixel] for i in images]
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_relion_3_refuses_half_precision_and_says_so(session):
    path = session.project / "half.mrc"
    mrc.write(path, np.eye(64, dtype=np.float32), PIXEL_A, float16=True)
    if "RELION version: 3." in session.relion("image_handler", "--version"):
        said = session.relion("image_handler", "--i", "half.mrc", "--stats", fails=True)
        assert "does not support half-precision" in said
    else:
        assert "64 x 64" in session.relion("image_handler", "--i", "half.mrc", "--stats")


# Motion correction


@pytest.fixture(scope="module")
def corrected(session):
    """Return RELION's own correction of our movies.star: {our metadata file: RELION's}."""
    # One thread: with more, RELION 3.1 needs several times the processor time for small movies.
    command = ["--i", MOVIES, "--o", "RelionMotion/", "--use_own", "--j", 1, "--save_noDW"]
    command += ["--patch_x", 1, "--patch_y", 1, "--bfactor", 100 / PIXEL_A**2]
    command += ["--dose_weighting", "--dose_per_frame", DOSE, "--preexposure", 0]
    command += ["--gainref", "Movies/gain.mrc", "--grouping_for_ps", round(4 / DOSE)]
    session.relion("run_motioncorr", *command)
    ours = session.load(CORRECTED)["micrographs"].strings("rlnMicrographMetadata")
    return {o: o.replace("MotionCorr/job002/", "RelionMotion/") for o in ours}


def test_relion_corrects_the_movies_that_we_list(session, corrected):
    ours = session.load(CORRECTED)
    theirs = session.load("RelionMotion/corrected_micrographs.star")
    assert set(ours) == set(theirs)
    for name, table in theirs.items():
        # The metrics that RELION cannot know are allowed; nothing that it writes may be missing.
        assert set(table.columns) <= set(ours[name].columns)
        assert len(table) == len(ours[name])
    assert ours["optics"].columns.keys() == theirs["optics"].columns.keys()
    for label in theirs["optics"].columns:
        if label != "rlnOpticsGroupName":
            np.testing.assert_allclose(ours["optics"].floats(label), theirs["optics"].floats(label))
    for label in ("rlnMicrographName", "rlnMicrographNameNoDW", "rlnCtfPowerSpectrum"):
        names = [n.replace("MotionCorr/job002/", "") for n in ours["micrographs"].strings(label)]
        peers = [n.replace("RelionMotion/", "") for n in theirs["micrographs"].strings(label)]
        assert names == peers
    assert ours["micrographs"].ints("rlnOpticsGroup").tolist() == (
        theirs["micrographs"].ints("rlnOpticsGroup").tolist()
    )
    assert len(ours["optics"]) > 1


def test_metadata_files_have_relions_columns_with_their_meaning(session, corrected):
    for our_path, their_path in corrected.items():
        ours, theirs = session.load(our_path), session.load(their_path)
        assert set(theirs) <= set(ours)
        for name, table in theirs.items():
            assert table.loop == ours[name].loop
            assert set(table.columns) <= set(ours[name].columns)
        assert theirs["general"].columns.keys() == (
            ours["general"].columns.keys() - {"rlnColdstreamVersion"}
        )
        for label, (value,) in theirs["general"].columns.items():
            own = ours["general"].strings(label)[0]
            if label == "rlnMicrographGainName":  # ours is the copy in the job's folder
                images = [mrc.read(session.project / name) for name in (own, value)]
                np.testing.assert_array_equal(*images)
                continue
            assert own == value or float(own) == float(value), label
        frames = [
            t["global_shift"].ints("rlnMicrographFrameNumber").tolist() for t in (ours, theirs)
        ]
        assert frames[0] == frames[1] == list(range(1, 17))
        hot = [set(map(tuple, positions(t["hot_pixels"]))) for t in (ours, theirs)]
        assert hot[0] == hot[1]
        assert len(hot[0]) > 10


def test_shifts_have_relions_sign_and_are_nearer_to_the_truth(session, corrected):
    ours, theirs, apart = [], [], []
    for (our_path, their_path), truth in zip(
        corrected.items(), session.truth.values(), strict=True
    ):
        own, peer = (shifts(session.load(p)["global_shift"]) for p in (our_path, their_path))
        apart.append(spread(own - peer))
        # A shift undoes the specimen's movement.
        ours.append(spread(own + truth.global_shift_px))
        theirs.append(spread(peer + truth.global_shift_px))
        assert correlation(own, peer) > 0.95
    assert max(apart) < 0.3
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def test_motion_columns_are_relions(session, corrected):
    options = MotionOptions(pixel_size_A=PIXEL_A, voltage_kV=300.0, dose_per_frame=DOSE)
    for path in (CORRECTED, "RelionMotion/corrected_micrographs.star"):
        table = session.load(path)["micrographs"]
        written = columns(table, *(f"rlnAccumMotion{part}" for part in ("Total", "Early", "Late")))
        tracks = [session.load(name) for name in table.strings("rlnMicrographMetadata")]
        motions = [motion_statistics(shifts(track["global_shift"]), options) for track in tracks]
        found = [[motion.total_px, motion.early_px, motion.late_px] for motion in motions]
        np.testing.assert_allclose(written, found, rtol=1e-3)


def test_sums_and_spectra_agree_with_relions(session, corrected):
    for our_path, their_path in corrected.items():
        for kind, least in (("", 0.9), ("_noDW", 0.85)):
            own = session.read(our_path.replace(".star", f"{kind}.mrc"))
            peer = session.read(their_path.replace(".star", f"{kind}.mrc"))
            assert own.shape == peer.shape
            assert abs(own.mean() / peer.mean() - 1) < 1e-4
            assert abs(own.std() / peer.std() - 1) < 5e-3
            assert correlation(own, peer) > least
        own, peer = (session.read(p.replace(".star", "_PS.mrc")) for p in (our_path, their_path))
        # RELION keeps the mean of the image in the middle, and does not align within a group.
        # Beside Nyquist and beyond, ours are those of interpolated frames.
        ring = (radius_px(len(own)) > 20) & (radius_px(len(own)) < 0.45 * len(own))
        assert own.shape == peer.shape
        assert abs(own[ring].mean() / peer[ring].mean() - 1) < 0.01
        assert correlation(own[ring], peer[ring]) > 0.5
        assert correlation(own[:, ::-1][ring], peer[ring]) < 0.3
        pixels = [
            mrc.read_header(session.project / p.replace(".star", "_PS.mrc")).pixel_size_A
            for p in (our_path, their_path)
        ]
        assert pixels[0] == pytest.approx(pixels[1], rel=1e-6)


# CTF

# Stands in for CTFFIND: keeps what RELION told it and answers with our fit of that spectrum.
CTFFIND = r"""#!/bin/sh
input=$(cat)
output=$(printf '%s\n' "$input" | sed -n 2p)
{ printf '%s\n' "$*"; printf '%s\n' "$input"; } > "$STUB/$(basename "$output").in"
ours=$(find CtfFind -name "$(basename "$output")")
for suffix in .ctf .txt _avrot.txt; do cp "${ours%.ctf}$suffix" "${output%.ctf}$suffix"; done
echo "Summary of results : ${output%.ctf}.txt"
"""


@pytest.fixture(scope="module")
def fitted(session, tmp_path_factory):
    """Run RELION's CTF job on our corrected micrographs; returns what CTFFIND was told."""
    folder = tmp_path_factory.mktemp("bin")
    told = tmp_path_factory.mktemp("told")
    # RELION starts CTFFIND through csh, which need not be there; its script is plain sh as well.
    for name, text in (("csh", '#!/bin/sh\nexec sh "$@"\n'), ("ctffind", CTFFIND)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    command = ["--i", CORRECTED, "--o", "RelionCtf/", "--ctffind_exe", folder / "ctffind"]
    command += ["--is_ctffind4", "--use_given_ps", "--Box", 512, "--ResMin", 30, "--ResMax", 5]
    command += ["--dFMin", 5000, "--dFMax", 50000, "--FStep", 500, "--dAst", 500]
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    session.relion("run_ctffind", *command, PATH=path, STUB=str(told))
    return sorted(file.read_text().splitlines() for file in told.iterdir())


def test_relion_gives_our_spectra_to_ctffind(session, fitted):
    spectra = sorted(session.load(CORRECTED)["micrographs"].strings("rlnCtfPowerSpectrum"))
    assert len(fitted) == len(spectra)
    for (arguments, given, _output, *numbers), spectrum in zip(fitted, spectra, strict=True):
        assert arguments == "--amplitude-spectrum-input"
        assert os.path.samefile(session.project / given, session.project / spectrum)
        pixel = mrc.read_header(session.project / spectrum).pixel_size_A
        # Pixel of the spectrum, kV, Cs and amplitude contrast: from our optics groups.
        assert [float(n) for n in numbers[:4]] == pytest.approx([pixel, 300, 2.7, 0.1])
        assert [float(n) for n in numbers[4:10]] == [512, 30, 5, 5000, 50000, 500]


def test_relion_reads_our_fits_as_ctffinds(session, fitted):
    ours, theirs = session.load(FITTED), session.load("RelionCtf/micrographs_ctf.star")
    assert set(ours) == set(theirs)
    table, peer = ours["micrographs"], theirs["micrographs"]
    assert set(peer.columns) <= set(table.columns)
    assert theirs["optics"].columns.keys() == ours["optics"].columns.keys()
    assert peer.strings("rlnMicrographName") == table.strings("rlnMicrographName")
    images = [name.replace("RelionCtf", "CtfFind/job003") for name in peer.strings("rlnCtfImage")]
    assert images == table.strings("rlnCtfImage")
    for label in peer.columns.keys() - {"rlnMicrographName", "rlnCtfImage"}:
        np.testing.assert_allclose(peer.floats(label), table.floats(label), rtol=1e-5, atol=2e-3)


# Picks and particles


def test_relion_picks_what_we_pick(session):
    command = ["--i", SELECTED, "--odir", "RelionPick/", "--pickname", "autopick", "--LoG"]
    command += ["--LoG_diam_min", f"{DIAMETER_A / 1.2:g}", "--LoG_diam_max", f"{DIAMETER_A:g}"]
    command += ["--shrink", 0, "--lowpass", 20, "--LoG_adjust_threshold", 0]
    session.relion("autopick", *command)
    near = count = 0
    for path in session.load(PICKED)["coordinate_files"].strings("rlnMicrographCoordinates"):
        ours = session.load(path)[""]
        theirs = session.load(path.replace("AutoPick/job005", "RelionPick"))[""]
        assert set(theirs.columns) == set(ours.columns)
        distance = KDTree(positions(ours)).query(positions(theirs))[0] * PIXEL_A
        near += int((distance < 15).sum())
        count += len(ours)
        assert abs(len(theirs) - len(ours)) <= 1
    # Ties on the flanks may fall otherwise: one working pixel is 10 A.
    assert near / count > 0.9


def test_relion_extracts_the_same_particles(session):
    table = session.load(PARTICLES)
    ours, scaled = table["particles"], int(table["optics"].ints("rlnImageSize")[0])
    job = session.load("Extract/job006/job.star")["joboptions_values"]
    chosen = dict(
        zip(*(job.strings(f"rlnJobOption{n}") for n in ("Variable", "Value")), strict=True)
    )
    box, background = int(chosen["extract_size"]), int(0.75 * scaled / 2)
    command = ["--i", SELECTED, "--coord_dir", "AutoPick/job005/", "--part_dir", "RelionExtract/"]
    command += ["--coord_suffix", "_autopick.star", "--part_star", "RelionExtract/particles.star"]
    command += ["--extract", "--extract_size", box, "--scale", scaled, "--norm"]
    command += ["--bg_radius", background, "--white_dust", -1, "--black_dust", -1]
    session.relion("preprocess", *command, "--invert_contrast")

    peers = session.load("RelionExtract/particles.star")
    theirs = peers["particles"]
    assert set(theirs.columns) <= set(ours.columns)
    assert set(peers["optics"].columns) <= set(table["optics"].columns)
    for label in peers["optics"].columns.keys() - {"rlnOpticsGroupName"}:
        np.testing.assert_allclose(
            peers["optics"].floats(label), table["optics"].floats(label), rtol=1e-6
        )
    names = {"rlnImageName", "rlnMicrographName"}
    assert theirs.strings("rlnMicrographName") == ours.strings("rlnMicrographName")
    for label in theirs.columns.keys() - names:
        np.testing.assert_allclose(theirs.floats(label), ours.floats(label), rtol=1e-6, atol=1e-6)

    # RELION cuts at whole pixels and forgets the rest; ours are centred to the fraction.
    where = positions(ours)
    rest = (where - np.trunc(where)) * scaled / box
    none = np.zeros(len(ours))
    own, peer = moved(session.images(ours), none, none), moved(session.images(theirs), *rest.T)
    inside = radius_px(scaled) < scaled / 3
    apart = np.sqrt(np.square(own - peer)[:, inside].mean(1))
    assert apart.max() < 0.03  # of the background's deviation; 0.8 without the shift


def test_relion_operates_on_our_stacks(session):
    path = session.files("Extract/job006/Movies/**/*.mrcs")[0]
    images = session.read(path)
    side = images.shape[-1]
    command = ["--operate_on", path, "--operate_out", "operated.mrcs", "--norm"]
    session.relion("preprocess", *command, "--bg_radius", 20, "--invert_contrast")
    options = ExtractOptions(box_px=side, scaled_px=side, bg_radius_px=20)
    middle = np.array([side / 2])
    wanted = [extract(image, middle, middle, 1.0, options).images[0] for image in images]
    np.testing.assert_allclose(session.read("operated.mrcs"), np.stack(wanted), atol=1e-5)


# Particles in classification, reconstruction and polishing


@pytest.fixture(scope="module")
def posed(session):
    """Add the true poses to our particles; returns the name of the table."""
    tables = session.load(PARTICLES)
    table = tables["particles"]
    names, where = np.array(table.strings("rlnMicrographName")), positions(table)
    pose, found = np.zeros((len(table), 5)), np.zeros(len(table), bool)
    for name, truth in session.truth.items():
        rows = np.flatnonzero(names == name)
        distance, match = KDTree(truth.position_px).query(where[rows])
        origin_A = (where[rows] - truth.position_px[match]) * PIXEL_A
        angles = np.column_stack([truth.rot, truth.tilt, truth.psi])[match]
        pose[rows] = np.hstack([angles, origin_A])
        found[rows] = distance * PIXEL_A < MATCH_A
    assert found.sum() > 0.8 * len(table)
    kept = {
        label: [v for v, use in zip(values, found, strict=True) if use]
        for label, values in table.columns.items()
    }
    labels = ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst")
    kept |= {f"rln{label}": pose[found, i] for i, label in enumerate(labels)}
    kept["rlnRandomSubset"] = [1 + i % 2 for i in range(found.sum())]
    posed = {"optics": tables["optics"], "particles": star.Table.of(kept)}
    star.save(session.project / "posed.star", posed, durable=False)
    return "posed.star"


@pytest.fixture(scope="module")
def volume(session, posed):
    session.relion("reconstruct", "--i", posed, "--o", "map.mrc", "--ctf", "--maxres", FINEST_A)
    return "map.mrc"


def test_relion_reconstructs_the_specimen(session, posed, volume):
    table = session.load(posed)
    turned = table["particles"].columns
    for label in ("rlnOriginXAngst", "rlnOriginYAngst"):
        turned[label] = [str(-float(v)) for v in turned[label]]
    star.save(session.project / "turned.star", table, durable=False)
    session.relion(
        "reconstruct", "--i", "turned.star", "--o", "not.mrc", "--ctf", "--maxres", FINEST_A
    )

    found, wrong = session.read(volume), session.read("not.mrc")
    pixel = mrc.read_header(session.project / volume).pixel_size_A
    assert pixel == pytest.approx(table["optics"].floats("rlnImagePixelSize")[0], rel=1e-5)
    assert correlation(*compared(found, pixel)) > 0.9
    assert correlation(*compared(wrong, pixel)) < 0.6
    assert correlation(*compared(found[::-1], pixel)) < 0.6  # the hand


def compared(volume, pixel_size_A):
    """Return map and specimen between 200 A and the finest, within the particle."""
    side = len(volume)
    edges = [np.arange(side + 1) - side / 2 - 0.5] * 3
    atoms = load_specimen().positions_A[:, ::-1] / pixel_size_A
    q = np.fft.fftfreq(side, pixel_size_A)
    q = np.sqrt(q[:, None, None] ** 2 + q[None, :, None] ** 2 + q[None, None, :] ** 2)
    band = (q > 1 / 200) & (q < 1 / FINEST_A)
    inside = radius_px(side, 3) * pixel_size_A < 150
    maps = volume * inside, np.histogramdd(atoms, bins=edges)[0]
    return tuple(np.fft.ifftn(np.fft.fftn(m) * band).real[inside] for m in maps)


def test_relion_classifies_our_particles(session):
    (session.project / "RelionClass").mkdir()
    command = ["--i", PARTICLES, "--o", "RelionClass/run", "--K", 2, "--iter", 1, "--ctf"]
    command += ["--particle_diameter", DIAMETER_A, "--tau2_fudge", 2, "--psi_step", 12, "--j", 1]
    command += ["--offset_range", 5, "--offset_step", 2, "--zero_mask", "--flatten_solvent"]
    # Without --dont_check_norm: RELION stops when the backgrounds are not normalised.
    session.relion("refine", *command, "--norm", "--scale", "--random_seed", 1)
    ours = session.load(PARTICLES)["particles"]
    theirs = session.load("RelionClass/run_it001_data.star")["particles"]
    assert sorted(theirs.strings("rlnImageName")) == sorted(ours.strings("rlnImageName"))
    assert set(ours.columns) <= set(theirs.columns)
    assert set(theirs.ints("rlnClassNumber")) <= {1, 2}
    assert np.isfinite(session.read("RelionClass/run_it001_classes.mrcs")).all()


@pytest.fixture(scope="module")
def polish(session, posed, volume):
    """Return a function that polishes into a folder: tracks in A by micrograph, and the log."""
    pixel = session.load(posed)["optics"].floats("rlnImagePixelSize")[0]
    side = len(session.read(volume))
    mask = (radius_px(side, 3) * pixel < 150).astype(np.float32)
    mrc.write(session.project / "mask.mrc", mask, pixel)
    shell = np.arange(side // 2 + 1)
    frequency = shell / (side * pixel)
    fsc = {
        "rlnSpectralIndex": shell,
        "rlnResolution": frequency,
        "rlnFourierShellCorrelationCorrected": 1 / (1 + np.exp(200 * (frequency - 1 / 20))),
    }
    star.save(session.project / "fsc.star", {"fsc": star.Table.of(fsc)}, durable=False)

    def run(folder, *more, corrected=CORRECTED):
        (session.project / folder).mkdir()
        command = ["--i", posed, "--o", f"{folder}/", "--corr_mic", corrected, "--j", 1]
        command += ["--f", "fsc.star", "--m1", volume, "--m2", volume, "--mask", "mask.mrc"]
        command += ["--s_vel", 0.2, "--s_div", 5000, "--s_acc", 2]
        said = session.relion("motion_refine", *command, *more)
        tracks = {}
        for name in session.truth:
            path = name.replace("MotionCorr/job002", folder).replace(".mrc", "_tracks.star")
            tables = [t for block, t in session.load(path).items() if block.isdigit()]
            axes = ("rlnOriginXAngst", "rlnOriginYAngst")
            tracks[name] = np.stack([columns(t, *axes) for t in tables])
        return tracks, said

    return run


def test_relion_starts_polishing_from_our_metadata(session, polish):
    tracks, said = polish("RelionStart", "--max_iters", 0)
    source = r"from MotionCorr/job002/.*_fractions\.star: "
    assert re.search(rf"movie pixel size {source}{PIXEL_A:g} A", said)
    assert re.search(rf"dose per frame {source}{DOSE:g} e", said)
    for name, found in tracks.items():
        moved_A = moved_as_saved(session, name, name.replace(".mrc", ".star"))
        for track, own in zip(found, moved_A, strict=True):
            assert spread(track - own) < 1e-3 < spread(own)


def moved_as_saved(session, name, metadata):
    """Return the movement `[n, F, 2]` in A of a micrograph's particles that a STAR file tells."""
    saved = read_motion(session.load(metadata))
    table = session.load("posed.star")["particles"]
    rows = [i for i, n in enumerate(table.strings("rlnMicrographName")) if n == name]
    x, y = positions(table)[rows].T
    frames = [saved.shift_px(frame, x, y) for frame in range(saved.shape[0])]
    # A track is the specimen's movement, a shift what was applied against it.
    return -np.stack(frames, axis=1) * PIXEL_A


@pytest.mark.slow
def test_relion_reads_our_local_model(session, polish):
    # The simulated specimen is rigid: a model is put into copies of our files.
    rng = np.random.default_rng(5)
    tables = session.load(CORRECTED)
    copies = []
    (session.project / "Local").mkdir()
    for number, path in enumerate(tables["micrographs"].strings("rlnMicrographMetadata")):
        movie = session.load(path)
        space = rng.normal(0, 2, (2, 6, 1)) * np.array([0.1, -0.005, 1e-4])
        movie["general"].columns["rlnMotionModelVersion"] = ["1"]
        movie["local_motion_model"] = star.Table.of(
            {
                "rlnMotionModelCoeffsIdx": np.arange(36),
                "rlnMotionModelCoeff": [f"{c:.9g}" for c in space.ravel()],
            }
        )
        copies.append(f"Local/movie{number}.star")
        star.save(session.project / copies[-1], movie, durable=False)
    tables["micrographs"].columns["rlnMicrographMetadata"] = copies
    star.save(session.project / "Local/corrected.star", tables, durable=False)
    tracks, _ = polish("RelionLocal", "--max_iters", 0, corrected="Local/corrected.star")
    names = tables["micrographs"].strings("rlnMicrographName")
    for name, metadata in zip(names, copies, strict=True):
        moved_A = moved_as_saved(session, name, metadata)
        assert spread(moved_A - moved_A[:1]) > 0.1
        for track, own in zip(tracks[name], moved_A, strict=True):
            assert spread(track - own) < 5e-3


def test_relion_polishes_our_particles(session, polish):
    tracks, _ = polish("RelionPolish")
    for name, found in tracks.items():
        moved_A = session.truth[name].global_shift_px * PIXEL_A
        assert spread(found.mean(0) - moved_A) < 0.3 * PIXEL_A < spread(moved_A)
