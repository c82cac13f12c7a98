"""Jobs of the `native` executor for tests: a chain from movies to particles, and its runs."""

import hashlib
import json
import subprocess
import sys

from algorithms.formats import star
from schemer.jobs import find
from tests.system import sessions

# The recipe `ci`: 1024 px of 2 A, 16 frames of 1.5 e/A^2.
PIXEL_A, DOSE, DIAMETER_A = 2.0, 1.5, 260.0
N_MOVIES = 4
# The recipe `test`, where only the order of things matters: 384 px of 4 A.
SMALL_PIXEL_A = 4.0

IMPORT, MOTION, CTF = "Import/job001/", "MotionCorr/job002/", "CtfFind/job003/"
SELECT, PICK, EXTRACT = "Select/job004/", "AutoPick/job005/", "Extract/job006/"
MOVIES, CORRECTED = f"{IMPORT}movies.star", f"{MOTION}corrected_micrographs.star"
FITTED, SELECTED = f"{CTF}micrographs_ctf.star", f"{SELECT}micrographs.star"
PICKED, PARTICLES = f"{PICK}autopick.star", f"{EXTRACT}particles.star"
TABLES = [MOVIES, CORRECTED, FITTED, SELECTED, PICKED, f"{PICK}summary.star", PARTICLES]

CHAIN = {
    IMPORT: (
        "relion.import",
        {"fn_in_raw": "Movies/Images-Disc1/*/Data/*_fractions.tiff", "angpix": f"{PIXEL_A}"},
    ),
    MOTION: (
        "relion.motioncorr",
        {
            "input_star_mics": MOVIES,
            "fn_gain_ref": "Movies/gain.mrc",
            "dose_per_frame": f"{DOSE}",
            "bfactor": "-1",
            "do_save_noDW": "Yes",
            "do_float16": "No",
            "nr_threads": "2",
        },
    ),
    CTF: ("relion.ctffind", {"input_star_mics": CORRECTED, "dast": "500", "nr_mpi": "2"}),
    SELECT: (
        "relion.select",
        {"fn_mic": FITTED, "do_select_values": "Yes", "select_maxval": "30"},
    ),
    PICK: (
        "relion.autopick",
        {
            "fn_input_autopick": SELECTED,
            "do_log": "Yes",
            "log_diam_min": f"{DIAMETER_A / 1.2:g}",
            "log_diam_max": f"{DIAMETER_A:g}",
            "nr_mpi": "2",
        },
    ),
    EXTRACT: (
        "relion.extract",
        {
            "star_mics": SELECTED,
            "coords_suffix": PICKED,
            # What `coldstream process` takes for this pixel and diameter.
            "extract_size": "196",
            "do_rescale": "Yes",
            "rescale": "128",
            "do_float16": "No",
            "nr_mpi": "2",
        },
    ),
}


def handed_over(project, process, changes=(), *, more=False):
    """Write the `job.json` of a job of the chain, with other options."""
    label, options = CHAIN[process]
    return described(project, process, label, {**options, **dict(changes)}, more=more)


def described(project, process, label, options, *, more=False):
    kind = find(label)
    complete, unknown = kind.complete(options)
    assert not unknown
    (project / process).mkdir(parents=True, exist_ok=True)
    content = {
        "type": kind.process_label(complete, label),
        "options": complete,
        "inputs": [path for path, _ in kind.input_nodes(complete)],
        "continue": more,
    }
    (project / process / "job.json").write_text(json.dumps(content))
    return [sys.executable, "-P", "-m", "services.jobs", process]


def ran(command, project, code=0, **env):
    """Run a job to its end in the project folder; return what it said."""
    done = subprocess.run(
        command,
        cwd=project,
        env=sessions.environment(**env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def do(project, process, changes=(), *, more=False, code=0, **env):
    return ran(handed_over(project, process, changes, more=more), project, code, **env)


def do_all(project, **how):
    return {process: do(project, process, **how) for process in CHAIN}


def new_project(folder, raw):
    folder.mkdir(parents=True)
    (folder / "Movies").symlink_to(raw)
    return folder


def rows(project, path, block="micrographs"):
    return star.load(project / path).get(block, star.Table())


def digests(project, *patterns):
    """Return the digest of each file that belongs to a single movie."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns or ("*/job*/Movies/**/*",)
        for path in sorted(project.glob(pattern))
        if path.is_file()
    }
