"""Log lines: merged by time, whole, and filtered as a person asks."""

import json

import pytest
from typer.testing import CliRunner

from services import tail
from services.cli import app
from services.kit import session as sessions
from services.kit.errors import Misuse
from services.kit.paths import Layout
from services.kit.session import Session
from services.tail import LogTail, make_filter

PREP = (
    "2026-01-01T00:00:01Z prep INFO micrograph.ctf movie=FoilHole_1 defocus_A=12345 fit_A=3.9\n"
    "2026-01-01T00:00:03Z prep WARNING micrograph.refused movie=FoilHole_2 code=POISON "
    'detail="a worker died"\n'
)
MDCATCH = "2026-01-01T00:00:02Z mdcatch INFO movie.settled movie=FoilHole_2 frames=40\n"


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "prep.log").write_text(PREP)
    (tmp_path / "mdcatch.log").write_text(MDCATCH)
    return tmp_path


def shown(folder, wanted=None):
    return [line.event for line in LogTail(folder, wanted).last(100)]


def test_lines_are_merged_by_time_and_shown_once(logs):
    followed = LogTail(logs)
    assert [line.event for line in followed.last(2)] == ["movie.settled", "micrograph.refused"]
    assert followed.new() == []
    assert LogTail(logs).last(0) == []


def test_only_whole_lines_are_shown(tmp_path):
    log = tmp_path / "proc.log"
    log.write_text("2026-01-01T00:00:02Z proc INFO b µ\n2026")
    followed = LogTail(tmp_path)
    assert [line.text for line in followed.new()] == ["2026-01-01T00:00:02Z proc INFO b µ"]
    with open(log, "a") as file:
        file.write("-01-01T00:00:04Z proc INFO d\n")
    assert [line.text for line in followed.new()] == ["2026-01-01T00:00:04Z proc INFO d"]


@pytest.mark.parametrize(
    ("asked", "events"),
    [
        ((["prep"], "debug", [], [], None), ["micrograph.ctf", "micrograph.refused"]),
        (([], "WARNING", [], [], None), ["micrograph.refused"]),
        (([], "INFO", ["movie.*"], [], None), ["movie.settled"]),
        (([], "INFO", ["movie.*", "*.ctf"], [], None), ["micrograph.ctf", "movie.settled"]),
        (([], "INFO", [], ["foilhole_2"], None), ["movie.settled", "micrograph.refused"]),
        (([], "INFO", [], ["foilhole_2", "frames"], None), ["movie.settled"]),
        (([], "INFO", [], [], "2026-01-01T00:00:03Z"), ["micrograph.refused"]),
        (([], "INFO", [], [], "2026-01-01T01:00:03+01:00"), ["micrograph.refused"]),
        (([], "INFO", [], [], "10m"), []),
    ],
)
def test_filters(logs, asked, events):
    assert shown(logs, make_filter(*asked)) == events


def test_a_line_that_is_none_of_ours_stays_with_the_line_above(logs):
    with open(logs / "prep.log", "a") as file:
        file.write("2026-01-01T00:00:05Z prep ERROR bug\nTraceback: line 1\n  line 2\n")
    (logs / "proc.log").write_text("2026-01-01T00:00:06Z proc INFO later\n")
    texts = [line.text for line in LogTail(logs, make_filter([], "ERROR", [], [], None)).last(9)]
    assert texts == ["2026-01-01T00:00:05Z prep ERROR bug", "Traceback: line 1", "  line 2"]
    assert LogTail(logs).last(1)[0].event == "later"


def test_durations_count_from_now(monkeypatch, logs):
    monkeypatch.setattr(tail.time, "time", lambda: 1767225722.0)  # 2026-01-01T00:02:02Z
    assert shown(logs, make_filter([], "INFO", [], [], "2m")) == [
        "movie.settled",
        "micrograph.refused",
    ]


@pytest.mark.parametrize(("level", "since"), [("LOUD", None), ("INFO", "yesterday")])
def test_what_cannot_be_asked_is_said(level, since):
    with pytest.raises(Misuse, match=r"LOUD|yesterday"):
        make_filter([], level, [], [], since)


def test_the_command_prints_json(tmp_path, monkeypatch):
    layout = Layout(tmp_path / "p")
    layout.make()
    sessions.save(layout, Session(name="s", raw=str(tmp_path)))
    (layout.logs / "prep.log").write_text(PREP)
    done = CliRunner().invoke(app, ["tail", "-p", str(layout.project), "-l", "warning", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "at": "2026-01-01T00:00:03Z",
        "service": "prep",
        "level": "WARNING",
        "event": "micrograph.refused",
        "fields": {"movie": "FoilHole_2", "code": "POISON", "detail": "a worker died"},
    }
    wrong = CliRunner().invoke(app, ["tail", "-p", str(layout.project), "--since", "soon"])
    assert wrong.exit_code == 2 and "--since soon" in wrong.stderr
    layout.sockets.rmdir()
