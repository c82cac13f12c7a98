"""What a person decides reaches the daemon: durable, once, answered when it stands.

Source: acquisition.md section 8; architecture.md section 3.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mdcatch.cli import app
from mdcatch.config import MdcatchConfig
from mdcatch.orders import KIND, Orders, mailbox
from services.kit import events
from services.kit import session as sessions
from services.kit.commands import Command, Mailbox
from services.kit.errors import Code, Misuse
from services.kit.journal import Reader
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.kit.session import Session
from tests.component.test_mdcatch import write_exposure
from tests.epu_tree import FOLDER, Drive, MemoryTree, close_drives, image_xml, stem

MOVIE = f"{FOLDER}/{stem()}"
CONFIG = MdcatchConfig(raw="/raw/s", inotify=False)


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "orders")


@pytest.fixture(autouse=True)
def closed_drives() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_drives()


def ordered(drive: Drive, box: Mailbox) -> Drive:
    """Put the folder of commands before a drive's source."""
    drive.source = Orders(drive.source, box)  # type: ignore[assignment]
    drive.source.open(lambda: None)
    return drive


def waiting() -> tuple[Drive, MemoryTree]:
    """Return a drive with one exposure that waits for its metadata."""
    drive = Drive(MdcatchConfig(raw="/raw/s", inotify=False), tree := MemoryTree())
    tree.put(f"{MOVIE}_fractions.tiff", b"frames END")
    drive.run(70.0)
    assert drive.codes() == {stem(): Code.NO_METADATA}
    return drive, tree


def asked(box: Mailbox, name: str, **arguments: Any) -> Command:
    """Send a decision."""
    command = Command(id=name, kind=KIND, arguments={"movie": MOVIE, **arguments})
    box.send(command)
    return command


def test_a_decision_is_answered_when_it_stands_in_the_journal(box: Mailbox):
    drive, _ = waiting()
    asked(box, "first", ignore=True)  # nobody serves the folder yet
    drive = ordered(drive, box)
    while box.answer("first") is None:
        was_decided = MOVIE in drive.state.overrides
        drive.step()
        assert box.answer("first") is None or was_decided, "told before it was certain"
    answer = box.answer("first")
    assert answer is not None and answer.done and answer.text == f"decided: {MOVIE}"
    assert drive.codes() == {stem(): Code.IGNORED} and box.waiting() == []
    drive.run(5.0)
    assert len(drive.of(events.MovieOverridden)) == 1


def test_a_decision_survives_the_end_of_the_daemon_and_is_not_told_twice(box: Mailbox):
    drive, tree = waiting()
    drive = ordered(drive, box)
    asked(box, "one", ignore=True)
    drive.step(0.0)  # it is told and decided; the daemon ends before the answer
    drive.run(1.0)
    (box.done / "one.json").unlink(missing_ok=True)
    asked(box, "one", ignore=True)
    again = ordered(drive.restarted(CONFIG, tree), box)
    again.run(3.0)
    answer = box.answer("one")
    assert answer is not None and answer.done
    assert again.of(events.MovieOverridden) == [] and again.codes() == {stem(): Code.IGNORED}


def test_decisions_are_taken_in_the_order_of_their_sending(box: Mailbox):
    drive, _ = waiting()
    for number, ignore in enumerate((True, False, True)):
        arguments = {"movie": MOVIE, "ignore": ignore}
        command = Command(id=f"n{number}", kind=KIND, arguments=arguments, sent_at=float(number))
        box.send(command)
    drive = ordered(drive, box)
    drive.run(5.0)
    assert drive.state.overrides[MOVIE].ignore is True and box.waiting() == []
    assert [one.answer.done for one in box.exchanges()] == [True] * 3


@pytest.mark.parametrize(
    ("kind", "arguments", "wanted"),
    [
        ("movie.eat", {"movie": MOVIE}, "no command of mdcatch"),
        (KIND, {"movie": "nobody", "ignore": True}, "no exposure nobody is known"),
        (KIND, {"movie": MOVIE, "ignore": "perhaps"}, "ignore"),
        (KIND, {}, "movie"),
    ],
)
def test_what_cannot_be_done_is_answered_and_harms_nothing(
    box: Mailbox, kind: str, arguments: dict, wanted: str
):
    drive, _ = waiting()
    drive = ordered(drive, box)
    box.send(Command(id="x", kind=kind, arguments=arguments))
    (box.new / "rubbish.json").write_text("{")
    drive.run(3.0)
    answers = [box.answer("x"), box.answer("rubbish")]
    assert all(answer is not None and not answer.done for answer in answers)
    assert answers[0] is not None and wanted in answers[0].text
    assert drive.state.overrides == {}


def test_one_daemon_serves_a_project(box: Mailbox):
    drive, _ = waiting()
    drive = ordered(drive, box)
    other = Orders(Drive(CONFIG, MemoryTree()).source, box)
    with pytest.raises(Misuse, match="stop it first"):
        other.open(lambda: None)
    other.close()


# ---- the command, and a real daemon


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A project whose session has a movie twice, without metadata."""
    raw = tmp_path / "session1"
    movie, metadata = write_exposure(raw, 1)
    metadata.unlink()
    movie.with_name(f"{stem(number=1)}_Fractions.tif").write_bytes(movie.read_bytes())
    layout = Layout(tmp_path / "project")
    layout.project.mkdir()
    layout.make()
    session = Session(name="s", raw=str(raw), settle_s=0.4, poll_s=0.1, metadata_wait_s=1.0)
    sessions.save(layout, session)
    return layout


def run(layout: Layout, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["override", str(layout.project), *arguments])
    return result.exit_code, result.output


def test_the_command_reaches_a_real_daemon_and_waits_for_it_when_it_is_not_there(project: Layout):
    line = [sys.executable, "-m", "mdcatch", "--project", str(project.project)]
    daemon = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    name = stem(number=1)
    try:
        _wait(lambda: _codes(project) == {name: "NO_METADATA"})
        assert run(project, name) == (
            2,
            "nothing is decided: give --choose, --metadata, --accept or --ignore\n",
        )
        assert run(project, "nobody", "--ignore")[0] == 2
        code, text = run(project, name, "--choose", "not/there.tiff")
        assert code == 2 and "not/there.tiff is not there" in text
        code, text = run(project, name, "--ignore", "--choose", f"{name}_Fractions.tif")
        assert (code, text) == (0, f"decided: {FOLDER}/{name}\n")
        _wait(lambda: _codes(project) == {name: "IGNORED"})
    finally:
        daemon.kill()
        daemon.wait()
    code, text = run(project, name, "--no-ignore")
    assert code == 0 and text.startswith("kept: ")
    session = sessions.load(project)
    Path(session.raw, FOLDER, f"{name}.xml").write_bytes(image_xml())
    daemon = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: _codes(project) == {})
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0
    bodies = [event.body for event in Reader(project.journal("mdcatch")).read()]
    (settled,) = [body for body in bodies if isinstance(body, events.MovieSettled)]
    assert settled.path == f"{FOLDER}/{name}_Fractions.tif"
    assert mailbox(project).waiting() == [] and mailbox(project).served_by() is None


def _codes(layout: Layout) -> dict[str, str]:
    ledger = Ledger(layout)
    ledger.update()
    entries = ledger.entries["mdcatch"].items()
    found = {m.rpartition("/")[2]: e.code for m, e in entries if e.status != "done"}
    ledger.close()
    return {name: code for name, code in found.items() if code != "DUPLICATE"}


def _wait(condition, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
