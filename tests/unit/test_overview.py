"""What there is to know about a Scheme from its files, and how it is said."""

import json
import shutil
import time

import pytest
import typer
from msgspec import structs
from typer.testing import CliRunner

from schemer import overview, runlog, starfile, store, templates
from schemer.cli import look as commands
from schemer.monitor import words
from schemer.overview import look
from schemer.project import Project
from schemer.runlog import Entry
from schemer.scheme import Block, JobRow


@pytest.fixture
def root(tmp_path):
    templates.install(tmp_path, "prep")
    return tmp_path


def folder_of(root, name="prep"):
    return root / "Schemes" / name


def change(root, change):
    folder = folder_of(root)
    scheme = change(starfile.read(folder))
    (folder / "scheme.star").write_text(starfile.dump(scheme))


def stand(root, **values):
    """Let `scheme.star` hold the block of a run of ours."""
    names = {"coldstreamPhase": "ready", "coldstreamEnded": "", "coldstreamSleepUntil": "none"}
    columns = {name: [text] for name, text in (names | values).items()}
    block = Block(store.BLOCKS[0], False, columns)
    change(root, lambda one: structs.replace(one, unknown=(block,)))


# Output files


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", ()),
        (b"one\ntwo\n", ("one", "two")),
        (b"one\n\ntwo", ("one", "", "two")),
        (b"0%\r 50%\r100%\ndone\n", ("100%", "done")),
        (b"0%\r 50%", (" 50%",)),
        (b"dos\r\nlines\r\n", ("dos", "lines")),
        (b"\x1b[31mred\x1b[0m \x07bell\x00", ("red bell",)),
        (b"caf\xc3\xa9 \xff\n", ("café �",)),
        (b"a\tb\n", ("a       b",)),
    ],
)
def test_tail_shows_what_a_terminal_would(tmp_path, content, lines):
    (tmp_path / "run.out").write_bytes(content)
    assert overview.tail(tmp_path / "run.out") == lines


def test_tail_of_a_long_file_has_whole_lines_only(tmp_path):
    path = tmp_path / "run.out"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    lines = overview.tail(path)
    assert lines[-1] == "line 99999"
    assert all(line.startswith("line ") for line in lines)
    assert sum(map(len, lines)) < overview.TAIL_BYTES


def test_tail_of_nothing(tmp_path):
    assert overview.tail(tmp_path / "nothing") == ()
    assert overview.tail(tmp_path) == ()


# States


def test_a_scheme_that_never_ran(root):
    seen = look(root, "prep")
    assert not seen.is_running
    assert seen.current_node == "WAIT"
    assert words.headline(seen) == "stopped, never run here"
    assert words.whereabouts(seen) == "at WAIT"
    assert [one.node for one in seen.jobs] == ["importmovies", "motioncorr", "ctffind"]
    assert not any(one.folder or one.status or one.has_started for one in seen.jobs)


def test_a_scheme_that_runs(root):
    with store.run_lock(root, folder_of(root), strict=True):
        (folder_of(root) / store.ABORT_NOW).touch()
        seen = look(root, "prep")
    assert seen.running is not None and seen.running.strict
    assert seen.is_running and not seen.relion
    headline = words.headline(seen)
    assert headline.startswith("running since ")
    assert headline.endswith("strict), asked to abort")


def test_a_scheme_that_relion_runs(root):
    overview.relion_lock(root, "prep").mkdir()
    seen = look(root, "prep")
    assert seen.is_running and seen.relion and seen.running is None
    assert "relion_schemer" in words.headline(seen)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RELION_JOB_EXIT_SUCCESS", "finished"),
        ("RELION_JOB_EXIT_FAILURE", "failed"),
        ("RELION_JOB_EXIT_ABORTED", "aborted"),
    ],
)
def test_how_relions_last_run_ended(root, name, said):
    (folder_of(root) / name).touch()
    assert words.headline(look(root, "prep")) == f"stopped: {said}"


def test_how_our_last_run_ended_is_said_exactly(root):
    (folder_of(root) / "RELION_JOB_EXIT_SUCCESS").touch()
    stand(root, coldstreamPhase="ended", coldstreamEnded="maxtime")
    assert look(root, "prep").ended == "maxtime"


def test_a_killed_run_is_interrupted(root):
    stand(root)
    seen = look(root, "prep")
    assert words.headline(seen) == "stopped: interrupted"
    assert seen.waits_until is None


def test_a_wait_says_until_when(root):
    until = time.time() + 200
    stand(root, coldstreamPhase="sleep", coldstreamSleepUntil=repr(until))
    assert look(root, "prep").waits_until is None  # nobody waits
    with store.run_lock(root, folder_of(root), strict=False):
        seen = look(root, "prep")
    assert seen.waits_until == until
    said = words.whereabouts(seen)
    assert said.startswith(f"at WAIT, waits until {words.clock(until)} (3 min 2")


