"""A drawing of a Scheme's graph, as SVG or PNG, with the current node marked.

The nodes stand in one column in the order in which one meets them, each with an arrow to the next.
Jumps run along lanes at the sides, back ones on the left and forward ones on the right; jumps to
the same node share a lane. Colours are those of Okabe and Ito, and shape or line style repeats
what colour says. Lengths are in points (1/72 inch), y points down.
"""

import io
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from algorithms.formats.atomic import atomic_write
from schemer import graph
from schemer.errors import SchemeError
from schemer.graph import BOX, GAP, PILL, Exit, Jump, Layout, Place, layout
from schemer.scheme import UNDEFINED, Scheme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path as Outline

Format = Literal["svg", "png"]

INK, QUIET, FAINT, ORANGE = "#23303b", "#5b6b78", "#9aa7b2", "#E69F00"
# Kind of node -> fill, edge, radius of the corners.
FACES = {
    "job": ("#d6e8f5", "#0072B2", 8.0),
    "operator": ("#ffffff", "#23303b", 0.0),
    "clock": ("#dff2ea", "#009E73", 14.0),
    "missing": ("#fbe3d6", "#D55E00", 0.0),
    "unreached": ("#f1f3f5", "#9aa7b2", 0.0),
}
CLOCKS = ("wait", "exit", "exit_maxtime")
MARGIN, TITLE = 16.0, 34.0
FIRST_LANE, LANE = 34.0, 11.0
NARROWEST, WIDEST, NARROWEST_PAGE = 150.0, 340.0, 430.0
NAME_SIZE, TEXT_SIZE, LABEL_SIZE = 9.0, 7.5, 7.0
DPI, MAX_PIXELS = 144, 60_000  # Agg draws at most 2**16 pixels in a direction


