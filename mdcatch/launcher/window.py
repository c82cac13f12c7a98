"""The launcher's window. The only module of mdcatch that needs PyQt5.

It shows the model and tells it what the person does; it decides nothing. Closing it stops nothing.
Source: architecture.md section 9.
"""

import os
import signal
import sys
import time

from PyQt5.QtCore import Qt, QTimer
from PyQt5.QtGui import QCloseEvent, QColor
from PyQt5.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMainWindow,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from mdcatch.launch.checks import PICKER_NAMES, Doubt
from mdcatch.launcher.form import ENTRIES, PIPELINES, Entry
from mdcatch.launcher.model import Model
from mdcatch.launcher.rows import UNKNOWN, Row
from mdcatch.launcher.widgets import button, label, narrow_menu, put_rows, say, scrolled, table
from services.kit.errors import Misuse

TICK_MS = 250
_RED, _AMBER, _GREEN, _GREY = "#a3210f", "#8a5a00", "#00694a", "#5f6368"
_COLOURS = {"error": _RED, "warning": _AMBER}
_SESSION_COLUMNS = ("Session", "Exposures", "Started", "State")
_VALUE_COLUMNS = ("Newest exposure", "Value", "Unit", "Source")
_SYMMETRIES = ("C1", "C2", "C3", "C4", "D2", "D3", "D7", "T", "O", "I")


