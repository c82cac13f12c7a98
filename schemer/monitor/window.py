"""`schemer watch --gui`: the monitor as a window. The only module of schemer that needs PyQt5.

It shows what the terminal monitor shows and calls the same actions. Source: schemes.md section 18.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PyQt5.QtCore import Qt, QTimer
from PyQt5.QtGui import QFontDatabase, QPixmap
from PyQt5.QtWidgets import (
    QApplication,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMainWindow,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QSplitter,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from schemer import graph, overview, picture
from schemer.errors import SchemeError
from schemer.monitor import words
from schemer.monitor.actions import QUESTIONS, Actions, attempt
from schemer.overview import Overview
from schemer.scheme import Scheme

CURRENT = "the current node"
_DPI = 96
_GREEN, _RED = "#00694a", "#a03c00"  # dark enough to be read on grey


def watch(project: Path, name: str, actions: Actions, refresh_s: float) -> int:
    """Show the window until it is closed; return the exit code.

    Raises
    ------
    SchemeError
        There is no display to open it on.
    """
    platform = os.environ.get("QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(
        (platform, os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))
    ):
        raise SchemeError(
            "there is no display for a window (DISPLAY is not set); log in with ssh -X, or watch "
            "in the terminal without --gui"
        )
    application = QApplication.instance() or QApplication(sys.argv[:1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Qt's loop does not let Python answer Ctrl-C
    window = Window(project, name, actions, refresh_s)
    window.show()
    return application.exec()


class Window(QMainWindow):
    """The monitor of one Scheme.

    Parameters
    ----------
    project, name, actions
        The Scheme, and what the buttons do.
    refresh_s
        Seconds between looks at the files.
    """

    def __init__(self, project: Path, name: str, actions: Actions, refresh_s: float):
        super().__init__()
        self._project, self._name, self._actions = project, name, actions
        self._drawn: tuple[Any, ...] = ()
        self._followed = ""
        self._values: dict[str, str] = {}
        self.seen: Overview | None = None
        self.setWindowTitle(f"Scheme: {name}")
        self.resize(1180, 820)
        self.picture = QLabel()
        self.picture.setStyleSheet("background: white")
        self.picture.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.area = QScrollArea()
        self.area.setWidget(self.picture)
        self.area.setWidgetResizable(True)
        side = QWidget()
        column = QVBoxLayout(side)
        column.addWidget(self._status_group())
        column.addWidget(self._option_group())
        column.addWidget(self._variable_group())
        column.addWidget(self._panes(), 1)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.addWidget(self.area)
        split.addWidget(side)
        split.setSizes([600, 580])
        self.setCentralWidget(split)
        self.timer = QTimer(self)
        self.timer.timeout.connect(self.refresh)
        self.timer.start(int(refresh_s * 1000))
        self.refresh()

    # What it is made of

    def _status_group(self) -> QGroupBox:
        self.status = QGroupBox()
        self.headline, self.place = _label(), _label()
        self.abort = _button("Abort", self._abort)
        self.unlock = _button("Unlock", self._unlock)
        self.reset = _button("Reset", self._reset)
        self.restart = _button("Restart", self._restart)
        self.node = QComboBox()
        buttons = _row(self.abort, self.unlock, self.reset, self.restart, QLabel("at:"), self.node)
        column = QVBoxLayout(self.status)
        column.addWidget(self.headline)
        column.addWidget(self.place)
        column.addLayout(buttons)
        return self.status

    def _option_group(self) -> QGroupBox:
        self.option_group = QGroupBox("Set job option")
        self.job, self.option, self.option_value = QComboBox(), QComboBox(), QLineEdit()
        self.set_option = _button("Set", self._set_option)
        self.job.currentTextChanged.connect(self._job_chosen)
        self.option.currentTextChanged.connect(self._option_chosen)
        self.option_value.returnPressed.connect(self.set_option.click)
        form = QFormLayout(self.option_group)
        form.addRow("Job:", self.job)
        form.addRow("Option:", self.option)
        form.addRow("New value:", _row(self.option_value, self.set_option))
        return self.option_group

    def _variable_group(self) -> QGroupBox:
        self.variable_group = QGroupBox("Set Scheme variable")
        self.variable, self.variable_value = QComboBox(), QLineEdit()
        self.set_variable = _button("Set", self._set_variable)
        self.variable.currentTextChanged.connect(self._variable_chosen)
        self.variable_value.returnPressed.connect(self.set_variable.click)
        form = QFormLayout(self.variable_group)
        form.addRow("Variable:", self.variable)
        form.addRow("New value:", _row(self.variable_value, self.set_variable))
        return self.variable_group

    def _panes(self) -> QTabWidget:
        self.panes = QTabWidget()
        self.texts: dict[str, _Pane] = {}
        for name in ("run.out", "run.err", "job", "job err", "jobs", "variables", "story"):
            text = _Pane(follow=name not in ("jobs", "variables"))
            if name.endswith("err"):
                text.setStyleSheet(f"color: {_RED}")
            self.texts[name] = text
            self.panes.addTab(text, name)
        return self.panes

    # What it shows

    def refresh(self) -> None:
        """Look at the files and show what has changed."""
        news = self._actions.reap()
        if news:
            self._say(news)
        try:
            seen = overview.look(self._project, self._name)
        except OSError as error:
            self._say(f"{error.filename}: {error.strerror}")
            return
        self.seen = seen
        running = seen.is_running
        self.status.setTitle("Currently running" if running else "Currently stopped")
        self.status.setStyleSheet(
            f"QGroupBox::title {{ color: {_GREEN if running else _RED}; font-weight: bold }}"
        )
        self.headline.setText(words.headline(seen))
        self.place.setText(words.whereabouts(seen))
        self.abort.setEnabled(running)
        self.unlock.setEnabled(seen.relion)
        editable = not running and seen.scheme is not None
        for widget in (self.reset, self.restart, self.node, self.option_group, self.variable_group):
            widget.setEnabled(editable)
        self._show_scheme(seen)
        self._show_texts(seen)

    def _show_scheme(self, seen: Overview) -> None:
        scheme = seen.scheme
        if scheme is None:
            return
        _fill(self.node, [CURRENT, *graph.nodes(scheme)])
        _fill(self.job, [one.node for one in seen.jobs])
        _fill(self.variable, [name for _, name, _, _ in words.variables(scheme)])
        if not self.variable_value.isModified():  # the person is not writing another one
            self._variable_chosen()
        if not self.option_value.isModified():
            self._job_chosen(self.job.currentText())
        ratio = self.devicePixelRatioF()
        now = (scheme, seen.statuses, ratio)
        if now != self._drawn:
            self._drawn = now
            pixels = QPixmap()
            pixels.loadFromData(picture.draw(scheme, "png", seen.statuses, _DPI * ratio))
            pixels.setDevicePixelRatio(ratio)
            self.picture.setPixmap(pixels)
            self._follow(scheme)

    def _follow(self, scheme: Scheme) -> None:
        """Scroll to the current node, when it has become another one."""
        if scheme.current_node != self._followed:
            self._followed = scheme.current_node
            height = self.picture.sizeHint().height()
            self.picture.resize(self.picture.sizeHint())
            y = int(picture.height_of(scheme, scheme.current_node) * height)
            self.area.ensureVisible(0, y, 0, self.area.height() // 3)

    def _show_texts(self, seen: Overview) -> None:
        rows = words.variables(seen.scheme) if seen.scheme else []
        job = [f"{seen.job}run.out", *seen.job_output] if seen.job else []
        errors = [f"{seen.job}run.err", *seen.job_errors] if seen.job else []
        contents: dict[str, Sequence[str]] = {
            "run.out": seen.output,
            "run.err": seen.errors,
            "job": job,
            "job err": errors,
            "jobs": tuple(words.jobs(seen)),
            "variables": [f"{name} = {value}   reset: {reset}" for _, name, value, reset in rows],
            "story": seen.story,
        }
        for name, lines in contents.items():
            self.texts[name].put("\n".join(lines))

    def _job_chosen(self, job: str) -> None:
        try:
            options = self._actions.options(job) if job else ()
        except (SchemeError, OSError) as error:
            self._say(str(error))
            options = ()
        self._values = {one.name: one.value for one in options}
        _fill(self.option, list(self._values))
        self._option_chosen(self.option.currentText())

    def _option_chosen(self, option: str) -> None:
        self.option_value.setText(self._values.get(option, ""))

    def _variable_chosen(self, _: str = "") -> None:
        if self.seen is not None and self.seen.scheme is not None:
            rows = words.variables(self.seen.scheme)
            values = {name: value for _, name, value, _ in rows}
            self.variable_value.setText(values.get(self.variable.currentText(), ""))

    # What it does

    def _abort(self) -> None:
        self._do(self._actions.abort, "Abort")

    def _unlock(self) -> None:
        self._do(self._actions.unlock, "Unlock")

    def _reset(self) -> None:
        self._do(self._actions.reset, "Reset")

    def _restart(self) -> None:
        node = self.node.currentText()
        self._do(lambda: self._actions.restart("" if node == CURRENT else node))

    def _set_option(self) -> None:
        job, option = self.job.currentText(), self.option.currentText()
        value = self.option_value.text()
        self._do(lambda: self._actions.set_option(job, option, value))
        self._job_chosen(job)

    def _set_variable(self) -> None:
        name, value = self.variable.currentText(), self.variable_value.text()
        self._do(lambda: self._actions.set_variable(name, value))
        self._variable_chosen()  # what it is now, whatever was written

    def _do(self, action: Callable[[], str], title: str = "") -> None:
        """Do an action, if it has a title after asking, and say what came of it."""
        if title and not self._is_sure(title, QUESTIONS[title].format(name=self._name)):
            return
        self._say(attempt(action))
        self.refresh()

    def _is_sure(self, title: str, question: str) -> bool:
        box = QMessageBox(QMessageBox.Icon.Question, title, question, parent=self)
        box.addButton(QMessageBox.StandardButton.Yes)
        box.addButton(QMessageBox.StandardButton.No)
        box.setDefaultButton(QMessageBox.StandardButton.No)
        return box.exec() == QMessageBox.StandardButton.Yes

    def _say(self, text: str) -> None:
        bar = self.statusBar()
        if bar is not None:
            bar.showMessage(text)


class _Pane(QPlainTextEdit):
    """Text that is read; it stays where the person has scrolled to, or else at its end.

    Parameters
    ----------
    follow
        Whether new text at the end is scrolled into sight.
    """

    def __init__(self, follow: bool):
        super().__init__()
        self._follow = self._at_end = follow
        self._changing = False
        self.bar = QScrollBar()
        self.setVerticalScrollBar(self.bar)
        self.bar.valueChanged.connect(self._moved)
        self.bar.rangeChanged.connect(self._grown)
        self.setReadOnly(True)
        self.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))

    def put(self, text: str) -> None:
        """Replace the text."""
        if self.toPlainText() == text:
            return
        self._changing, at = True, self.bar.value()
        self.setPlainText(text)
        self.bar.setValue(self.bar.maximum() if self._at_end else at)
        self._changing = False

    def _moved(self, value: int) -> None:
        if not self._changing:
            self._at_end = self._follow and value >= self.bar.maximum()

    def _grown(self, _: int, last: int) -> None:
        if self._at_end:
            self.bar.setValue(last)


def _button(text: str, action: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda _: action())
    return button


def _label() -> QLabel:
    label = QLabel()
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setWordWrap(True)
    return label


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, 1 if isinstance(widget, (QLineEdit, QComboBox)) else 0)
    return row


def _fill(menu: QComboBox, names: list[str]) -> None:
    """Give a menu these entries and keep the choice, if it is still there."""
    if [menu.itemText(index) for index in range(menu.count())] == names:
        return
    chosen = menu.currentText()
    menu.blockSignals(True)
    menu.clear()
    menu.addItems(names)
    menu.setCurrentText(chosen if chosen in names else names[0] if names else "")
    menu.blockSignals(False)
    menu.currentTextChanged.emit(menu.currentText())
