"""Native jobs: wrong options, imports, selections; and RELION's programs on what they leave."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import star
from tests.native import (
    CHAIN,
    CORRECTED,
    CTF,
    EXTRACT,
    FITTED,
    IMPORT,
    MOTION,
    MOVIES,
    N_MOVIES,
    PARTICLES,
    PICK,
    PICKED,
    SELECT,
    SELECTED,
    SMALL_PIXEL_A,
    described,
    do,
    handed_over,
    job_server,
    new_project,
    ran,
    rows,
)
from tests.relion import Session, positions
from tests.system import sessions


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory):
    """Do all jobs in one process."""
    with job_server(tmp_path_factory.mktemp("jobs")):
        yield


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """All jobs on small movies, done once; not to be changed, but for folders of one's own."""
    folder = tmp_path_factory.mktemp("tables")
    raw = sessions.simulate(folder / "Simulated", n_exposures=N_MOVIES)
    project = new_project(folder / "project", raw)
    do(project, IMPORT, {"angpix": f"{SMALL_PIXEL_A}"})
    for process in list(CHAIN)[1:]:
        do(project, process)
    return Session(project, dict.fromkeys(rows(project, CORRECTED).strings("rlnMicrographName")))


# Wrong options


@pytest.mark.parametrize(
    "process, changes, said",
    [
        (IMPORT, {"fn_in_raw": "/raw/*.tiff"}, "option fn_in_raw .* make a link"),
        (IMPORT, {"optics_group_name": "a b"}, "optics_group_name .* 'a b'.* hyphens"),
        (IMPORT, {"angpix": "fine"}, "option angpix of .* is 'fine': it must be a number"),
        (IMPORT, {"fn_mtf": "k3.star"}, "k3.star, option fn_mtf .* does not exist"),
        (MOTION, {"input_star_mics": ""}, "option input_star_mics .* is empty"),
        (MOTION, {"input_star_mics": "no.star"}, "no.star, option input_star_mics .* not exist"),
        (MOTION, {"fn_gain_ref": "Movies/no.mrc"}, "no.mrc, option fn_gain_ref .* not exist"),
        (MOTION, {"bin_factor": "0.5"}, "option bin_factor of .* is '0.5': .* between 1 and 16"),
        (MOTION, {"gain_rot": "left"}, "option gain_rot of .* is 'left'"),
        (MOTION, {"dose_per_frame": "0"}, "dose_per_frame .* is 0: dose weighting needs it"),
        (MOTION, {"fn_defect": "x.txt"}, "x.txt, option fn_defect .* does not exist"),
        (MOTION, {"patch_x": "many"}, "option patch_x of .* is 'many'"),
        (MOTION, {"other_args": "--fast 3"}, "other_args .* '--fast'; .*--do_at_most N"),
        (MOTION, {"other_args": "--do_at_most few"}, "--do_at_most 'few' must be a whole number"),
        (CTF, {"resmax": "40"}, "option resmax of .* is 40 and resmin 30"),
        (CTF, {"dfmin": "60000"}, "option dfmin of .* is 60000 and dfmax 50000"),
        (SELECT, {"select_label": "rlnNone"}, "micrographs_ctf.star: no column rlnNone; .*rlnDef"),
        (SELECT, {"select_label": "rlnCtfImage"}, "column rlnCtfImage: could not convert"),
        (SELECT, {"fn_data": PARTICLES}, "fn_mic and fn_data .* one of the two"),
        (PICK, {"log_diam_min": "300"}, "log_diam_min .* is 300 and log_diam_max 260"),
        (PICK, {"do_write_fom_maps": "Yes"}, "do_write_fom_maps .* executor relion"),
        (EXTRACT, {"extract_size": "197"}, "option extract_size .* is 197: it must be even"),
        (EXTRACT, {"rescale": "256"}, "option rescale .* is 256: .* not above"),
        (EXTRACT, {"bg_diameter": "400"}, "option bg_diameter .* is 400: .* smaller"),
        (EXTRACT, {"coords_suffix": FITTED}, "micrographs_ctf.star, option coords_suffix .* lists"),
        (EXTRACT, {"star_mics": CORRECTED}, "no column rlnDefocusU"),
    ],
)
def test_a_wrong_option_is_told_with_its_value(chain, tmp_path, process, changes, said):
    # A folder of its own: the project of the chain stays as it is.
    folder = f"{process.partition('/')[0]}/job100/"
    command = handed_over(chain.project, process, changes)
    shutil.rmtree(chain.project / folder, ignore_errors=True)
    (chain.project / folder).mkdir()
    (chain.project / process / "job.json").rename(chain.project / folder / "job.json")
    done = ran([*command[:-1], folder], chain.project, code=1)
    (line,) = done.stderr.splitlines()
    assert line.startswith("ERROR: ")
    assert re.search(said, line), line
    left = {p.name for p in (chain.project / folder).iterdir()}
    assert left <= {"job.json", ".coldstream"}


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "does not describe a job"),
        ('{"type": "relion.extract"}', "missing required field `options`"),
        ('{"type": "relion.multibody", "options": {}}', "relion.multibody is not done here"),
    ],
)
def test_a_folder_without_a_job_is_told(tmp_path, content, said):
    folder = tmp_path / "Extract/job001"
    folder.mkdir(parents=True)
    if content:
        (folder / "job.json").write_text(content)
    command = [sys.executable, "-P", "-m", "services.jobs"]
    assert said in ran([*command, "Extract/job001/"], tmp_path, code=1).stderr
    assert "usage: " in ran(command, tmp_path, code=1).stderr
    assert "not in the project" in ran([*command, "../elsewhere"], tmp_path, code=1).stderr


