"""A RELION Scheme as immutable data: variables, operators, jobs, edges and forks.

Source: schemes.md section 2.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from msgspec import Struct

UNDEFINED = "undefined"  # RELION's word for "no such argument" and "no such node"

Kind = Literal["float", "bool", "string"]


def parse_bool(text: str) -> bool | None:
    """Return the truth value that a word or number stands for, None if it is neither.

    RELION reads any word, `True` too, as false; the words are accepted here.
    """
    word = text.strip().lower()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    try:
        return float(word) != 0
    except ValueError:
        return None


class FloatVariable(Struct, frozen=True):
    """A number: its value in the file and the one that a reset restores."""

    value: float
    reset: float


class BoolVariable(Struct, frozen=True):
    """A truth value: its value in the file and the one that a reset restores."""

    value: bool
    reset: bool


class StringVariable(Struct, frozen=True):
    """A text, also used for all file names; in the file, and after a reset."""

    value: str
    reset: str


class Operator(Struct, frozen=True):
    """An operator node; its arguments are variable names, `undefined` where absent."""

    type: str
    output: str = UNDEFINED
    input1: str = UNDEFINED
    input2: str = UNDEFINED


class JobRow(Struct, frozen=True):
    """A job node: its folder in the project (bare original name before it ran), mode, flag."""

    current_name: str
    mode: str  # "new" or "continue"; RELION writes rows with other words, see Scheme.phantoms
    has_started: bool = False


class Edge(Struct, frozen=True):
    """A directed edge; a fork goes to `if_true` where the boolean variable is true."""

    source: str
    target: str
    is_fork: bool = False
    if_true: str = UNDEFINED
    boolean: str = UNDEFINED


class Block(Struct, frozen=True):
    """A STAR block that Schemes do not know; kept as it is."""

    name: str
    loop: bool
    columns: dict[str, list[str]]
    comments: list[str] = []


class Scheme(Struct, frozen=True, kw_only=True, dict=True):
    """One Scheme: the graph, and the values as they stood in the file.

    `name` is the folder with its trailing slash, `Schemes/prep/`; `current_node` is the node to
    execute next. `source` is the file it was read from, for messages. `phantoms` are rows of the
    job table that RELION adds by mistake when a path names a job that is not there; `extra` holds
    the values of columns that Schemes do not know, as block -> column -> row -> text; `notes` say
    what the loader had to mend.
    """

    name: str
    current_node: str = UNDEFINED
    floats: dict[str, FloatVariable] = {}
    bools: dict[str, BoolVariable] = {}
    strings: dict[str, StringVariable] = {}
    operators: dict[str, Operator] = {}
    jobs: dict[str, JobRow] = {}
    edges: tuple[Edge, ...] = ()
    unknown: tuple[Block, ...] = ()
    phantoms: dict[str, JobRow] = {}
    extra: dict[str, dict[str, dict[str, str]]] = {}
    notes: tuple[str, ...] = ()
    source: str = "scheme.star"

    @property
    def short_name(self) -> str:
        """Return the last part of the name: `prep` for `Schemes/prep/`."""
        return self.name.rstrip("/").rsplit("/", 1)[-1]

    @property
    def start(self) -> str:
        """Return the input node of the first edge: where a reset Scheme begins."""
        return self.edges[0].source if self.edges else UNDEFINED

    @property
    def home(self) -> str | None:
        """Return the wait node at which the machine rests: the start, if it is a wait."""
        return self.start if self.is_wait(self.start) else None

    @cached_property
    def _routes(self) -> dict[str, Edge]:
        # Where a file has two edges from one node, RELION follows the last.
        return {edge.source: edge for edge in self.edges}

    def is_wait(self, node: str) -> bool:
        """Return whether `node` is an operator of type wait."""
        operator = self.operators.get(node)
        return operator is not None and operator.type == "wait"

    def next_node(self, node: str, bools: Mapping[str, bool]) -> str:
        """Return the node that follows `node`, or `undefined`.

        Parameters
        ----------
        node
            The node that has just been executed.
        bools
            Present values of the boolean variables, which decide the forks.
        """
        edge = self._routes.get(node)
        if edge is None:
            return UNDEFINED
        # A boolean that is not there is false, as in RELION; loading refuses it in safe mode.
        return edge.if_true if edge.is_fork and bools.get(edge.boolean, False) else edge.target

    def reachable(self) -> set[str]:
        """Return every node that some path from the start or the current node visits."""
        found: set[str] = set()
        ahead = [self.start, self.current_node]
        while ahead:
            node = ahead.pop()
            if node in found or node == UNDEFINED:
                continue
            found.add(node)
            edge = self._routes.get(node)
            if edge is not None:
                ahead += [edge.target] + ([edge.if_true] if edge.is_fork else [])
        return found
