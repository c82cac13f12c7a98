"""Jobs of the `native` executor for tests: a chain from movies to particles, and its runs."""

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from algorithms.formats import star
from schemer.jobs import find
from tests.system import sessions

# The recipe `ci`: 1024 px of 2 A, 16 frames of 1.5 e/A^2.
PIXEL_A, DOSE, DIAMETER_A = 2.0, 1.5, 260.0
N_MOVIES = 4
LIMIT_S = 120
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
            "patch_x": "5",
            "patch_y": "5",
            "do_save_noDW": "Yes",
            "do_float16": "No",
            "nr_threads": "2",
        },
    ),
    CTF: ("relion.ctffind", {"input_star_mics": CORRECTED, "nr_mpi": "2"}),
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


class JobServer:
    """A process that does jobs one after another; what they say is read from its files.

    Parameters
    ----------
    folder
        Takes the two files.
    """

    def __init__(self, folder: Path):
        self.said = [folder / "stdout", folder / "stderr"]
        replies, theirs = os.pipe()
        self.replies = os.fdopen(replies)
        with open(self.said[0], "w") as out, open(self.said[1], "w") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.job_server", str(theirs)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                text=True,
                env=sessions.environment(),
                cwd=Path(__file__).parents[1],
                pass_fds=[theirs],
            )
        os.close(theirs)
        # Its name appears a moment later; by it the tests tell what they have left behind.
        named = Path(f"/proc/{self.popen.pid}/cmdline")
        while named.exists() and not named.read_bytes() and self.popen.poll() is None:
            time.sleep(0.001)

    def do(self, arguments: list[str], project: Path) -> subprocess.CompletedProcess[str]:
        """Do a job as `python -m services.jobs ARGUMENTS` does it in the project folder."""
        before = [len(path.read_text()) for path in self.said]
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps([str(project), *arguments]) + "\n")
        self.popen.stdin.flush()
        assert select.select([self.replies], [], [], LIMIT_S)[0], "the job does not end"
        reply = self.replies.readline()
        out, err = (p.read_text()[n:] for p, n in zip(self.said, before, strict=True))
        assert reply, err
        return subprocess.CompletedProcess(arguments, int(reply), out, err)

    def end(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        try:
            assert self.popen.wait(10) == 0, self.said[1].read_text()
        finally:
            self.popen.kill()
            self.popen.wait()
            self.replies.close()


_servers: list[JobServer] = []


@contextmanager
def job_server(folder: Path) -> Iterator[None]:
    """Let jobs be done by one process as long as this is open, unless they ask for their own."""
    _servers.append(JobServer(folder))
    try:
        yield
    finally:
        _servers.pop().end()


def ran(command, project, code=0, *, alone=False, **env):
    """Run a job to its end in the project folder; return what it said.

    `alone` is as people start it, a process for this job only; so is one with an environment.
    """
    if _servers and not (alone or env):
        arguments = command[command.index("services.jobs") + 1 :]
        done = _servers[-1].do(arguments, project)
    else:
        done = subprocess.run(
            command,
            cwd=project,
            env=sessions.environment(**env),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def do(project, process, changes=(), *, more=False, code=0, **how):
    return ran(handed_over(project, process, changes, more=more), project, code, **how)


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
