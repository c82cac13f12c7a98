"""The launcher's window: real widgets, real programs behind it, clicked and typed into."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdcatch.launch.look import Query
from mdcatch.launch.survey import query
from mdcatch.launcher.model import Model
from mdcatch.launcher.remote import Remote
from services.kit import site as sites
from services.kit.commands import Inbox, Mailbox, Reply
from tests.launching import session

pytest.importorskip("PyQt5")

PATIENCE_S = 30.0
CONFIG = """
[defaults]
projects = "{projects}"
[[microscopes]]
id = "3299"
name = "Krios1"
spherical_aberration_mm = 2.7
"""


@pytest.fixture(scope="module", autouse=True)
def application():
    """Return Qt's application, which a process has once; it keeps its files open."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")  # noqa: S108 - Qt asks for one
    from PyQt5.QtWidgets import QApplication

    return QApplication.instance() or QApplication(["test"])


class Listed:
    """Lists sessions as `mdcatch sessions --json` does, from a file."""

    def __init__(self, path: Path):
        self.path = path

    def start(self) -> Query:
        return Query([sys.executable, "-c", f"print(open({str(self.path)!r}).read())"])


@pytest.fixture
def place(tmp_path):
    """Make a site: a session with an exposure, an empty one, a folder for projects."""
    raw = session(tmp_path / "raw" / "20261120_apo")
    empty = tmp_path / "raw" / "20261121_empty"
    empty.mkdir()
    (tmp_path / "projects").mkdir()
    (tmp_path / "site.toml").write_text(CONFIG.format(projects=tmp_path / "projects"))
    rows = [
        {"name": raw.name, "raw": str(raw), "exposures": 1, "started": "2026-11-20T10:15:02+01:00"},
        {"name": empty.name, "raw": str(empty), "exposures": 0, "started": None},
    ]
    (tmp_path / "sessions.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture
def window(place, application):
    from mdcatch.launcher.window import Window

    config = place / "site.toml"
    model = Model(
        sites.load(config),
        Listed(place / "sessions.json"),
        lambda asked: query(asked, config),
        Remote(Mailbox(place / "state" / "commands")),
    )
    made = Window(model, tick_ms=20)
    made.show()
    application.processEvents()
    yield made
    made.close()
    made.deleteLater()
    application.processEvents()


def until(test):
    """Let Qt work until a test is true."""
    from PyQt5.QtWidgets import QApplication

    deadline = time.monotonic() + PATIENCE_S
    while not test():
        assert time.monotonic() < deadline, "it did not happen"
        QApplication.processEvents()
        time.sleep(0.01)


def click(button):
    from PyQt5.QtCore import Qt
    from PyQt5.QtTest import QTest

    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def write(field, text):
    from PyQt5.QtTest import QTest

    field.selectAll()
    QTest.keyClicks(field, text)


def cells(table):
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def pick(window, row=0):
    """Click on a session and wait until its newest exposure was looked at."""
    from PyQt5.QtCore import Qt
    from PyQt5.QtTest import QTest

    until(lambda: window.sessions.rowCount() == 2)
    at = window.sessions.visualItemRect(window.sessions.item(row, 0)).center()
    QTest.mouseClick(window.sessions.viewport(), Qt.MouseButton.LeftButton, pos=at)
    until(lambda: "Looking" not in window.model.why_not_go)


def choose(menu, text):
    menu.setCurrentIndex(menu.findText(text))


def test_it_lists_sessions_and_shows_what_was_parsed(window):
    assert not window.go.isEnabled() and window.why.text() == "Choose a session."
    pick(window)
    assert cells(window.sessions) == [
        ["20261120_apo", "1", "2026-11-20 10:15", "new"],
        ["20261121_empty", "", "", "new"],
    ]
    rows = {row[0]: row[1:] for row in cells(window.values)}
    assert rows["voltage"] == ["300", "kV", "xml"]
    assert rows["spherical aberration"] == ["2.7", "mm", "site"]
    assert rows["size of the movie"] == ["64 x 48", "px", "header"]
    assert rows["frames"] == ["4", "", "header"]
    assert window.fields["gain"].placeholderText().endswith("_gain.tiff")
    assert window.fields["project"].text().endswith("/projects/20261120_apo")
    assert window.go.isEnabled()


def test_boxes_and_checks_follow_the_keys(window):
    from PyQt5.QtTest import QTest

    pick(window)
    field = window.fields["particle_diameter_A"]
    assert "follow from the diameter" in window.boxes.text()
    write(field, "20")
    assert "<b>30 px</b>" in window.boxes.text()
    QTest.keyClicks(field, "0")  # 200 A on a micrograph of 48 A
    note = window.notes["particle_diameter_A"]
    assert note.isVisible() and "larger than the micrograph (48 px)" in note.text()
    assert not window.go.isEnabled() and window.why.text() == "1 thing to correct."
    QTest.keyClicks(field, "x")
    assert note.text() == "'200x' is not a number"
    write(field, "20")
    assert not note.isVisible() and note.text() == ""
    window.fields["symmetry"].setCurrentText("X1")
    assert "point group" in window.notes["symmetry"].text()
    window.fields["symmetry"].setCurrentText("D2")
    choose(window.fields["picker"], "crYOLO")
    assert "Laplacian of Gaussian" in window.notes["picker"].text()
    assert window.fields["picker_model"].isEnabled()
    window.fields["helical"].setChecked(True)
    assert "choose relion" in window.notes["helical"].text()


def test_an_override_changes_the_values(window):
    pick(window)
    write(window.fields["pixel_size_A"], "0.8")
    rows = {row[0]: row[1:] for row in cells(window.values)}
    assert rows["pixel of the movies"] == ["0.8", "A", "operator"]
    write(window.fields["gain"], "/no/such.mrc")
    until(lambda: "/no/such.mrc is not a file" in window.notes["gain"].text())
    assert not window.go.isEnabled()


def test_a_session_without_exposures_waits(window):
    pick(window, 1)
    choose(window.fields["pipeline"], "Scipion")
    write(window.fields["particle_diameter_A"], "20")
    until(lambda: "wait for the first one" in window.warnings.text())
    assert not window.go.isEnabled()


def test_go_is_kept_and_done_when_a_daemon_comes(window, place):
    pick(window)
    write(window.fields["particle_diameter_A"], "20")
    choose(window.fields["pipeline"], "Scipion")
    until(window.go.isEnabled)
    assert "no daemon runs" in window.connection.text()
    click(window.go)
    assert "1 command kept" in window.connection.text()
    assert "sent" in window.message.text() and not window.go.isEnabled()
    click(window.go)
    box = Mailbox(place / "state" / "commands")
    (waiting,) = box.waiting()
    command = box.command(waiting)
    assert command is not None and command.arguments["pipeline"] == "scipion"
    # A real daemon comes.
    code = "from mdcatch.launch.cli import session_app; session_app()"
    words = ["serve", "--state", place / "state", "--config", place / "site.toml"]
    daemon = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        until(lambda: "scipion session in" in window.message.text())
        assert window.connection.text().endswith("connected")
        until(lambda: cells(window.sessions)[0][3] == "in 20261120_apo")
        assert (place / "projects" / "20261120_apo" / "20261120_apo.json").is_file()
        until(lambda: window.why.text() == "Opened.")
    finally:
        daemon.terminate()
        daemon.wait()
    until(lambda: "reconnecting" in window.connection.text())


def test_closing_stops_nothing(window, place):
    pick(window)
    write(window.fields["particle_diameter_A"], "20")
    until(window.go.isEnabled)
    click(window.go)
    window.close()
    assert not window.timer.isActive()
    box = Mailbox(place / "state" / "commands")
    assert len(box.waiting()) == 1
    with Inbox(box, lambda command, attempt: Reply("done")) as inbox:
        (answer,) = inbox.turn()
    assert answer.text == "done"


def test_a_refusal_is_red_and_can_be_corrected(window, place):
    pick(window)
    write(window.fields["particle_diameter_A"], "20")
    until(window.go.isEnabled)
    click(window.go)
    from services.kit.errors import Misuse

    def refuse(command, attempt):
        raise Misuse("not opened: no room")

    with Inbox(Mailbox(place / "state" / "commands"), refuse) as inbox:
        inbox.turn()
    until(lambda: "Not done: not opened: no room" in window.message.text())
    assert "#a3210f" in window.message.styleSheet()
    until(window.go.isEnabled)


def test_the_list_that_cannot_be_had_is_told(window, place):
    pick(window)
    (place / "sessions.json").write_text("nonsense")
    click(window.again)
    until(lambda: "no JSON" in window.sessions_note.text())
    assert window.sessions.rowCount() == 2


def test_a_folder_of_ones_own(window, place, monkeypatch):
    from PyQt5.QtWidgets import QFileDialog

    mine = session(place / "mine")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(mine))
    until(lambda: window.sessions.rowCount() == 2)
    click(window.other)
    until(lambda: len(cells(window.values)) > 5)
    assert cells(window.sessions)[0][0] == "mine"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("/somewhere/else", ""))
    from PyQt5.QtWidgets import QPushButton

    field = window.fields["project"]
    browse = next(
        one for one in field.parent().findChildren(QPushButton) if one.y() == field.y() or
        abs(one.geometry().center().y() - field.geometry().center().y()) < 5
    )  # fmt: skip
    click(browse)
    assert field.text() == "/somewhere/else"


