"""Small parts of the launcher's window: tables, labels and buttons that look alike."""

from collections.abc import Callable

from PyQt5.QtCore import Qt
from PyQt5.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLabel,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)


def table(columns: tuple[str, ...], wide: int = 0) -> QTableWidget:
    """Return an empty table to read, one row to choose; one column takes the room that is left."""
    table = QTableWidget(0, len(columns))
    table.setHorizontalHeaderLabels(list(columns))
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setAlternatingRowColors(True)
    table.setShowGrid(False)
    table.setWordWrap(False)
    side, head = table.verticalHeader(), table.horizontalHeader()
    if side is not None and head is not None:
        side.hide()
        side.setDefaultSectionSize(side.fontMetrics().height() + 5)
        head.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        head.setSectionResizeMode(wide, QHeaderView.ResizeMode.Stretch)
        head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft)
    return table


def put_rows(table: QTableWidget, rows: list[tuple[str, ...]]) -> None:
    """Give a table these texts; what is the same stays untouched."""
    table.blockSignals(True)
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            item = table.item(number, column)
            if item is None:
                item = QTableWidgetItem()
                table.setItem(number, column, item)
            if item.text() != text:
                item.setText(text)
                item.setToolTip(text)
    table.blockSignals(False)


def scrolled(widget: QWidget, height: int | None = None) -> QScrollArea:
    """Return a part that scrolls when it is too high."""
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    if height is not None:
        area.setFixedHeight(height)
    return area


def button(text: str, action: Callable[[], None], *, narrow: bool = False) -> QPushButton:
    """Return a button."""
    button = QPushButton(text)
    button.clicked.connect(lambda _: action())
    if narrow:
        button.setFixedWidth(34)
    return button


def narrow_menu() -> QComboBox:
    """Return a menu that does not ask for the room of its longest entry."""
    menu = QComboBox()
    menu.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    menu.setMinimumContentsLength(10)
    return menu


def label() -> QLabel:
    """Return a text that can be selected and wraps."""
    label = QLabel()
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setWordWrap(True)
    return label


def say(label: QLabel, text: str, colour: str) -> None:
    """Show a text in a colour; without a text the label takes no room."""
    if label.text() != text:
        label.setText(text)
    style = f"color: {colour}"
    if label.styleSheet() != style:
        label.setStyleSheet(style)
    label.setVisible(bool(text))
