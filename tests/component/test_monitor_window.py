"""The monitor as a window: real widgets on Qt's screen in memory, clicked and typed into."""

import os
import subprocess
import sys
import time

import pytest
from msgspec import structs

from schemer import starfile, store, templates
from schemer.jobs import JobFile
from schemer.monitor.actions import Actions
from schemer.overview import relion_lock
from schemer.scheme import JobRow

pytest.importorskip("PyQt5")

PATIENCE_S = 30.0
PROGRAM = """#!/bin/sh
echo "working in $1"
for i in $(seq 400); do
  [ -e "$1/RELION_JOB_ABORT_NOW" ] && exit 2
  sleep 0.05
done
"""


@pytest.fixture(scope="module", autouse=True)
def application():
    """Return Qt's application, which a process has once; it keeps its files open."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")  # noqa: S108 - Qt asks for one
    from PyQt5.QtWidgets import QApplication

    from schemer import picture
    from schemer.scheme import Scheme

    picture.draw(Scheme(name="Schemes/x/"), "png")  # matplotlib keeps fonts open
    return QApplication.instance() or QApplication(["test"])


@pytest.fixture
def root(tmp_path):
    templates.install(tmp_path, "prep")
    templates.install(tmp_path, "proc")
    yield tmp_path
    if store.running(folder_of(tmp_path)) is not None:  # a test has failed
        store.request_abort(tmp_path, folder_of(tmp_path))


@pytest.fixture
def opened(root, application):
    """Return a function that opens the window of a Scheme."""
    from schemer.monitor.window import Window

    windows = []

    def make(name="prep", *run_options):
        window = Window(root, name, Actions(root, name, run_options), 3600.0)
        window.show()
        application.processEvents()
        windows.append(window)
        return window

    yield make
    for window in windows:
        window.timer.stop()
        window.close()
        window.deleteLater()
    application.processEvents()


def folder_of(root, name="prep"):
    return root / "Schemes" / name


def click(button):
    from PyQt5.QtCore import Qt
    from PyQt5.QtTest import QTest

    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def write(field, text):
    from PyQt5.QtTest import QTest

    field.selectAll()
    QTest.keyClicks(field, text)


def answer(window, button, word):
    """Click a button and answer its question."""
    from PyQt5.QtCore import QTimer
    from PyQt5.QtWidgets import QApplication, QMessageBox

    asked = []

    def reply():
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        asked.append(box.text())
        click(box.button(getattr(QMessageBox, word)))

    QTimer.singleShot(100, reply)
    click(button)
    assert len(asked) == 1
    return asked[0]


def message(window):
    return window.statusBar().currentMessage()


def entries(menu):
    return [menu.itemText(index) for index in range(menu.count())]


def refreshed_until(window, test):
    deadline = time.monotonic() + PATIENCE_S
    while not test():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
        window.refresh()


def test_it_shows_a_stopped_scheme(opened):
    window = opened("proc")
    assert window.windowTitle() == "Scheme: proc"
    assert window.status.title() == "Currently stopped"
    assert window.headline.text() == "stopped, never run here"
    assert window.place.text() == "at WAIT"
    assert not window.abort.isEnabled() and not window.unlock.isEnabled()
    for widget in (window.reset, window.restart, window.set_option, window.set_variable):
        assert widget.isEnabled()
    assert entries(window.node)[:3] == ["the current node", "WAIT", "EXIT_maxtime"]
    assert "class2d" in entries(window.job)
    assert {"wait_sec", "do_log", "ctffind_mics"} <= {*entries(window.variable)}
    assert "do_log = True" in window.texts["variables"].toPlainText()
    assert "select_mics" in window.texts["jobs"].toPlainText()


def test_the_picture_fits_and_follows_the_current_node(root, opened):
    window = opened("proc")
    pixels = window.picture.pixmap()
    assert 400 < pixels.width() < 700 and pixels.height() > 1000
    assert window.area.verticalScrollBar().value() == 0
    store.edit(folder_of(root, "proc"), lambda one: structs.replace(one, current_node="refine3d"))
    before = pixels.toImage()
    window.refresh()
    assert window.picture.pixmap().toImage() != before
    assert window.area.verticalScrollBar().value() > 500


def test_the_whole_window_is_painted(tmp_path, opened):
    window = opened("proc")
    path = tmp_path / "window.png"
    assert window.grab().save(str(path))
    image = window.grab().toImage()
    colours = {
        image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)
    }
    assert len(colours) > 30
    assert path.stat().st_size > 20_000


def test_it_runs_aborts_and_resets(root, opened):
    program = root / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (root / "Micrographs").mkdir()
    window = opened("prep", "--executor", f"command:{program}")
    window.node.setCurrentText("importmovies")
    click(window.restart)
    assert "started at importmovies" in message(window)
    refreshed_until(window, lambda: "Import/job001/, Running" in window.place.text())
    assert window.status.title() == "Currently running"
    for widget in (window.reset, window.restart, window.set_option, window.set_variable):
        assert not widget.isEnabled()
    refreshed_until(window, lambda: "working in" in window.texts["job"].toPlainText())
    assert "began at importmovies" in window.texts["run.out"].toPlainText()
    assert "new job Import/job001/" in window.texts["story"].toPlainText()
    assert "Stop prep?" in answer(window, window.abort, "No")
    assert not (folder_of(root) / store.ABORT_NOW).exists()
    answer(window, window.abort, "Yes")
    assert "asked to abort at importmovies" in message(window)
    refreshed_until(window, lambda: "exit code 2" in message(window))
    assert window.headline.text() == "stopped: job aborted"
    assert "begins at WAIT" not in message(window)
    answer(window, window.reset, "Yes")
    assert "begins at WAIT" in message(window)
    assert window.place.text() == "at WAIT"


def test_a_job_option_is_set(root, opened):
    started = JobRow("MotionCorr/job002/", "continue", True)
    store.edit(
        folder_of(root),
        lambda one: structs.replace(one, jobs=one.jobs | {"motioncorr": started}),
    )
    path = folder_of(root) / "motioncorr" / "job.star"
    before = JobFile.load(path).options["bfactor"]
    window = opened()
    window.job.setCurrentText("motioncorr")
    window.option.setCurrentText("bfactor")
    assert window.option_value.text() == before
    write(window.option_value, "many")
    click(window.set_option)
    assert "is not a number" in message(window)
    assert window.option_value.text() == before
    write(window.option_value, "200")
    window.refresh()
    assert window.option_value.text() == "200"  # not taken from under the person's hands
    click(window.set_option)
    assert "bfactor of motioncorr is 200 now" in message(window)
    assert JobFile.load(path).options["bfactor"] == "200"
    assert not starfile.read(folder_of(root)).jobs["motioncorr"].has_started
    assert (window.job.currentText(), window.option.currentText()) == ("motioncorr", "bfactor")


def test_a_variable_is_set_with_the_enter_key(root, opened):
    from PyQt5.QtCore import Qt
    from PyQt5.QtTest import QTest

    window = opened("proc")
    window.variable.setCurrentText("min_nr_parts_3d")
    write(window.variable_value, "2500")
    QTest.keyClick(window.variable_value, Qt.Key.Key_Return)
    assert "min_nr_parts_3d is 2500 now" in message(window)
    variable = starfile.read(folder_of(root, "proc")).floats["min_nr_parts_3d"]
    assert (variable.value, variable.reset) == (2500.0, 2500.0)
    assert "min_nr_parts_3d = 2500" in window.texts["variables"].toPlainText()


def test_relions_lock_is_removed_after_a_question(root, opened):
    relion_lock(root, "prep").mkdir()
    window = opened()
    assert window.status.title() == "Currently running"
    assert window.unlock.isEnabled()
    assert "two at once" in answer(window, window.unlock, "Yes")
    assert not relion_lock(root, "prep").exists()
    assert window.status.title() == "Currently stopped"


def test_output_stays_where_somebody_reads_it(root, opened):
    out = folder_of(root) / "run.out"
    out.write_text("".join(f"line {number}\n" for number in range(500)))
    window = opened()
    bar = window.texts["run.out"].bar
    assert bar.value() == bar.maximum() > 0
    bar.setValue(7)
    out.write_text(out.read_text() + "more\n")
    window.refresh()
    assert bar.value() == 7
    bar.setValue(bar.maximum())
    out.write_text(out.read_text() + "and more\n")
    window.refresh()
    assert bar.value() == bar.maximum()


def test_a_scheme_that_cannot_be_read_is_told(root, opened):
    window = opened()
    (folder_of(root) / "scheme.star").unlink()
    window.refresh()
    assert "there is no such Scheme" in window.place.text()
    assert not window.restart.isEnabled()


# The command


def watch(root, code, **environment):
    """Run `schemer watch --gui` after some code; the environment has no display."""
    words = ["schemer", "watch", "-p", str(root), "-s", "prep", "--gui"]
    code = f"import sys; sys.argv = {words}\n{code}\nfrom schemer.cli import main; main()"
    drop = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    kept = {name: text for name, text in os.environ.items() if name not in drop}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_pyqt5_it_says_what_to_install(root):
    done = watch(root, "sys.modules['PyQt5'] = None")
    assert done.returncode == 1
    assert "pip install 'coldstream[gui]'" in done.stderr


def test_without_a_display_it_says_so(root):
    done = watch(root, "")
    assert done.returncode == 1
    assert "there is no display" in done.stderr


def test_the_command_opens_the_window_until_it_is_closed(root):
    close = (
        "from PyQt5.QtCore import QTimer; from PyQt5.QtWidgets import QApplication\n"
        "application = QApplication(['x'])\n"
        "QTimer.singleShot(1500, application.closeAllWindows)"
    )
    done = watch(root, close, QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 0, done.stderr