def test_a_table_that_is_none_is_told_with_its_line(tmp_path):
    (tmp_path / IMPORT).mkdir(parents=True)
    (tmp_path / MOVIES).write_text("data_optics\n\nloop_\n_a\n_b\n_c\n1 2\n")
    done = do(tmp_path, MOTION, {"fn_gain_ref": ""}, code=1)
    assert f"{MOVIES}: line 7, block data_optics" in done.stderr


def test_two_movies_with_one_result_are_told(tmp_path):
    (tmp_path / "Movies").mkdir()
    for name in ("a.b.tif", "a_b.tif"):
        (tmp_path / "Movies" / name).touch()
    do(tmp_path, IMPORT, {"fn_in_raw": "Movies/*.tif"})
    done = do(tmp_path, MOTION, {"fn_gain_ref": ""}, code=1)
    assert "Movies/a.b.tif and Movies/a_b.tif would both become" in done.stderr


# Import


def test_import_appends_with_another_optics_group(tmp_path):
    for name in ("b.mrc", "a.mrc", "c.tif", "d e.tif"):
        (tmp_path / name).touch()
    job = ("relion.import", {"is_multiframe": "No", "fn_in_raw": "*.mrc", "kV": "200"})
    ran(described(tmp_path, IMPORT, *job), tmp_path)
    (tmp_path / "mtf.star").touch()
    job = (
        "relion.import",
        {
            "is_multiframe": "No",
            "fn_in_raw": "*.tif",
            "optics_group_name": "second",
            "fn_mtf": "mtf.star",
            "beamtilt_x": "0.5",
        },
    )
    done = ran(described(tmp_path, IMPORT, *job, more=True), tmp_path)
    assert "not imported: 'd e.tif' has a blank" in done.stderr
    tables = star.load(tmp_path / IMPORT / "micrographs.star")
    assert tables["micrographs"].columns == {
        "rlnMicrographName": ["a.mrc", "b.mrc", "c.tif"],
        "rlnOpticsGroup": ["1", "1", "2"],
    }
    optics = tables["optics"]
    assert optics.strings("rlnOpticsGroupName") == ["opticsGroup1", "second"]
    assert optics.floats("rlnVoltage").tolist() == [200, 300]
    assert optics.floats("rlnMicrographPixelSize").tolist() == [1.4, 1.4]
    assert optics.floats("rlnBeamTiltX").tolist() == [0, 0.5]
    assert optics.strings("rlnMtfFileName") == ["", "mtf.star"]


def other(project, node_type, path, code=0, **more):
    options = {"do_raw": "No", "do_other": "Yes", "node_type": node_type, "fn_in_other": path}
    return ran(described(project, IMPORT, "relion.import", options | more), project, code)


def test_other_files_are_copied_under_their_names(tmp_path):
    (tmp_path / "maps").mkdir()
    for name in ("maps/run_half1_unfil.mrc", "maps/run_half2_unfil.mrc", "maps/mask.mrc"):
        (tmp_path / name).write_text(name)
    other(tmp_path, "3D mask (.mrc)", "maps/mask.mrc")
    assert (tmp_path / IMPORT / "mask.mrc").read_text() == "maps/mask.mrc"
    other(tmp_path, "Unfiltered half-map (unfil.mrc)", "maps/run_half2_unfil.mrc")
    for half in (1, 2):
        name = f"run_half{half}_unfil.mrc"
        assert (tmp_path / IMPORT / name).read_text() == f"maps/{name}"
    done = other(tmp_path, "Unfiltered half-map (unfil.mrc)", "maps/mask.mrc", code=1)
    assert "the other half-map is not beside it" in done.stderr
    done = other(tmp_path, "3D reference (.mrc)", "maps/none.mrc", code=1)
    assert "maps/none.mrc, option fn_in_other of" in done.stderr


