"""The terminal monitor as it looks and answers keys; `terminal` is the loop around it.

On top what the Scheme is doing; on the left the nodes with the current one; on the right one of
several panes, or a dialog; at the bottom the keys and what the last action said.
"""

from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.text import Text

from schemer import graph
from schemer.errors import ProjectError, SchemeError
from schemer.monitor import dialogs, words
from schemer.monitor.actions import Actions, attempt
from schemer.overview import JobLine, Overview

PANES = ("graph", "jobs", "variables", "options", "run.out", "run.err", "job", "job err", "story")
_FOLLOW = ("run.out", "run.err", "job", "job err", "story")  # these show their end
_COMMANDS: dict[str, Callable[[Actions, Overview], dialogs.Command]] = {
    "a": dialogs.abort,
    "r": dialogs.reset,
    "g": dialogs.restart,
    "v": dialogs.set_variable,
    "o": dialogs.set_option,
    "u": dialogs.unlock,
}
_WHILE_RUNNING, _WHILE_STOPPED = "a", "rgvo"
_KEYS = (
    ("a", "abort"), ("r", "reset"), ("g", "go: restart at"), ("v", "variable"), ("o", "option"),
    ("u", "unlock"), ("tab", "pane"), ("q", "quit"),
)  # fmt: skip
MARKS = ("▶", ">")  # of the current node, and where the terminal has only ASCII
_NARROW = 80  # below this width there is no map of the nodes beside the pane
_MAP = (22, 34)  # narrowest and widest map
_STATUS_STYLE = {"Running": "bold blue", "Succeeded": "green", "Failed": "bold red"}
# What a file says must not steer the terminal.
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), "?")
_STEPS = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10, "home": -99999, "end": 99999}