def draw(
    scheme: Scheme,
    format: Format = "svg",
    statuses: Mapping[str, str] | None = None,
    dpi: float = DPI,
) -> bytes:
    """Return the picture of a Scheme.

    Parameters
    ----------
    scheme
        As read: its current node is marked, its booleans say which branch a fork takes now.
    format
        `svg` or `png`.
    statuses
        Process -> status of the project's pipeline, shown with the job folders.
    dpi
        Pixels per inch of a PNG.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with (
        rc_context({"font.family": "DejaVu Sans", "svg.hashsalt": "coldstream"}),
        warnings.catch_warnings(),
    ):
        # A letter that the font lacks is drawn as a box, which is plain to see.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        drawing = _Drawing(scheme, layout(scheme), statuses or {})
        figure = Figure(figsize=(drawing.width / 72, drawing.height / 72), facecolor="white")
        drawing.paint(figure.add_axes((0.0, 0.0, 1.0, 1.0)))
        content = io.BytesIO()
        metadata = {"Title": scheme.name} | ({"Date": None} if format == "svg" else {})
        dpi = min(dpi, MAX_PIXELS * 72 / max(drawing.width, drawing.height))
        figure.savefig(content, format=format, dpi=dpi, metadata=metadata)
    return content.getvalue()


def height_of(scheme: Scheme, node: str) -> float:
    """Return where a node stands in the picture: 0 is the upper end, 1 the lower."""
    plan = layout(scheme)
    tops = [place.top for place in plan.places if place.node == node]
    return (TITLE + tops[0] + BOX / 2) / _page_height(plan) if tops else 0.0


def _page_height(plan: Layout) -> float:
    return TITLE + plan.height + MARGIN + 30.0


def save(scheme: Scheme, path: Path, format: Format) -> None:
    """Write the picture to a file; SchemeError if that is not possible."""
    try:
        atomic_write(path, draw(scheme, format))
    except OSError as error:
        raise SchemeError(f"{path}: cannot be written: {error.strerror}") from None


class _Drawing:
    """Paints a layout; x 0 is the left side of the boxes until `paint` shifts it."""

    def __init__(self, scheme: Scheme, plan: Layout, statuses: Mapping[str, str]):
        self.scheme, self.plan = scheme, plan
        self.text = {p.node: graph.what(scheme, p.node, statuses) for p in plan.places}
        widths = [_width(name, NAME_SIZE, bold=True) + 46 for name in self.text]
        widths += [_width(text, TEXT_SIZE) for text in self.text.values()]
        self.box = min(WIDEST, max(NARROWEST, *widths, 0.0) + 20)
        left, right = (
            FIRST_LANE + LANE * lanes if lanes else 0.0
            for lanes in (plan.lanes("left"), plan.lanes("right"))
        )
        self.width = max(MARGIN + left + self.box + max(right, 40.0) + MARGIN, NARROWEST_PAGE)
        self.left = (self.width - left - self.box - right) / 2 + left
        self.height = _page_height(plan)

    def paint(self, axes: "Axes") -> None:
        """Put everything on the axes, which fill the page."""
        self.axes = axes
        axes.set_axis_off()
        axes.set_xlim(0.0, self.width)
        axes.set_ylim(self.height, 0.0)
        at = f"at {self.scheme.current_node}"
        self._write(MARGIN, 16.0, self.scheme.name, 11.0, weight="bold")
        self._write(MARGIN + _width(self.scheme.name, 11.0, bold=True) + 8, 16.0, at, 9.0)
        self._mark_current()
        for taken in (False, True):  # the ways taken at present lie on top
            for jump in self.plan.jumps:
                if jump.exit.taken == taken:
                    self._jump(jump)
        for place in self.plan.places:
            self._node(place)
        self._legend()

    # Nodes

    def _kind(self, node: str) -> str:
        if node in self.scheme.jobs:
            return "job"
        operator = self.scheme.operators.get(node)
        if operator is None:
            return "missing"
        return "clock" if operator.type in CLOCKS else "operator"

    def _mark_current(self) -> None:
        for place in self.plan.places:
            if place.node == self.scheme.current_node:
                radius = FACES[self._kind(place.node)][2] + 3
                x, y = self.left - 3, TITLE + place.top - 3
                self._box(x, y, self.box + 6, BOX + 6, radius, "#fdf0d0", ORANGE)

    def _node(self, place: Place) -> None:
        top, node = TITLE + place.top, place.node
        kind = self._kind(node)
        here = node == self.scheme.current_node
        fill, edge, radius = FACES[kind]
        if not place.reached:
            fill, edge, _ = FACES["unreached"]
        self._box(self.left, top, self.box, BOX, radius, fill, edge, 1.2)
        ink = INK if place.reached else QUIET
        x, room = self.left + 9, self.box - 18
        name = _cut(node, room - 40, NAME_SIZE, bold=True)
        self._write(x, top + 10, name, NAME_SIZE, color=ink, weight="bold")
        text = _cut(self.text[node], room, TEXT_SIZE)
        self._write(x, top + 22, text, TEXT_SIZE, color=ink if place.reached else QUIET)
        if here:
            x = self.left + self.box - 8
            self._write(
                x, top + 9, "current", LABEL_SIZE, ha="right", color="#7a5200", weight="bold"
            )
        if place.fork:
            self._fork(place)
        self._onward(place)

    def _pill(self, boolean: str) -> tuple[str, float]:
        """Return what stands in the pill of a fork, and how wide it is."""
        variable = self.scheme.bools.get(boolean)
        now = "missing" if variable is None else str(variable.value).lower()
        text = _cut(f"{boolean} is {now}", self.box - 60, LABEL_SIZE)
        return text, _width(text, LABEL_SIZE) + 14

    def _fork(self, place: Place) -> None:
        text, width = self._pill(place.fork)
        middle = self.left + self.box / 2
        top = TITLE + place.top + BOX
        self._box(middle - width / 2, top, width, PILL, 6.0, "#fffbe0", INK, 0.9)
        self._write(middle, top + PILL / 2, text, LABEL_SIZE, ha="center")

    def _onward(self, place: Place) -> None:
        """Draw the arrow to the next row, and say where a run ends."""
        ways = place.exits
        x, y = self.left + self.box / 2, TITLE + place.bottom
        for one in ways:
            target = next((p for p in self.plan.places[place.row + 1 : place.row + 2]), None)
            if target and one.target == target.node and place.is_before(target):
                self._arrow([(x, y), (x, y + GAP)], one)
                self._write(x + 5, y + GAP / 2 - 1, _word(one), LABEL_SIZE, color=_ink(one))
        operator = self.scheme.operators.get(place.node)
        ends = [one for one in ways if one.target == UNDEFINED]
        if not ways and place.reached and not (operator and operator.type == "exit"):
            ends = [Exit(UNDEFINED)]
        for one in ends:
            x = self.left + self.box
            y = TITLE + place.top + (BOX + PILL / 2 if one.boolean else BOX / 2)
            begin = self.left + self.box / 2 + self._pill(place.fork)[1] / 2 if one.boolean else x
            self._arrow([(begin, y), (x + 16, y)], one)
            self._write(x + 18, y, "end", LABEL_SIZE, color=_ink(one))
            self._write(x + 4, y - 5.5, _word(one), LABEL_SIZE, color=_ink(one))

    # Ways

    def _jump(self, jump: Jump) -> None:
        out = -1.0 if jump.side == "left" else 1.0
        edge = self.left if jump.side == "left" else self.left + self.box
        lane = edge + out * (FIRST_LANE + LANE * jump.lane)
        shift = 0.0
        if jump.source.fork:
            start = TITLE + jump.source.top + BOX + PILL / 2
            twins = [j for j in self.plan.jumps if j.source == jump.source and j.side == jump.side]
            if len(twins) > 1:
                # The inner lane leaves first, so that the two do not cross.
                inner = jump.lane == min(twin.lane for twin in twins)
                shift = -4.0 if inner == (jump.side == "left") else 4.0
            begin = self.left + self.box / 2
        else:
            start, begin = TITLE + jump.source.top + 0.75 * BOX, edge
        end = TITLE + jump.target.top + 0.25 * BOX
        start += shift
        self._arrow([(begin, start), (lane, start), (lane, end), (edge, end)], jump.exit)
        label = start + (5.5 if shift > 0 else -5.5)
        x = edge + out * 4
        align = "right" if out < 0 else "left"
        self._write(x, label, _word(jump.exit), LABEL_SIZE, ha=align, color=_ink(jump.exit))

    def _arrow(self, points: list[tuple[float, float]], one: Exit) -> None:
        from matplotlib.patches import FancyArrowPatch

        self.axes.add_patch(
            FancyArrowPatch(
                path=_rounded(points),
                arrowstyle="-|>",
                mutation_scale=8,
                linewidth=1.3 if one.taken else 0.9,
                linestyle="-" if one.taken else (0, (4, 2)),
                color=_ink(one),
                shrinkA=0,
                shrinkB=0,
                joinstyle="round",
            )
        )

    # Marks

    def _box(
        self, x: float, y: float, width: float, height: float, radius: float,
        fill: str, edge: str, line: float = 1.8,
    ) -> None:  # fmt: skip
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
        patch = FancyBboxPatch(
            (x, y), width, height, boxstyle=style, facecolor=fill, edgecolor=edge, linewidth=line
        )
        self.axes.add_patch(patch)

    def _write(self, x: float, y: float, text: str, size: float, **look: Any) -> None:
        look = {"color": INK, "va": "center", "parse_math": False} | look
        shown = "".join(one if one.isprintable() else "?" for one in text)  # XML has no others
        self.axes.text(x, y, shown, fontsize=size, **look)

    def _legend(self) -> None:
        x, y = MARGIN, self.height - MARGIN
        words = (("job", "job"), ("operator", "operator"), ("clock", "wait or exit"))
        for kind, text in (*words, ("unreached", "never reached")):
            fill, edge, radius = FACES[kind]
            self._box(x, y - 5, 16, 10, min(radius, 4.5), fill, edge, 1.0)
            self._write(x + 20, y, text, LABEL_SIZE, color=QUIET)
            x += 20 + _width(text, LABEL_SIZE) + 14
        for taken, text in ((True, "taken now"), (False, "not now")):
            self._arrow([(x, y), (x + 22, y)], Exit("", "", True, taken))
            self._write(x + 26, y, text, LABEL_SIZE, color=QUIET)
            x += 26 + _width(text, LABEL_SIZE) + 14


def _word(one: Exit) -> str:
    return "" if not one.boolean else "true" if one.wanted else "false"


def _ink(one: Exit) -> str:
    return INK if one.taken else FAINT


def _rounded(points: list[tuple[float, float]], radius: float = 5.0) -> "Outline":
    """Return a path along right angles with rounded corners."""
    from matplotlib.path import Path as Outline

    vertices, codes = [points[0]], [Outline.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_toward(corner, before, radius), corner, _toward(corner, after, radius)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    return Outline([*vertices, points[-1]], [*codes, Outline.LINETO])


def _toward(
    point: tuple[float, float], other: tuple[float, float], distance: float
) -> tuple[float, float]:
    dx, dy = other[0] - point[0], other[1] - point[1]
    length = max(abs(dx) + abs(dy), 1e-9)
    share = min(distance, length / 2) / length
    return point[0] + dx * share, point[1] + dy * share


@cache
def _width(text: str, size: float, bold: bool = False) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def _cut(text: str, room: float, size: float, bold: bool = False) -> str:
    """Return as much of a text as fits."""
    if _width(text, size, bold) <= room:
        return text
    fitting, too_many = 0, len(text)
    while too_many - fitting > 1:  # halves: names may be long, and each width costs
        middle = (fitting + too_many) // 2
        if _width(text[:middle] + "...", size, bold) > room:
            too_many = middle
        else:
            fitting = middle
    return text[:fitting] + "..."
