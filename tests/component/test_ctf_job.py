"""CTF fits of micrographs, with options of our own: live and as a job the files are the same."""

from tests.native import CORRECTED, CTF, FITTED, digests, do, new_project, rows
from tests.system import sessions

OPTIONS = {
    "use_given_ps": "No",
    "use_noDW": "Yes",
    "slow_search": "Yes",
    "resmax": "10",
    "other_args": "--tilt Yes --thickness Yes",
}
FILES = "CtfFind/job*/Movies/**/*"


def test_a_live_session_and_a_job_leave_the_same(tmp_path):
    raw = sessions.simulate(tmp_path / "Simulated", n_exposures=1)
    live = tmp_path / "live"
    settings = [w for k, v in OPTIONS.items() for w in ("--set", f"prep__ctffind__{k}={v}")]
    done = sessions.process(raw, live, *settings)
    assert done.returncode == 0, done.stderr
    project = new_project(tmp_path / "project", raw)
    (project / "MotionCorr").symlink_to(live / "MotionCorr")
    do(project, CTF, OPTIONS, alone=True)
    ours, theirs = digests(project, FILES), digests(live, FILES)
    assert len(ours) == 3 and ours == theirs
    fitted, corrected = rows(project, FITTED), rows(project, CORRECTED)
    image = corrected.strings("rlnMicrographNameNoDW")[0].replace("MotionCorr/job002/", CTF)
    assert fitted.strings("rlnCtfImage") == [image.replace(".mrc", ".ctf:mrc")]
    assert fitted.strings("rlnCtfImage") == rows(live, FITTED).strings("rlnCtfImage")
    # Noise at 4 A per px: nothing is told of the tilt, and no column says otherwise.
    assert "rlnColdstreamTiltAngle" not in fitted.columns


def test_options_that_make_no_sense_stop_the_job(tmp_path):
    project = new_project(tmp_path / "project", tmp_path)
    for options, said in (
        ({"dfmin": "-1000"}, "overfocus is not fitted"),
        ({"box": "333"}, "it must be even"),
        ({"other_args": "--do_at_most 3"}, "--tilt Yes or No, --thickness Yes or No"),
    ):
        done = do(project, CTF, options, code=1, alone=True)
        assert said in done.stdout + done.stderr
