"""The report of a running session: written again while there is news, at a bounded cost."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.reporting import REST, LiveReport, command
from tests.books import Books
from tests.report_session import tell_session

WRITES = "import sys; open(sys.argv[1], 'a').write('x')"


def until(report: LiveReport, done, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        report.turn(False)
        time.sleep(0.01)


def ended(report: LiveReport):
    return lambda: report._process is None


def test_it_is_written_when_due_and_only_with_news(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said: list[str] = []
    with LiveReport([sys.executable, "-c", WRITES, str(out)], said.append, 0.2) as report:
        report.turn(True)
        assert report._process is None  # not yet due
        until(report, out.exists)
        until(report, ended(report))
        time.sleep(0.3)
        report.turn(False)
        assert report._process is None  # nothing new
        begun = time.monotonic()
        report.turn(True)
        # It rests for a multiple of what it took, however short that was asked for.
        assert report._process is None
        assert report._due - begun > 5 * 0.01
    assert out.read_text() == "x" and said == []


def test_it_rests_in_proportion_to_its_cost() -> None:
    with LiveReport([sys.executable, "-c", "import time; time.sleep(0.3)"], print, 0.0) as report:
        report.turn(True)
        begun = report._begun
        until(report, ended(report))
        took_s = time.monotonic() - begun
        assert report._due - time.monotonic() > 0.8 * REST * min(took_s, 0.3)


def test_what_went_wrong_is_said_once_and_nothing_stops(tmp_path: Path) -> None:
    said: list[str] = []
    fails = [sys.executable, "-c", "import sys; sys.exit('disk full')"]
    with LiveReport(fails, said.append, 0.0) as report:
        for _ in range(2):
            report._due = 0.0
            report.turn(True)
            until(report, ended(report))
    assert said == ["the report was not written: disk full"]
    with LiveReport([str(tmp_path / "nothing")], said.append, 0.0) as report:
        report.turn(True)
    assert len(said) == 2 and "could not be started" in said[1]


def test_the_end_has_the_last_news_and_a_stop_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with LiveReport([sys.executable, "-c", WRITES, str(out)], print, 0.0) as report:
        report.finish()
        assert not out.exists()  # a short session had none
        report.turn(True)
        report.finish()
        assert out.read_text() == "xx"
    with LiveReport([sys.executable, "-c", "import time; time.sleep(600)"], print, 0.0) as report:
        report.turn(True)
        process = report._process
        assert process is not None
    assert process.poll() is not None


@pytest.mark.parametrize("has_session", [True, False])
def test_the_process_writes_the_report_of_a_project(tmp_path: Path, has_session: bool) -> None:
    books = Books(tmp_path / "P")
    if has_session:
        for event in tell_session(2).events:
            books.add(event.producer, event.body)
    books.close()
    result = subprocess.run(
        command(books.layout), capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode == 0) == has_session
    assert (tmp_path / "P" / "report.html").exists() == has_session
    assert has_session or "has no coldstream session" in result.stderr