def test_the_whole_window_is_painted(window, tmp_path):
    pick(window)
    write(window.fields["particle_diameter_A"], "20")
    image = window.grab().toImage()
    colours = {
        image.pixel(x, y) for x in range(0, image.width(), 5) for y in range(0, image.height(), 5)
    }
    assert len(colours) > 20
    assert window.grab().save(str(tmp_path / "window.png"))


def launcher(*words, **variables):
    """Run `mdcatch launcher` as a command of its own."""
    code = (
        "import typer, sys\n"
        "from mdcatch.launcher.cli import launcher\n"
        "app = typer.Typer(add_completion=False)\n"
        "app.command()(launcher)\n"
        "app()"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "QT_QPA_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **variables},
    )


def test_without_a_display_it_says_what_to_do(place):
    done = launcher("--state", place / "state", WAYLAND_DISPLAY="")
    assert done.returncode == 2 and "coldstream session open" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_pyqt5_it_says_what_to_install(place):
    blocked = place / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys; sys.modules['PyQt5'] = None\n")
    root = str(Path(__file__).parents[2])
    done = launcher("--state", place / "state", PYTHONPATH=f"{blocked}{os.pathsep}{root}")
    assert done.returncode == 2 and "pip install" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb")
def test_in_a_real_window(place):
    """The same in a window of an X server, painted by its own Qt; the picture is kept."""
    picture = place / "screen.png"
    script = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from PyQt5.QtWidgets import QApplication
