"""Questions to the person at a terminal: yes or no, one of a list, a line of text.

A dialog takes keys and has its answer at some time; `CANCEL` is the answer to Escape. A command is
a generator that yields dialogs and is sent their answers; it returns what is to be done.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from rich.text import Text

from schemer import graph
from schemer.monitor import words
from schemer.monitor.actions import QUESTIONS, Actions
from schemer.overview import Overview

CANCEL = object()
Doing = Callable[[], str]


class Dialog(Protocol):
    """A question on the screen."""

    title: str
    help: str

    def press(self, key: str) -> object:
        """Take a key; return the answer, or None while there is none."""
        ...

    def lines(self, height: int) -> list[Text]:
        """Return what is shown in at most so many lines."""
        ...


Command = Generator[Dialog, Any, Doing]


class Confirm:
    """A question that only `y` answers with yes."""

    help = "y yes, any other key no"

    def __init__(self, title: str, question: str):
        self.title, self._question = title, question

    def press(self, key: str) -> object:
        """Return True for yes, CANCEL for all other keys."""
        return True if key in ("y", "Y") else CANCEL

    def lines(self, height: int) -> list[Text]:
        """Return the question."""
        return [Text(self._question, overflow="fold"), Text(), Text("y / n", style="bold")]


class Pick:
    """A list of (answer, line) to choose from; typing narrows it down."""

    help = "up down choose, type to find, enter take, escape leave"

    def __init__(self, title: str, items: Sequence[tuple[str, str]], chosen: str = ""):
        self.title, self._items, self._find = title, list(items), ""
        answers = [answer for answer, _ in self._items]
        self._at = answers.index(chosen) if chosen in answers else 0

    def _shown(self) -> list[tuple[str, str]]:
        word = self._find.lower()
        return [item for item in self._items if word in item[1].lower()]

    def press(self, key: str) -> object:
        """Return the chosen answer at enter."""
        shown = self._shown()
        if key == "escape":
            return CANCEL
        if key == "enter":
            return shown[self._at][0] if shown else None
        steps = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10, "home": -9999, "end": 9999}
        if key in steps:
            self._at = max(0, min(len(shown) - 1, self._at + steps[key]))
        elif key == "backspace":
            self._find, self._at = self._find[:-1], 0
        elif len(key) == 1:
            self._find, self._at = self._find + key, 0
        return None

    def lines(self, height: int) -> list[Text]:
        """Return the part of the list around the chosen line."""
        shown, room = self._shown(), max(1, height - 1)
        first = max(0, min(self._at - room // 2, len(shown) - room))
        lines = [Text(f"find: {self._find}" if self._find else "", style="dim")]
        for number, (_, line) in enumerate(shown[first : first + room], first):
            here = number == self._at
            mark = "> " if here else "  "
            lines.append(Text(mark + line, style="reverse" if here else "", no_wrap=True))
        return lines if shown else [*lines, Text("nothing has these letters")]


class Ask:
    """A line of text to edit."""

    help = "enter take, escape leave, Ctrl-U erase"

    def __init__(self, title: str, question: str, text: str):
        self.title, self._question = title, question
        self._text, self._at = text, len(text)

    def press(self, key: str) -> object:
        """Return the text at enter."""
        text, at = self._text, self._at
        moves = {"left": max(0, at - 1), "right": min(len(text), at + 1), "home": 0}
        if key == "escape":
            return CANCEL
        if key == "enter":
            return text
        if key in moves:
            self._at = moves[key]
        elif key == "end":
            self._at = len(text)
        elif key == "erase":
            self._text, self._at = "", 0
        elif key == "backspace" and at:
            self._text, self._at = text[: at - 1] + text[at:], at - 1
        elif key == "delete":
            self._text = text[:at] + text[at + 1 :]
        elif len(key) == 1:
            self._text, self._at = text[:at] + key + text[at:], at + 1
        return None

    def lines(self, height: int) -> list[Text]:
        """Return the question and the text with the cursor in it."""
        shown = Text(overflow="fold")
        shown.append(self._text[: self._at])
        shown.append(self._text[self._at : self._at + 1] or " ", style="reverse")
        shown.append(self._text[self._at + 1 :])
        return [Text(self._question, overflow="fold"), Text(), shown]


def abort(actions: Actions, seen: Overview) -> Command:
    """Stop the run, after a question."""
    yield _sure("Abort", seen)
    return actions.abort


def unlock(actions: Actions, seen: Overview) -> Command:
    """Remove RELION's lock, after a question."""
    yield _sure("Unlock", seen)
    return actions.unlock


def reset(actions: Actions, seen: Overview) -> Command:
    """Reset the Scheme, after a question."""
    yield _sure("Reset", seen)
    return actions.reset


def _sure(title: str, seen: Overview) -> Confirm:
    return Confirm(title, QUESTIONS[title].format(name=seen.name))


def restart(actions: Actions, seen: Overview) -> Command:
    """Run again from a node that the person chooses."""
    nodes = graph.nodes(seen.scheme) if seen.scheme else []
    node = yield Pick("Restart at", [(node, node) for node in nodes], seen.current_node)
    return lambda: actions.restart(node)


def set_variable(actions: Actions, seen: Overview) -> Command:
    """Set a variable that the person chooses."""
    rows = words.variables(seen.scheme) if seen.scheme else []
    items = [(name, f"{name} = {value}") for _, name, value, _ in rows]
    name = yield Pick("Set variable", items)
    kind, value = next((kind, value) for kind, one, value, _ in rows if one == name)
    value = yield Ask("Set variable", f"New value and reset value of {name} ({kind}):", value)
    return lambda: actions.set_variable(name, value)


def set_option(actions: Actions, seen: Overview) -> Command:
    """Set an option of a job that the person chooses."""
    jobs = [(one.node, one.node) for one in seen.jobs]
    job = yield Pick("Set job option: the job", jobs, seen.current_node)
    options = {one.name: one for one in actions.options(job)}
    items = [(one.name, f"{one.name} = {one.value}") for one in options.values()]
    name = yield Pick(f"Set job option of {job}", items)
    value = yield Ask("Set job option", f"New value of {name} of {job}:", options[name].value)
    return lambda: actions.set_option(job, name, value)
