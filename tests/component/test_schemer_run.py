"""`schemer run` as people meet it: it reacts, can be changed and stopped, says what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from schemer import runlog, starfile, store
from schemer.errors import SchemeError
from schemer.executors.command import CommandExecutor
from schemer.jobs import JobFile
from schemer.project import Project
from schemer.runner import Runner
from schemer.scheme import Edge, FloatVariable, JobRow, Operator, Scheme, StringVariable
from schemer.walk import apply, begin
from schemer.workbench import Workbench

QUICK = '#!/bin/sh\necho "$1" >>calls.txt\n'
# Stops as RELION's programs do: it looks for the request in its folder.
SLOW = """#!/bin/sh
echo "$1" >>calls.txt
for i in $(seq 200); do
  [ -e "$1/RELION_JOB_ABORT_NOW" ] && exit 2
  sleep 0.05
done
"""
DEAF = "#!/bin/sh\ntouch started\nsleep 60\n"


def install(project, program, *, wait_s=3600.0, job="relion.external", **options):
    folder = project / "Schemes" / "live"
    (folder / "job").mkdir(parents=True)
    (folder / "job" / "job.star").write_text(JobFile(job, {"fn_exe": "x", **options}).dumps())
    one = Scheme(
        name="Schemes/live/",
        current_node="WAIT",
        floats={
            "wait_sec": FloatVariable(wait_s, wait_s),
            "n": FloatVariable(0, 0),
            "one": FloatVariable(1, 1),
        },
        strings={
            "movies": StringVariable("raw/*.tif", "raw/*.tif"),
            "found": StringVariable("", ""),
        },
        operators={
            "WAIT": Operator("wait", input1="wait_sec"),
            "LOOK": Operator("string=glob", "found", "movies"),
            "COUNT": Operator("float=plus", "n", "n", "one"),
        },
        jobs={"job": JobRow("job", "continue")},
        edges=(
            Edge("WAIT", "LOOK"),
            Edge("LOOK", "COUNT"),
            Edge("COUNT", "job"),
            Edge("job", "WAIT"),
        ),
    )
    (folder / "scheme.star").write_text(starfile.dump(one))
    (project / "raw").mkdir()
    path = project / "program"
    path.write_text(program)
    path.chmod(0o755)
    return folder


def runner(project, **options):
    bench = Workbench(Project(project, retry_s=0.01), (CommandExecutor("./program", project),))
    return Runner(bench, "live", **options)


class Live:
    """`schemer run` in a process of its own, ended by an abort."""

    def __init__(self, project, *words):
        self.project, self.folder = project, project / "Schemes" / "live"
        command = [sys.executable, "-m", "schemer", "run", "-p", project, "-s", "live", *words]
        command += ["--executor", "command:./program"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def until(self, test, seconds=60):
        deadline = time.monotonic() + seconds
        while not test():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, runlog.story(runlog.read(self.folder))
            time.sleep(0.01)

    def rests(self, calls):
        """Return whether the Scheme waits after so many calls of the program, and has written so.

        What is written from outside before that may cross the Scheme's own write.
        """
        path = self.project / "calls.txt"
        table = store.table_of(starfile.read(self.folder), "coldstream_run")
        return (
            path.exists()
            and len(path.read_text().split()) == calls
            and table is not None
            and table.row(0)["coldstreamPhase"] == "sleep"
        )

    def end(self):
        store.request_abort(self.project, self.folder)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), err.decode()

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


def test_new_data_end_the_wait_and_a_growing_file_is_waited_for(tmp_path):
    install(tmp_path, QUICK)
    with Live(tmp_path) as live:
        live.until(lambda: live.rests(1))
        began = time.monotonic()
        with open(tmp_path / "raw" / "m1.tif", "wb") as file:
            for _ in range(3):
                file.write(b"x")
                file.flush()
                time.sleep(0.1)
        live.until(lambda: live.rests(2))
        assert time.monotonic() - began < 120, "the wait of an hour went on"
        assert starfile.read(live.folder).strings["found"].value == "raw/m1.tif"
        code, out, err = live.end()
        assert code == 2 and "aborted" in err
        assert "the wait ended: data" in out
        assert (live.folder / "RELION_JOB_EXIT_ABORTED").exists()


def test_a_value_set_from_outside_is_taken_over_at_once(tmp_path):
    folder = install(tmp_path, QUICK)
    with Live(tmp_path) as live:
        live.until(lambda: live.rests(1))
        words = ("set", "-p", tmp_path, "-s", "live")
        command = [sys.executable, "-m", "schemer", *words]
        subprocess.run([*command, "wait_sec", "0"], check=True, timeout=30, capture_output=True)
        live.until(lambda: starfile.read(folder).floats["n"].value >= 2)
        code, out, _ = live.end()
        assert code == 2 and "changed from outside: wait_sec = 0" in out
        assert starfile.read(folder).floats["wait_sec"].value == 0.0


def test_a_relion_program_that_rewrites_the_file_is_taken_over_too(tmp_path):
    """RELION takes no lock of ours, drops our blocks and writes the file in place."""
    folder = install(tmp_path, QUICK)
    with Live(tmp_path) as live:
        live.until(lambda: live.rests(1))
        path = folder / "scheme.star"
        one = starfile.read(path)
        one.floats["one"] = FloatVariable(10.0, 1.0)
        one.floats["wait_sec"] = FloatVariable(0.0, 0.0)
        theirs = Scheme(
            name=one.name,
            current_node=one.current_node,
            floats=one.floats,
            strings=one.strings,
            operators=one.operators,
            jobs=one.jobs,
            edges=one.edges,
        )
        path.write_text(starfile.dump(theirs))
        live.until(lambda: starfile.read(folder).floats["n"].value >= 11)
        assert live.end()[0] == 2


def test_nonsense_written_from_outside_is_put_back(tmp_path):
    folder = install(tmp_path, QUICK)
    with Live(tmp_path) as live:
        live.until(lambda: live.rests(1))
        (folder / "scheme.star").write_text("data_nonsense\n")
        live.until(lambda: "put back" in str(runlog.story(runlog.read(folder))))
        live.until(lambda: "nonsense" not in (folder / "scheme.star").read_text())
        assert starfile.read(folder).current_node == "WAIT"
        assert live.end()[0] == 2


def test_an_abort_stops_a_job_that_looks_for_it(tmp_path):
    folder = install(tmp_path, SLOW)
    with Live(tmp_path) as live:
        live.until(lambda: (tmp_path / "calls.txt").exists())
        code, _, err = live.end()
        assert code == 2 and "External/job001/" in err
    assert starfile.read(folder).current_node == "job"
    assert (tmp_path / "External/job001/RELION_JOB_EXIT_ABORTED").exists()
    assert Project(tmp_path).pipeline().processes["External/job001/"] == "Aborted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_job_that_hears_nothing(tmp_path, number):
    install(tmp_path, DEAF)
    with Live(tmp_path, "--grace", "0.3") as live:
        live.until(lambda: (tmp_path / "started").exists())
        live.process.send_signal(number)
        _, err = live.process.communicate(timeout=60)
        assert live.process.returncode == 2, err
    assert Project(tmp_path).pipeline().processes["External/job001/"] == "Aborted"
    found = subprocess.run(["pgrep", "-f", f"{tmp_path}"], capture_output=True, check=False)
    assert not found.stdout.split(), "a program was left behind"


def test_a_killed_run_waits_for_the_program_that_lived_on(tmp_path):
    install(tmp_path, '#!/bin/sh\necho "$1" >>calls.txt\nsleep 1\ntouch "$1/done.txt"\n', wait_s=0)
    with Live(tmp_path) as live:
        live.until(lambda: (tmp_path / "calls.txt").exists())
        live.kill()
    assert not (tmp_path / "External/job001/done.txt").exists()
    with Live(tmp_path) as live:
        live.until(lambda: (tmp_path / "External/job001/done.txt").exists())
        assert len((tmp_path / "calls.txt").read_text().split()) == 1
        assert live.end()[0] == 2


def test_only_one_process_runs_a_scheme(tmp_path):
    folder = install(tmp_path, QUICK)
    with Live(tmp_path) as live:
        live.until(lambda: live.rests(1))
        who = store.running(folder)
        assert who is not None and who.pid == live.process.pid
        with pytest.raises(SchemeError, match=f"running .process {who.pid}"):
            runner(tmp_path).run()
        with pytest.raises(SchemeError, match="schemer abort"):
            store.edit(folder, lambda one: one)
        live.kill()
    assert store.running(folder) is None
    store.edit(folder, lambda one: one)


def test_a_scheme_that_relion_runs_is_refused(tmp_path):
    install(tmp_path, QUICK)
    (tmp_path / ".relion_lock_scheme_live").mkdir()
    with pytest.raises(SchemeError, match="relion_schemer"):
        runner(tmp_path).run()


def test_a_missing_input_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("schemer.runner._INPUT_LOOK_S", 0.05)
    install(tmp_path, QUICK, job="relion.ctffind", input_star_mics="Import/job009/gone.star")
    result = runner(tmp_path).run()
    assert (result.exit_code, result.ended) == (1, "input missing")
    for word in ("job job", "Import/job009/gone.star", "job.star"):
        assert word in result.detail
    assert not result.walk.state.jobs["job"].has_started
    assert Project(tmp_path).pipeline().processes["CtfFind/job001/"] == "Scheduled"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.unlink(), ("job.star", "add it")),
        (lambda path: path.write_text("nonsense\n"), ("job.star", "line 1")),
        (
            lambda path: path.write_text(JobFile("relion.imprt", {}).dumps()),
            ("relion.imprt", "known"),
        ),
        (
            lambda path: path.write_text(
                JobFile("relion.external", {"fn_exe": "$$nobody"}).dumps()
            ),
            ("fn_exe", "nobody"),
        ),
    ],
)
def test_a_bad_job_star_ends_the_run_with_a_message_and_makes_nothing(tmp_path, write, words):
    folder = install(tmp_path, QUICK)
    write(folder / "job" / "job.star")
    result = runner(tmp_path).run()
    assert (result.exit_code, result.ended) == (1, "error")
    assert all(word in result.detail for word in words), result.detail
    assert not list(tmp_path.glob("*/job0*"))
    assert (folder / "RELION_JOB_EXIT_FAILURE").exists()


def test_a_program_that_dies_without_a_word_is_a_failed_job(tmp_path):
    install(tmp_path, "#!/bin/sh\necho no memory >&2\nkill -9 $$\n")
    result = runner(tmp_path).run()
    assert result.ended == "job failed"
    assert "SIGKILL" in result.detail and "no memory" in result.detail


def test_no_such_program_and_no_such_scheme_are_told_before_anything_runs(tmp_path):
    install(tmp_path, QUICK)
    for words, code, text in (
        (("-s", "live", "-e", "command:./nothing"), 1, "./nothing"),
        (("-s", "live", "-e", "magic"), 1, "native, relion"),
        (("-s", "other"), 64, "there are live"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "schemer", "run", "-p", tmp_path, *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code and text in done.stderr
    assert not (tmp_path / "default_pipeline.star").exists()


def test_the_log_repeats_the_walk(tmp_path):
    """Folding the log's moves into the beginning gives what scheme.star says."""
    folder = install(tmp_path, "#!/bin/sh\nexit 3\n")
    walk = begin(starfile.load(folder))
    result = runner(tmp_path).run()
    for entry in runlog.read(folder):
        for move in entry.moves:
            apply(walk, move)
    assert walk == result.walk
    assert any("ended: job failed" in line for line in runlog.story(runlog.read(folder)))


def test_schemer_job_runs_one_job(tmp_path):
    install(tmp_path, QUICK)
    words = ["job", tmp_path / "Schemes/live/job", "-p", tmp_path, "-e", "command:./program"]
    done = subprocess.run(
        [sys.executable, "-m", "schemer", *words, "--set", "param1_value=7", "--json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert json.loads(done.stdout) == {
        "job": "External/job001/",
        "status": "Succeeded",
        "detail": "",
    }
    asked = json.loads((tmp_path / "External/job001/job.json").read_text())
    assert asked["options"]["param1_value"] == "7"
    assert (tmp_path / "calls.txt").read_text().split() == ["External/job001/"]
    assert os.path.exists(tmp_path / "External/job001/RELION_JOB_EXIT_SUCCESS")
