"""A Scheme's graph as a person reads it: nodes in order, the ways out of each, places on a page.

Lengths are in points (1/72 inch), y points down. Source: schemes.md sections 2 and 3.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, structs

from schemer.scheme import UNDEFINED, Edge, Scheme

BOX, PILL, GAP = 30.0, 15.0, 17.0  # heights of a node's box, of a fork's pill below it, of arrows


class Exit(Struct, frozen=True):
    """A way out of a node: `wanted` is the value of `boolean` that takes it.

    `boolean` is empty for a plain edge. `taken` says that the boolean has that value at present.
    A target `undefined` ends the run.
    """

    target: str
    boolean: str = ""
    wanted: bool = True
    taken: bool = True

    @property
    def condition(self) -> str:
        """Return the condition in words: `has_ctffind`, `not has_ctffind`, or nothing."""
        return self.boolean if self.wanted or not self.boolean else f"not {self.boolean}"


def exits(scheme: Scheme) -> dict[str, tuple[Exit, ...]]:
    """Return node -> its ways out, the one for true first; a node without any ends the run."""
    return {edge.source: _exits(scheme, edge) for edge in scheme.edges}  # the last edge counts


def _exits(scheme: Scheme, edge: Edge) -> tuple[Exit, ...]:
    if not edge.is_fork or edge.if_true == edge.target:
        return (Exit(edge.target),)
    variable = scheme.bools.get(edge.boolean)
    now = variable is not None and variable.value
    return (
        Exit(edge.if_true, edge.boolean, True, now),
        Exit(edge.target, edge.boolean, False, not now),
    )


def order(scheme: Scheme) -> tuple[list[str], list[str]]:
    """Return the nodes as one meets them from the start, and those that no path visits."""
    ways = exits(scheme)
    found: dict[str, None] = {}
    ahead = [scheme.current_node, scheme.start]
    while ahead:
        node = ahead.pop()
        if node == UNDEFINED or node in found:
            continue
        found[node] = None
        ahead += [one.target for one in reversed(ways.get(node, ()))]
    rest = sorted({*scheme.operators, *scheme.jobs} - found.keys())
    return list(found), rest


def nodes(scheme: Scheme) -> list[str]:
    """Return the nodes that there are, in this order."""
    found, rest = order(scheme)
    return [one for one in (*found, *rest) if one in scheme.operators or one in scheme.jobs]


def what(scheme: Scheme, node: str, statuses: Mapping[str, str] | None = None) -> str:
    """Return what a node is: an operator with its arguments, or a job with its folder.

    Parameters
    ----------
    scheme, node
        The node need not exist: an edge may name one that does not.
    statuses
        Process -> status of the project's pipeline, to be said with a job's folder.
    """
    if node in scheme.jobs:
        row = scheme.jobs[node]
        folder = row.current_name if row.current_name != node else ""
        status = (statuses or {}).get(folder, "")
        words = ("job", row.mode, folder, "" if row.has_started else "not started", status)
        return ", ".join(word for word in words if word)
    operator = scheme.operators.get(node)
    if operator is None:
        return "neither an operator nor a job"
    inputs = ", ".join(name for name in (operator.input1, operator.input2) if name != UNDEFINED)
    output = "" if operator.output == UNDEFINED else f"-> {operator.output}"
    return " ".join(word for word in (operator.type, inputs, output) if word)


class Place(Struct, frozen=True):
    """Where a node stands: the top of its box, and of the pill below it where it is a fork."""

    node: str
    row: int
    top: float
    exits: tuple[Exit, ...] = ()
    reached: bool = True

    @property
    def fork(self) -> str:
        """Return the boolean on which the ways part; empty where they do not."""
        return self.exits[0].boolean if self.exits else ""

    @property
    def bottom(self) -> float:
        """Return where the straight arrow leaves."""
        return self.top + BOX + (PILL if self.fork else 0.0)

    def is_before(self, other: "Place") -> bool:
        """Return whether the other stands directly below, in the same column."""
        return other.row == self.row + 1 and other.reached == self.reached


class Jump(Struct, frozen=True):
    """A way that is not the one to the next row; lane 0 is the nearest to the nodes."""

    source: Place
    target: Place
    exit: Exit
    side: Literal["left", "right"]
    lane: int = 0


class Layout(Struct, frozen=True):
    """All places from top to bottom, and the jumps between them."""

    places: tuple[Place, ...]
    jumps: tuple[Jump, ...]

    @property
    def height(self) -> float:
        """Return the lower end of the last place."""
        return self.places[-1].bottom if self.places else 0.0

    def lanes(self, side: str) -> int:
        """Return how many lanes a side needs."""
        return max((jump.lane + 1 for jump in self.jumps if jump.side == side), default=0)


def layout(scheme: Scheme) -> Layout:
    """Return where everything stands."""
    ways = exits(scheme)
    reached, rest = order(scheme)
    places: dict[str, Place] = {}
    top = 0.0
    for row, node in enumerate((*reached, *rest)):
        top += GAP if row == len(reached) else 0.0
        known = row < len(reached)
        out = ways.get(node, ())
        out = out if known else tuple(structs.replace(one, taken=False) for one in out)
        places[node] = Place(node, row, top, out, known)
        top = places[node].bottom + GAP
    jumps = [
        Jump(place, target, one, "left" if target.row <= place.row else "right")
        for place in places.values()
        for one in place.exits
        if (target := places.get(one.target)) and not place.is_before(target)
    ]
    return Layout(tuple(places.values()), _with_lanes(jumps))


def _with_lanes(jumps: list[Jump]) -> tuple[Jump, ...]:
    """Give short jumps the inner lanes; jumps to one node share theirs."""
    groups: dict[tuple[str, str], list[Jump]] = {}
    for jump in jumps:
        groups.setdefault((jump.side, jump.target.node), []).append(jump)
    spans = []
    for (side, _), group in groups.items():
        rows = [row for jump in group for row in (jump.source.row, jump.target.row)]
        spans.append((max(rows) - min(rows), min(rows), max(rows), side, group))
    taken: list[tuple[str, int, int, int]] = []
    done: list[Jump] = []
    for _, first, last, side, group in sorted(spans, key=lambda span: span[:4]):
        used = {lane for s, a, b, lane in taken if s == side and a <= last and first <= b}
        lane = next(number for number in range(len(used) + 1) if number not in used)
        taken.append((side, first, last, lane))
        done += [Jump(one.source, one.target, one.exit, one.side, lane) for one in group]
    return tuple(done)