def show(model: Model) -> int:
    """Show the window until it is closed; return the exit code.

    Raises
    ------
    Misuse
        There is no display to open it on.
    """
    given = any(os.environ.get(name) for name in ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform == "linux" and not given:
        raise Misuse(
            "there is no display for a window (DISPLAY is not set): log in with ssh -X, or open "
            "the session with `coldstream session open`"
        )
    application = QApplication.instance() or QApplication(sys.argv[:1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Qt's loop does not let Python answer Ctrl-C
    window = Window(model)
    window.show()
    return application.exec()


class Window(QMainWindow):
    """The launcher.

    Parameters
    ----------
    model
        What is shown and what is told.
    tick_ms
        Between two looks for news.
    """

    def __init__(self, model: Model, tick_ms: int = TICK_MS):
        super().__init__()
        self.model = model
        self.setWindowTitle("coldstream launcher")
        self.resize(1220, 800)
        self.setMinimumSize(980, 620)
        self.fields: dict[str, QLineEdit | QComboBox | QCheckBox] = {}
        self.notes: dict[str, QLabel] = {}
        self._filling = False
        split = QSplitter(Qt.Orientation.Horizontal)
        split.addWidget(self._session_side())
        split.addWidget(self._form_side())
        split.setSizes([560, 660])
        split.setChildrenCollapsible(False)
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.addWidget(split, 1)
        column.addLayout(self._foot())
        self.setCentralWidget(whole)
        self.timer = QTimer(self)
        self.timer.timeout.connect(self.tick)
        self.timer.start(tick_ms)
        self._fill_form()
        self.refresh()

    # What it is made of

    def _session_side(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        self.sessions = table(_SESSION_COLUMNS)
        self.sessions.itemSelectionChanged.connect(self._session_chosen)
        self.values = table(_VALUE_COLUMNS, wide=1)
        self.values.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.again = button("Look again", self._look_again)
        self.other = button("Other folder ...", self._other_folder)
        self.sessions_note = label()
        row = QHBoxLayout()
        row.addWidget(self.sessions_note, 1)
        row.addStretch()
        row.addWidget(self.again)
        row.addWidget(self.other)
        column.addWidget(QLabel("<b>Sessions found</b>"))
        column.addWidget(self.sessions, 2)
        column.addLayout(row)
        column.addWidget(self.values, 5)
        return side

    def _form_side(self) -> QWidget:
        inner = QWidget()
        grid = QGridLayout(inner)
        grid.setColumnStretch(1, 1)
        grid.setVerticalSpacing(3)
        for number, entry in enumerate(ENTRIES):
            field = self._field(entry)
            note = label()
            self.fields[entry.field], self.notes[entry.field] = field, note
            unit = f" ({entry.unit})" if entry.unit else ""
            grid.addWidget(QLabel(f"{entry.label}{unit}"), 2 * number, 0)
            grid.addLayout(self._with_button(entry, field), 2 * number, 1)
            grid.addWidget(note, 2 * number + 1, 1)
        group = QGroupBox("Processing")
        column = QVBoxLayout(group)
        column.addWidget(inner)
        column.addStretch(1)
        self.boxes = QLabel()
        self.boxes.setTextFormat(Qt.TextFormat.RichText)
        sizes = QGroupBox("Boxes")
        QVBoxLayout(sizes).addWidget(self.boxes)
        self.warnings = label()
        self.warnings.setAlignment(Qt.AlignmentFlag.AlignTop)
        remarks = QGroupBox("Remarks")
        QVBoxLayout(remarks).addWidget(scrolled(self.warnings))
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(scrolled(group), 4)
        column.addWidget(sizes)
        column.addWidget(remarks, 1)
        return side

    def _field(self, entry: Entry) -> QLineEdit | QComboBox | QCheckBox:
        name = entry.field
        if entry.kind == "switch":
            switch = QCheckBox(entry.hint)
            switch.toggled.connect(lambda on: self._put(name, "yes" if on else "no"))
            return switch
        pipelines = {key: choice.title for key, choice in PIPELINES.items()}
        choices = {"picker": PICKER_NAMES, "pipeline": pipelines}.get(name)
        if choices is not None:
            menu = narrow_menu()
            for value, title in choices.items():
                menu.addItem(title, value)
            menu.currentIndexChanged.connect(lambda _: self._put(name, menu.currentData()))
            return menu
        if name == "symmetry":
            menu = narrow_menu()
            menu.setEditable(True)
            menu.addItems(_SYMMETRIES)
            menu.currentTextChanged.connect(lambda text: self._put(name, text))
            return menu
        line = QLineEdit()
        line.setPlaceholderText(entry.hint)
        line.textChanged.connect(lambda text: self._put(name, text))
        return line

    def _with_button(self, entry: Entry, field: QWidget) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addWidget(field, 1)
        if entry.kind in ("path", "folder"):
            row.addWidget(button("...", lambda: self._browse(entry), narrow=True))
        return row

    def _foot(self) -> QHBoxLayout:
        self.connection, self.message = label(), label()
        self.connection.setWordWrap(False)
        self.go = button("Go", self._go)
        self.go.setMinimumSize(120, 40)
        self.go.setStyleSheet("font-weight: bold")
        self.why = label()
        self.why.setStyleSheet(f"color: {_GREY}")
        self.why.setWordWrap(False)
        texts = QVBoxLayout()
        texts.addWidget(self.message)
        texts.addWidget(self.connection)
        foot = QHBoxLayout()
        foot.addLayout(texts, 1)
        foot.addWidget(self.why)
        foot.addWidget(self.go)
        return foot

    # What it shows

    def tick(self) -> None:
        """Let the model take up what is new, and show it."""
        if self.model.tick(time.monotonic()):
            self.refresh()
        self._show_foot()

    def refresh(self) -> None:
        """Show everything as the model has it."""
        self._show_sessions()
        self._show_values()
        self._show_doubts()
        self._show_foot()

    def _show_sessions(self) -> None:
        model, shown = self.model, self.sessions
        rows = [
            (
                one.name,
                str(one.exposures or ""),
                _moment(one.started),
                _state(model.project_of(one), one.state),
            )
            for one in model.found
        ]
        put_rows(shown, rows)
        for number, one in enumerate(model.found):
            item = shown.item(number, 0)
            if item is not None:
                item.setToolTip(one.raw)
        chosen = model.chosen.raw if model.chosen is not None else ""
        at = next((n for n, one in enumerate(model.found) if one.raw == chosen), -1)
        if shown.currentRow() != at:
            shown.blockSignals(True)
            shown.setCurrentCell(at, 0) if at >= 0 else shown.clearSelection()
            shown.blockSignals(False)
        count = len(model.found)
        note = model.sessions_problem or ("" if count else "No session was found yet.")
        say(self.sessions_note, note, _AMBER if model.sessions_problem else _GREY)

    def _show_values(self) -> None:
        rows: list[Row] = self.model.measured()
        put_rows(self.values, [tuple(row) for row in rows])
        for number, row in enumerate(rows):
            item = self.values.item(number, 1)
            if item is not None:
                item.setForeground(QColor(_RED if row.value == UNKNOWN else "black"))

    def _show_doubts(self) -> None:
        model = self.model
        for field, note in self.notes.items():
            found = model.doubts_of(field)
            say(note, "\n".join(doubt.text for doubt in found), _colour(found))
        lines = [_html(doubt) for doubt in model.other_doubts()]
        self.warnings.setText("<br>".join(lines))
        self._show_boxes(model.boxes())
        self.fields["picker_model"].setEnabled(model.texts["picker"] != "log")
        gain = self.fields["gain"]
        if isinstance(gain, QLineEdit):
            known = model.known.files.gain if model.known is not None else None
            found = "" if model.texts["gain"] or known is None else f"found: {known}"
            gain.setPlaceholderText(found or "Empty: as found.")

    def _show_boxes(self, rows: list[Row]) -> None:
        if not rows:
            self.boxes.setText(
                f'<span style="color: {_GREY}">They follow from the diameter.</span>'
            )
            return
        cells = (
            f'<td align="right">{row.name}&nbsp;</td><td><b>{row.value}</b></td>'
            f"<td>&nbsp;{row.unit}</td>"
            for row in rows
        )
        self.boxes.setText("<table>" + "".join(f"<tr>{one}</tr>" for one in cells) + "</table>")

    def _show_foot(self) -> None:
        line = self.model.line
        colour = _GREEN if line.served else _AMBER
        say(self.connection, f"\u25cf {line.text}", colour)
        bad = self.model.message.startswith("Not ")
        say(self.message, self.model.message, _RED if bad else "black")
        self.go.setEnabled(self.model.can_go)
        say(self.why, self.model.why_not_go, _GREY)

    def _fill_form(self) -> None:
        """Show the model's texts in the fields."""
        self._filling = True
        for name, field in self.fields.items():
            text = self.model.texts[name]
            if isinstance(field, QCheckBox):
                field.setChecked(text == "yes")
            elif isinstance(field, QLineEdit):
                field.setText(text)
            elif name == "symmetry":
                field.setCurrentText(text)
            else:
                field.setCurrentIndex(max(0, field.findData(text)))
        self._filling = False

    # What it does

    def _put(self, name: str, text: str) -> None:
        if not self._filling:
            self.model.put(name, text)
            self._show_doubts()
            self._show_values()
            self._show_foot()

    def _session_chosen(self) -> None:
        at = self.sessions.currentRow()
        if 0 <= at < len(self.model.found):
            self._choose(self.model.found[at].raw)

    def _choose(self, raw: str) -> None:
        self.model.choose(raw)
        self._fill_form()
        self.refresh()

    def _look_again(self) -> None:
        self.model.look_again()

    def _other_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "The session's folder")
        if folder:
            self._choose(folder)

    def _browse(self, entry: Entry) -> None:
        field = self.fields[entry.field]
        if not isinstance(field, QLineEdit):
            return
        if entry.kind == "folder":
            path, _ = QFileDialog.getSaveFileName(self, entry.label, field.text())
        else:
            path, _ = QFileDialog.getOpenFileName(self, entry.label, field.text())
        if path:
            field.setText(path)

    def _go(self) -> None:
        self.model.go()
        self.refresh()

    def closeEvent(self, a0: QCloseEvent | None) -> None:
        """End what looks; commands and sessions go on."""
        self.timer.stop()
        self.model.close()
        super().closeEvent(a0)


def _colour(doubts: list[Doubt]) -> str:
    return _COLOURS[doubts[0].level] if doubts else _GREY


def _html(doubt: Doubt) -> str:
    text = doubt.text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<span style="color: {_COLOURS[doubt.level]}">{text}</span>'


def _moment(started: str) -> str:
    """Return a time stamp without its seconds and zone."""
    return started.replace("T", " ")[:16]


def _state(project: str, state: str) -> str:
    if project:
        return f"in {project.rpartition('/')[2]}"
    return "new" if state in ("", "acquired") else state