def test_particles_may_get_another_optics_group_name(chain, tmp_path):
    shutil.copy(chain.project / PARTICLES, tmp_path / "p.star")
    other(tmp_path, "Particles STAR file (.star)", "p.star", optics_group_particles="lmb")
    tables, before = star.load(tmp_path / IMPORT / "p.star"), star.load(tmp_path / "p.star")
    assert tables["optics"].strings("rlnOpticsGroupName") == ["lmb"]
    assert tables["particles"].columns == before["particles"].columns


@pytest.mark.parametrize("suffix", [".star", ".box", ".txt"])
def test_coordinates_of_others_are_extracted(chain, tmp_path, suffix):
    """Import them as RELION does, and extract with the suffix file that comes of it."""
    project = tmp_path
    for name in ("MotionCorr", "CtfFind", "Select"):
        (project / name).symlink_to(chain.project / name)
    names = list(chain.truth)
    picks = {name: np.array([[200.0, 300.0], [100.0 + i, 150.0]]) for i, name in enumerate(names)}
    for name, points in picks.items():
        path = (project / name.removeprefix(MOTION)).with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f"{path.name}_pick{suffix}")
        if suffix == ".star":
            columns = {"rlnCoordinateX": points[:, 0], "rlnCoordinateY": points[:, 1]}
            star.save(file, {"": star.Table.of(columns)})
        else:
            corner = 50 if suffix == ".box" else 0
            lines = [f"{x - corner:.1f} {y - corner:.1f} 100 100" for x, y in points]
            file.write_text("\n".join(lines) + "\n")
    pattern = f"{Path(names[0].removeprefix(MOTION)).parent}/*_pick{suffix}"
    other(project, "Particle coordinates (*.box, *_pick.star)", pattern)
    list_file = f"{IMPORT}coords_suffix_pick{suffix}"
    done = do(project, EXTRACT, {"coords_suffix": list_file})
    assert f"{2 * N_MOVIES} particles of {N_MOVIES} micrographs" in done.stdout
    particles = rows(project, PARTICLES, "particles")
    np.testing.assert_allclose(positions(particles), np.concatenate(list(picks.values())))
    assert set(particles.floats("rlnAutopickFigureOfMerit")) == {-999.0}


def test_coordinates_of_another_image_are_refused(chain, tmp_path):
    for name in ("MotionCorr", "CtfFind", "Select"):
        (tmp_path / name).symlink_to(chain.project / name)
    names = list(chain.truth)
    (tmp_path / "far.txt").write_text("9000 9000\n")
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "words.txt").write_text("here there\n")
    files = ["far.txt", "none.txt", "words.txt", "absent.txt"]
    table = {"rlnMicrographName": names, "rlnMicrographCoordinates": files}
    star.save(tmp_path / "picks.star", {"coordinate_files": star.Table.of(table)})
    done = do(tmp_path, EXTRACT, {"coords_suffix": "picks.star"})
    assert f"{names[0]}: OUT_OF_RANGE: far.txt: particle 1 at (9000.0, 9000.0)" in done.stderr
    assert f"{names[2]}: READ_ERROR: {tmp_path}/words.txt holds no coordinates" in done.stderr
    # A picker need not leave a file where it found nothing.
    assert f"1 of {N_MOVIES} micrographs have no coordinates" in done.stdout
    assert "0 particles of 1 micrographs" in done.stdout


# Selection, and RELION's programs


def selected(chain, options, name="particles.star"):
    """Run a selection of the particles in a folder of its own; return the table and the folder."""
    process = f"Select/job{100 + len(list((chain.project / 'Select').iterdir()))}/"
    ran(described(chain.project, process, "relion.select", options), chain.project)
    return star.load(chain.project / process / name), process


def test_micrographs_are_selected_by_a_value_with_its_bounds(chain):
    fitted = rows(chain.project, FITTED)
    values = sorted(fitted.floats("rlnDefocusU"))
    options = {"fn_mic": FITTED, "do_select_values": "Yes", "select_label": "_rlnDefocusU"}
    options |= {"select_minval": f"{values[1]:.6f}", "select_maxval": f"{values[-2]:.6f}"}
    tables, _ = selected(chain, options, "micrographs.star")
    assert sorted(tables["micrographs"].floats("rlnDefocusU")) == values[1:-1]
    assert tables["micrographs"].columns.keys() == fitted.columns.keys()
    assert tables["optics"].columns == star.load(chain.project / FITTED)["optics"].columns
    # Our own further limits hold together with RELION's.
    most = sorted(fitted.floats("rlnCtfAstigmatism"))[-2]
    options["other_args"] = f"--limit rlnCtfAstigmatism:0:{most:.6f}"
    tables, _ = selected(chain, options, "micrographs.star")
    pairs = zip(fitted.floats("rlnDefocusU"), fitted.floats("rlnCtfAstigmatism"), strict=True)
    expected = sorted(u for u, a in pairs if values[0] < u < values[-1] and a <= most + 1e-6)
    assert sorted(tables["micrographs"].floats("rlnDefocusU")) == expected