from mdcatch.launch.survey import query
from mdcatch.launcher.model import Model
from mdcatch.launcher.remote import Remote
from mdcatch.launcher.window import Window
from services.kit import site as sites
from services.kit.commands import Mailbox
from tests.component.test_launcher_window import Listed
place = Path({str(place)!r})
application = QApplication(["test"])
config = place / "site.toml"
window = Window(Model(sites.load(config), Listed(place / "sessions.json"),
    lambda asked: query(asked, config), Remote(Mailbox(place / "state" / "commands"))), 50)
window.show()
deadline = time.monotonic() + 40
while time.monotonic() < deadline and not window.go.isEnabled():
    application.processEvents()
    time.sleep(0.02)
    if window.sessions.rowCount() and window.model.chosen is None:
        window.sessions.setCurrentCell(0, 0)
        window.fields["particle_diameter_A"].setText("20")
application.processEvents()
application.primaryScreen().grabWindow(0).save({str(picture)!r})
print(application.platformName(), window.go.isEnabled(), flush=True)
window.close()
"""
    read_end, write_end = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1280x900x24", "-nolisten", "tcp"],
        pass_fds=(write_end,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as display:
            number = display.readline().strip()
        variables = {k: v for k, v in os.environ.items() if k != "QT_QPA_PLATFORM"}
        runtime = place / "runtime"
        runtime.mkdir(mode=0o700)
        variables |= {"DISPLAY": f":{number}", "XDG_RUNTIME_DIR": str(runtime)}
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env=variables,
            timeout=90,
        )
    finally:
        server.terminate()
        server.wait()
    if "could not connect" in done.stderr or "platform plugin" in done.stderr:
        pytest.skip("Qt's xcb plugin is not complete here")
    assert done.stdout.split() == ["xcb", "True"], done.stderr
    assert picture.stat().st_size > 15_000