class Screen:
    """What is on the terminal.

    Parameters
    ----------
    actions, seen
        What the keys do, and what there is to be seen; `seen` is replaced as time goes on.
    """

    def __init__(self, actions: Actions, seen: Overview):
        self.actions, self.seen = actions, seen
        self.message = ""
        self.pane = 0
        self.dialog: dialogs.Dialog | None = None
        self._command: dialogs.Command | None = None
        # First line of each pane: where the person has scrolled to, and what was shown last.
        self._first: dict[str, int | None] = dict.fromkeys(PANES)
        self._shown = dict.fromkeys(PANES, 0)

    # Keys

    def press(self, key: str) -> bool:
        """Take a key; return False when the monitor is to end."""
        if self.dialog is not None:
            self._answer(self.dialog.press(key))
        elif key == "q":
            return False
        elif key in ("tab", "right", "backtab", "left"):
            step = 1 if key in ("tab", "right") else -1
            self.pane = (self.pane + step) % len(PANES)
        elif key in _STEPS:
            name = PANES[self.pane]
            self._first[name] = max(0, self._shown[name] + _STEPS[key])
        elif key in _COMMANDS:
            self._begin(key)
        return True

    def _begin(self, key: str) -> None:
        refusal = self._refusal(key)
        if refusal:
            self.message = refusal
            return
        self.message = ""
        self._command = _COMMANDS[key](self.actions, self.seen)
        self._go_on(None)

    def _refusal(self, key: str) -> str:
        """Return why a command cannot be had now; empty if it can."""
        running = self.seen.is_running
        if key in _WHILE_RUNNING and not running:
            return "It is not running, so there is nothing to abort."
        if key in _WHILE_STOPPED and running:
            return "Not while it is running: abort it first (a)."
        if key == "u" and not self.seen.relion:
            return "RELION does not lock this Scheme."
        if key in _WHILE_STOPPED and self.seen.scheme is None:
            return "scheme.star cannot be read."
        return ""

    def _answer(self, answer: object) -> None:
        if answer is dialogs.CANCEL:
            self.dialog = self._command = None
            self.message = "Left as it was."
        elif answer is not None:
            self._go_on(answer)

    def _go_on(self, answer: object) -> None:
        """Send an answer to the command; do what it returns when it has all it needs."""
        assert self._command is not None  # noqa: S101
        try:
            self.dialog = self._command.send(answer)
        except StopIteration as end:
            self.dialog = self._command = None
            self.message = attempt(end.value)
        except (SchemeError, ProjectError) as error:
            self.dialog = self._command = None
            self.message = f"Not done: {error}"

    # Looks

    def render(self, console: Console) -> RenderableType:
        """Return the whole screen for the console's present size."""
        width, height = console.size
        head = self._head()
        foot = self._foot(console, width)
        root = Layout()
        body = max(3, height - 2 - len(foot))
        root.split_column(
            Layout(Group(*head), size=2),
            Layout(name="body", size=body),
            Layout(Group(*foot), size=len(foot)),
        )
        plain = console.options.ascii_only
        if width < _NARROW:
            root["body"].update(self._right(console, width, body))
            return root
        nodes = self._map(plain)
        room = min(max(_MAP[0], *(len(line) + 4 for line in nodes), 0), _MAP[1])
        here = next((at for at, line in enumerate(nodes) if line.plain[0] != " "), 0)
        rows = body - 2
        first = max(0, min(here - rows // 2, len(nodes) - rows))
        left = Panel(Group(*nodes[first : first + rows]), title="nodes", padding=(0, 1))
        right = self._right(console, width - room, body)
        root["body"].split_row(Layout(left, size=room), Layout(right))
        return root

    def _head(self) -> list[Text]:
        seen = self.seen
        style = "bold green" if seen.is_running else "bold red"
        first = Text.assemble((f"Scheme {seen.name}  ", "bold"), (words.headline(seen), style))
        return [_line(first), _line(Text(words.whereabouts(seen)))]

    def _foot(self, console: Console, width: int) -> list[Text]:
        if self.dialog is not None:
            keys = Text(self.dialog.help, style="dim")
        else:
            keys = Text()
            for key, what in _KEYS:
                off = bool(self._refusal(key)) if key in _COMMANDS else False
                keys.append(f" {key} ", style="dim" if off else "reverse")
                keys.append(f" {what}  ", style="dim" if off else "")
        message = Text(self.message or " ", style="bold")
        return [*_wrapped(console, [message], width)[:4], *keys.wrap(console, width)]

    def _map(self, plain: bool) -> list[Text]:
        scheme = self.seen.scheme
        if scheme is None:
            return []
        statuses = {one.node: one.status for one in self.seen.jobs}
        return [
            _node_line(node, node == scheme.current_node, statuses, plain)
            for node in graph.nodes(scheme)
        ]

    def _right(self, console: Console, width: int, height: int) -> Panel:
        room, rows = max(10, width - 4), height - 2
        if self.dialog is not None:
            lines = _wrapped(console, self.dialog.lines(rows), room)[:rows]
            return Panel(
                Group(*lines), title=Text(self.dialog.title), border_style="yellow", padding=(0, 1)
            )
        name = PANES[self.pane]
        lines = _wrapped(console, self._content(name, console.options.ascii_only), room)
        last = max(0, len(lines) - rows)
        first = self._first[name]
        if first is None or (name in _FOLLOW and first >= last):
            self._first[name] = None  # nobody has scrolled, or back to the end
            first = last if name in _FOLLOW else _around_current(lines, rows)
        self._shown[name] = first = max(0, min(first, last))
        shown = lines[first : first + rows]
        more = f"{first + 1}-{first + len(shown)} of {len(lines)}" if last else ""
        return Panel(Group(*shown), title=_tabs(self.pane, room), subtitle=more, padding=(0, 1))

    def _content(self, pane: str, plain: bool) -> Sequence[Text]:
        seen = self.seen
        texts = {
            "run.out": seen.output, "run.err": seen.errors, "story": seen.story,
            "job": seen.job_output, "job err": seen.job_errors,
        }  # fmt: skip
        if pane in texts:
            style = "red" if pane.endswith("err") else ""
            of = f"{seen.job}run.{'err' if pane == 'job err' else 'out'}"
            title = [Text(of, style="bold")] if pane.startswith("job") and seen.job else []
            lines = [Text(line, style=style) for line in texts[pane]] or [Text("empty", "dim")]
            return [*title, *lines]
        if seen.scheme is None:
            return [Text(seen.problem)]
        if pane == "graph":
            return [line for node in graph.nodes(seen.scheme) for line in self._node(node, plain)]
        if pane == "jobs":
            return [_job_line(one, one.node == seen.current_node) for one in seen.jobs]
        if pane == "variables":
            return [
                Text(f"{name} = {value}" + (f"   reset: {reset}" if reset != value else ""))
                for _, name, value, reset in words.variables(seen.scheme)
            ] or [Text("none", "dim")]
        return list(self._options())

    def _node(self, node: str, plain: bool) -> list[Text]:
        """Return a node with what it does and where it leads, for the graph's pane."""
        scheme = self.seen.scheme
        assert scheme is not None  # noqa: S101
        mark, arrow = MARKS[plain], "->" if plain else "→"
        here = node == scheme.current_node
        head = Text(f"{mark if here else ' '} ")
        head.append(node, style="bold" if here else "")
        head.append(f"  {graph.what(scheme, node, self.seen.statuses)}", style="dim")
        lines = [head]
        for one in graph.exits(scheme).get(node, ()):
            now = " (now)" if one.boolean and one.taken else ""
            condition = f" if {one.condition}{now}" if one.boolean else ""
            lines.append(Text(f"    {arrow} {one.target}{condition}", style="" if now else "dim"))
        return lines

    def _options(self) -> list[Text]:
        """Return the options of every job, those that are not RELION's defaults in bold."""
        lines: list[Text] = []
        for one in self.seen.jobs:
            lines.append(Text(one.node, style="bold underline"))
            try:
                options = self.actions.options(one.node)
            except SchemeError as error:
                lines.append(Text(str(error), style="red"))
                continue
            for name, value, default in options:
                style = "bold" if value != default else "dim"
                lines.append(Text(f"  {name} = {value}", style=style))
        return lines


def _line(text: Text) -> Text:
    text.plain = text.plain.translate(_CONTROLS)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _node_line(node: str, here: bool, statuses: dict[str, str], plain: bool) -> Text:
    line = Text()
    line.append(MARKS[plain] if here else " ", style="bold yellow")
    job = node in statuses
    line.append(f" {node}", style="reverse" if here else "" if job else "dim")
    status = statuses.get(node, "")
    line.append(f" {status}", style=_STATUS_STYLE.get(status, ""))
    return _line(line)


def _job_line(one: JobLine, here: bool) -> Text:
    words = (one.mode, one.folder, "" if one.has_started else "not started")
    line = Text.assemble((one.node, "bold reverse" if here else "bold"), "  ")
    line.append(", ".join(word for word in words if word))
    return line.append(f"  {one.status}", style=_STATUS_STYLE.get(one.status, ""))


def _around_current(lines: Sequence[Text], rows: int) -> int:
    """Return the first line to show so that the marked one is among them."""
    here = next((at for at, line in enumerate(lines) if line.plain[:1] in MARKS), 0)
    return here - rows // 3


def _tabs(chosen: int, width: int) -> Text:
    """Return the panes' names with the chosen one marked: as many of its neighbours as fit."""
    first, last = chosen, chosen + 1
    room = width - 8 - len(PANES[chosen])
    while True:
        if last < len(PANES) and len(PANES[last]) + 2 <= room:
            room -= len(PANES[last]) + 2
            last += 1
        elif first > 0 and len(PANES[first - 1]) + 2 <= room:
            room -= len(PANES[first - 1]) + 2
            first -= 1
        else:
            break
    tabs = Text("< " if first else "")
    for number, name in enumerate(PANES[first:last], first):
        tabs.append(f" {name} ", style="reverse" if number == chosen else "")
    return tabs.append(" >" if last < len(PANES) else "")


def _wrapped(console: Console, lines: Sequence[Text], width: int) -> list[Text]:
    """Return lines that each fit the width."""
    wrapped: list[Text] = []
    for line in lines:
        line.plain = line.plain.translate(_CONTROLS)
        short = line.no_wrap or line.cell_len <= width
        wrapped += [_line(line)] if short else line.wrap(console, width)
    return wrapped