def test_a_table_is_split_and_its_parts_are_declared(chain):
    options = {"fn_data": PARTICLES, "do_split": "Yes", "nr_split": "3"}
    parts, process = selected(chain, options, "particles_split1.star")
    nodes = star.load(chain.project / process / "RELION_OUTPUT_NODES.star")["output_nodes"]
    files = [f"{process}particles_split{i}.star" for i in (1, 2, 3)]
    assert nodes.strings("rlnPipeLineNodeName") == files
    whole = rows(chain.project, PARTICLES, "particles").strings("rlnImageName")
    found = [rows(chain.project, file, "particles").strings("rlnImageName") for file in files]
    assert [name for part in found for name in part] == whole
    assert [len(part) for part in found[:2]] == [-(-len(whole) // 3)] * 2
    mixed, _ = selected(chain, options | {"do_random": "Yes"}, "particles_split1.star")
    again, _ = selected(chain, options | {"do_random": "Yes"}, "particles_split1.star")
    assert mixed["particles"].columns == again["particles"].columns != parts["particles"].columns


needs_relion = pytest.mark.skipif(
    any(shutil.which(f"relion_{name}") is None for name in ("star_handler", "import")),
    reason="RELION's star_handler and import not installed",
)


@pytest.mark.relion
@needs_relion
@pytest.mark.parametrize("path", [MOVIES, CORRECTED, FITTED, SELECTED, PARTICLES])
def test_relion_reads_and_rewrites_the_tables(chain, tmp_path, path):
    chain.relion("star_handler", "--i", path, "--o", tmp_path / "again.star")
    ours, theirs = chain.load(path), star.load(tmp_path / "again.star")
    assert theirs.keys() == ours.keys()
    for block, table in ours.items():
        assert theirs[block].columns.keys() == table.columns.keys()
        for label, values in table.columns.items():
            try:
                numbers = table.floats(label)
            except star.StarError:
                assert theirs[block].strings(label) == values
            else:
                np.testing.assert_allclose(theirs[block].floats(label), numbers, rtol=1e-6)


@pytest.mark.relion
@needs_relion
@pytest.mark.parametrize(
    "path, block, label",
    [
        (PICKED, "coordinate_files", "rlnMicrographCoordinates"),
        (PARTICLES, "particles", "rlnImageName"),
    ],
)
def test_relion_prints_the_lists_of_files(chain, path, block, label):
    printed = chain.relion("star_printtable", path, f"data_{block}", label).split()
    assert printed == chain.load(path)[block].strings(label)


@pytest.mark.relion
@needs_relion
@pytest.mark.parametrize(
    "options, arguments",
    [
        (
            {
                "do_select_values": "Yes",
                "select_label": "rlnCoordinateX",
                "select_minval": "100",
                "select_maxval": "250.5",
            },
            "--select rlnCoordinateX --minval 100 --maxval 250.5",
        ),
        (
            {"do_discard": "Yes", "discard_sigma": "1.5"},
            "--discard_on_stats --discard_label rlnImageName --discard_sigma 1.5",
        ),
        (
            {"do_remove_duplicates": "Yes", "duplicate_threshold": "350", "image_angpix": "4"},
            "--remove_duplicates 350 --image_angpix 4",
        ),
        (
            {"do_remove_duplicates": "Yes", "duplicate_threshold": "500"},
            "--remove_duplicates 500",
        ),
    ],
)
def test_selections_of_particles_are_relions(chain, tmp_path, options, arguments):
    peer = tmp_path / "peer.star"
    chain.relion("star_handler", "--i", PARTICLES, "--o", peer, *arguments.split())
    wanted = star.load(peer)["particles"].strings("rlnImageName")
    tables, _ = selected(chain, {"fn_data": PARTICLES, **options})
    assert tables["particles"].strings("rlnImageName") == wanted
    total = len(rows(chain.project, PARTICLES, "particles"))
    assert 0 < len(wanted) < total


@pytest.mark.relion
@needs_relion
def test_an_import_is_relions(chain, tmp_path):
    arguments = ["--i", CHAIN[IMPORT][1]["fn_in_raw"], "--angpix", SMALL_PIXEL_A, "--kV", 300]
    arguments += ["--odir", f"{tmp_path}/", "--ofile", "movies.star", "--do_movies"]
    chain.relion("import", *arguments)
    ours, theirs = chain.load(MOVIES), star.load(tmp_path / "movies.star")
    assert [t.columns for t in ours.values()] == [t.columns for t in theirs.values()]
    assert list(ours) == list(theirs)