def test_jobs_have_the_status_of_their_folder(root):
    project = Project(root)
    project.init()
    process = project.create_job("Schemes/prep/", "motioncorr", "relion.motioncorr.own", {}, (), ())
    project.set_status(process, "Running")
    (root / process / "run.out").write_text("frame 1\rframe 2")
    (root / process / "run.err").write_text("oh\n")
    row = JobRow(process, "continue", True)
    change(
        root,
        lambda one: structs.replace(
            one, current_node="motioncorr", jobs=one.jobs | {"motioncorr": row}
        ),
    )
    seen = look(root, "prep")
    assert seen.statuses == {"MotionCorr/job001/": "Running"}
    assert words.whereabouts(seen) == "at motioncorr, MotionCorr/job001/, Running"
    assert seen.job == process
    assert (seen.job_output, seen.job_errors) == (("frame 2",), ("oh",))
    assert "* motioncorr" in "\n".join(words.page(seen))


def test_between_jobs_the_last_ones_output_is_shown(root):
    for number, node in ((1, "importmovies"), (2, "motioncorr")):
        out = root / f"X/job{number:03d}" / "run.out"
        out.parent.mkdir(parents=True)
        out.write_text(node)
        row = JobRow(f"X/job{number:03d}/", "continue", True)
        change(root, lambda one, n=node, r=row: structs.replace(one, jobs=one.jobs | {n: r}))
    assert look(root, "prep").job == "X/job002/"


def test_a_broken_pipeline_does_not_hide_the_rest(root):
    (root / "default_pipeline.star").write_text("data_other\n\n_a b\n")
    seen = look(root, "prep")
    assert "not a pipeline" in seen.problem
    assert len(seen.jobs) == 3
    assert "not a pipeline file" in "".join(words.page(seen))


def test_a_broken_scheme_is_told(root):
    (folder_of(root) / "scheme.star").write_text("data_scheme_floats\n\nloop_\n_a\n_b\n1 2 3\n")
    seen = look(root, "prep")
    assert seen.scheme is None
    assert "scheme.star" in words.whereabouts(seen)
    assert len(words.page(seen)) >= 2
    assert overview.as_dict(seen)["problem"]


def test_the_story_is_the_end_of_the_log(root):
    path = folder_of(root) / store.HIDDEN / "log.jsonl"
    log = runlog.RunLog(folder_of(root))
    for number in range(3):
        moves = (("set", "float", "n", str(number)),)
        log.append(Entry("run", number, 0.0, "Go", "COUNT", "", moves))
    log.close()
    path.write_bytes(path.read_bytes() + b'{"run": "half a li')
    assert look(root, "prep").story == tuple(
        f"1970-01-01T00:00:00Z COUNT: n = {number}" for number in range(3)
    )


# Words


def test_a_page_fits_eighty_columns(root):
    templates.install(root, "proc")
    text = "x" * 300
    (folder_of(root, "proc") / "run.err").write_text(text)
    page = words.page(look(root, "proc"))
    assert max(map(len, page)) <= 80
    assert " topaz_model=" in "\n".join(page)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations_have_units(seconds, said):
    assert words.duration(seconds) == said


def test_a_time_of_another_day_has_its_date():
    now = time.time()
    assert len(words.clock(now)) == len("12:00:00")
    assert words.clock(now - 3 * 86400).startswith("20")


def test_numbers_are_said_without_loss():
    assert words.text(1234567.0) == "1234567"
    assert words.text(0.885) == "0.885"
    assert words.text(True) == "True"


# `schemer status`


@pytest.fixture
def status():
    app = typer.Typer()
    app.command()(commands.status)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


def test_status_tells_of_all_schemes(root, status):
    templates.install(root, "proc")
    done = status("--project", root)
    assert done.exit_code == 0
    assert [line for line in done.output.splitlines() if line and line[0] not in " *"] == [
        "prep: stopped, never run here",
        "proc: stopped, never run here",
    ]


def test_status_of_one_scheme_as_json(root, status):
    (folder_of(root) / "RELION_JOB_EXIT_ABORTED").touch()
    told = json.loads(status("--project", root, "--scheme", "prep", "--json").output)
    assert told["scheme"] == "Schemes/prep/"
    assert (told["running"], told["by"], told["ended"]) == (False, None, "aborted")
    assert told["jobs"]["motioncorr"] == {
        "mode": "continue",
        "folder": None,
        "has_started": False,
        "status": None,
    }
    assert told["variables"]["wait_sec"]["value"] == told["variables"]["wait_sec"]["reset"]
    assert isinstance(json.loads(status("--project", root, "--json").output), list)


def test_status_tells_the_whole_story(root, status):
    log = runlog.RunLog(folder_of(root))
    for number in range(2000):
        log.append(Entry("run", number, 0.0, "Go", "COUNT", "", (("at", f"N{number}"),)))
    log.close()
    lines = status("--project", root, "--scheme", "prep", "--story").output.splitlines()
    assert len(lines) == 2001
    assert lines[1].endswith("COUNT -> N0")
    assert len(look(root, "prep").story) < 2000  # what a screen gets


def test_status_without_a_scheme(tmp_path, root, status):
    assert status("--project", root, "--scheme", "other").exit_code == 64
    shutil.rmtree(root / "Schemes")
    assert status("--project", root).exit_code == 64
