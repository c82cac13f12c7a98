"""`schemer watch` in a terminal: what it shows, what its keys do, and that it leaves no trace."""

import fcntl
import io
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from msgspec import structs
from rich.console import Console

from schemer import overview, relionit, starfile, store, templates
from schemer.jobs import JobFile
from schemer.monitor import terminal
from schemer.monitor.actions import Actions
from schemer.monitor.keys import Decoder
from schemer.monitor.screen import PANES, Screen
from schemer.scheme import Edge, FloatVariable, JobRow, Operator, Scheme

# The child becomes another program at once.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

# Stops as RELION's programs do: it looks for the request in its folder.
PROGRAM = """#!/bin/sh
echo "working in $1"
for i in $(seq 400); do
  [ -e "$1/RELION_JOB_ABORT_NOW" ] && exit 2
  sleep 0.05
done
"""
PATIENCE_S = 30.0


@pytest.fixture
def root(tmp_path):
    """Yield a project with the Scheme `live`: a wait and a job that works until it is stopped."""
    folder = tmp_path / "Schemes" / "live"
    (folder / "work").mkdir(parents=True)
    options = {"fn_exe": "x", "param1_label": "size"}
    (folder / "work" / "job.star").write_text(JobFile("relion.external", options).dumps())
    scheme = Scheme(
        name="Schemes/live/",
        current_node="WAIT",
        floats={"wait_sec": FloatVariable(3600.0, 3600.0), "zero": FloatVariable(0.0, 0.0)},
        operators={"WAIT": Operator("wait", input1="wait_sec")},
        jobs={"work": JobRow("work", "continue")},
        edges=(Edge("WAIT", "work"), Edge("work", "WAIT")),
    )
    (folder / "scheme.star").write_text(starfile.dump(scheme))
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    yield tmp_path
    if store.running(folder) is not None:  # a test has failed
        store.request_abort(tmp_path, folder)


def folder_of(root):
    return root / "Schemes" / "live"


def until(test):
    """Return what `test` returns as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := test()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


class Terminal:
    """`schemer watch` on a terminal of its own; reads the screen and types."""

    def __init__(self, root, *words, rows=24, columns=80, **environment):
        self.master, self.slave = os.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.raw = b""
        command = [sys.executable, "-m", "schemer", "watch", "-p", str(root), "-s", "live"]
        drop = ("COLUMNS", "LINES", "NO_COLOR")
        kept = {name: text for name, text in os.environ.items() if name not in drop}
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(self.slave)
            os.execve(  # noqa: S606
                command[0],
                [*command, "--refresh", "0.2", *words],
                kept | {"TERM": "xterm-256color"} | environment,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)

    def size(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        while select.select([self.master], [], [], 0.05)[0]:
            self.raw += os.read(self.master, 65536)

    def screen(self):
        """Return the last whole picture as text."""
        self.read()
        pictures = self.raw.decode(errors="replace").split("\x1b[H")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", pictures[-1]).replace("\r", "")

    def shows(self, *texts):
        """Wait until all texts stand on the screen."""
        try:
            until(lambda: all(text in self.screen() for text in texts))
        except AssertionError:
            pytest.fail(f"not all of {texts} on\n{self.screen()}")

    def type(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        """Return the exit code when the program has ended."""

        def gone():
            self.read()
            return os.waitpid(self.pid, os.WNOHANG)

        status = until(lambda: (found := gone())[0] and (found,))[0][1]
        self.pid = 0
        self.read()
        return os.waitstatus_to_exitcode(status)

    def is_as_before(self):
        """Return whether the terminal is as it was: modes, the main screen, a visible cursor."""
        visible = self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l")
        main = self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h")
        return termios.tcgetattr(self.slave) == self.before and visible and main


# For real


def test_it_shows_the_scheme_and_leaves_the_terminal_as_it_was(root):
    with Terminal(root) as monitor:
        monitor.shows("Scheme live  stopped, never run here", "at WAIT", "▶ WAIT", "q  quit")
        assert termios.tcgetattr(monitor.slave) != monitor.before
        monitor.type("\t")
        monitor.shows("work  continue, not started")
        monitor.type("\t")
        monitor.shows("wait_sec = 3600")
        monitor.type("\x1b[Z")
        monitor.shows("work  continue, not started")
        monitor.type("q")
        assert monitor.end() == 0
        assert monitor.is_as_before()


def test_variables_and_options_are_set_with_keys(root):
    path = folder_of(root) / "work" / "job.star"
    with Terminal(root) as monitor:
        monitor.shows("▶ WAIT")
        monitor.type("v")
        monitor.shows("zero = 0")
        monitor.type("wait\r")
        monitor.shows("New value and reset value of wait_sec")
        monitor.type("\x15many\r")
        monitor.shows("Not done:", "is not a number")
        monitor.type("v")
        monitor.shows("zero = 0")
        monitor.type("\x1b[A\r")
        monitor.shows("wait_sec (float)")
        monitor.type("\x7f\x7f\r")
        monitor.shows("wait_sec is 36 now")
        monitor.type("o\r")
        monitor.shows("param1_label = size")
        monitor.type("param1_v\r")
        monitor.shows("New value of param1_value of work")
        monitor.type("né 5\r")
        monitor.shows("param1_value of work is né 5 now")
        monitor.type("q")
        assert monitor.end() == 0
    variable = starfile.read(folder_of(root)).floats["wait_sec"]
    assert (variable.value, variable.reset) == (36.0, 36.0)
    assert JobFile.load(path).options["param1_value"] == "né 5"


def test_a_restart_outlives_the_monitor_and_is_aborted_by_another(root):
    executor = ("--executor", f"command:{root / 'program'}")
    with Terminal(root, *executor) as monitor:
        monitor.shows("▶ WAIT")
        monitor.type("g")
        monitor.shows("Restart at")
        monitor.type("work\r")
        monitor.shows("running since", "at work, External/job001/, Running")
        monitor.type("r")
        monitor.shows("Not while it is running: abort it first (a).")
        for _ in range(PANES.index("job")):
            monitor.type("\t")
        monitor.shows("External/job001/run.out", "working in External/job001/")
        monitor.type("q")
        assert monitor.end() == 0
    assert store.running(folder_of(root)) is not None
    with Terminal(root, *executor) as monitor:
        monitor.shows("running since", "▶ work")
        monitor.type("a")
        monitor.shows("Stop live?", "y / n")
        monitor.type("n")
        monitor.shows("Left as it was.", "running since")
        monitor.type("ay")
        monitor.shows("asked to abort at work")
        monitor.shows("stopped: job aborted", "Aborted")
        monitor.type("r")
        monitor.shows("Reset live?")
        monitor.type("y")
        monitor.shows("reset; the next run begins at WAIT", "▶ WAIT")
        monitor.type("q")
        assert monitor.end() == 0
    assert "began at work" in (folder_of(root) / "run.out").read_text()
    assert not starfile.read(folder_of(root)).jobs["work"].has_started


def test_a_wait_is_shown_with_its_end(root):
    (root / "program").write_text("#!/bin/sh\nexit 0\n")
    with Terminal(root, "--executor", f"command:{root / 'program'}", columns=120) as monitor:
        monitor.shows("▶ WAIT")
        monitor.type("gwork\r")
        monitor.shows("running since", "at WAIT, waits until ", "Succeeded")
        monitor.type("ay")
        monitor.shows("stopped: aborted")
        monitor.type("q")
        assert monitor.end() == 0


def test_a_run_that_cannot_begin_is_told(root):
    with Terminal(root, "--executor", "command:nothing-there") as monitor:
        monitor.shows("▶ WAIT")
        monitor.type("gwork\r")
        monitor.shows("the run has ended with exit code 1; see run.err")
        for _ in range(PANES.index("run.err")):
            monitor.type("\t")
        monitor.shows("nothing-there")
        monitor.type("q")
        assert monitor.end() == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)]
)
def test_a_signal_gives_the_terminal_back(root, number, code):
    with Terminal(root) as monitor:
        monitor.shows("▶ WAIT")
        os.kill(monitor.pid, number)
        assert monitor.end() == code
        assert monitor.is_as_before()


def test_control_c_leaves_and_control_z_does_nothing(root):
    with Terminal(root) as monitor:
        monitor.shows("▶ WAIT")
        monitor.type("\x1av")
        monitor.shows("Set variable")
        monitor.type("\x03")
        assert monitor.end() == 0
        assert monitor.is_as_before()


def test_it_follows_the_window_and_the_files(root):
    with Terminal(root, "--refresh", "600", columns=120) as monitor:
        monitor.shows("nodes", "graph  jobs  variables")
        monitor.size(14, 50)
        monitor.shows("quit")
        until(lambda: "nodes" not in monitor.screen())
        lines = monitor.screen().split("\n")
        assert len(lines) <= 14 and max(map(len, lines)) <= 50
        monitor.type("q")
        assert monitor.end() == 0
    with Terminal(root, columns=200) as monitor:  # the path of the file is in the message
        monitor.shows("▶ WAIT")
        store.edit(folder_of(root), lambda one: structs.replace(one, current_node="work"))
        monitor.shows("at work", "▶ work")
        (folder_of(root) / "scheme.star").unlink()
        monitor.shows("scheme.star cannot be read", "there is no such")
        monitor.type("g")
        monitor.shows("scheme.star cannot be read.")
        monitor.type("q")
        assert monitor.end() == 0


def test_a_terminal_without_unicode_gets_ascii(root):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with Terminal(root, **plain) as monitor:
        monitor.shows("> WAIT", "-> work")
        assert monitor.screen().isascii()
        monitor.type("q")
        assert monitor.end() == 0


@pytest.mark.parametrize("words", [(), ("--once",)])
def test_without_a_terminal_it_prints_once(root, words):
    command = [sys.executable, "-m", "schemer", "watch", "-p", str(root), "-s", "live", *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("live: stopped, never run here\n  at WAIT\n")
    assert "\x1b" not in done.stdout


def test_an_error_inside_gives_the_keyboard_back():
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(ZeroDivisionError), terminal._keyboard(slave):
        assert termios.tcgetattr(slave) != before
        raise ZeroDivisionError
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


# Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"a", ["a"]),
        (b"\t\r\n\x7f\x15", ["tab", "enter", "enter", "backspace", "erase"]),
        (b"\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~\x1b[3~\x1b[Z", [
            "pageup", "pagedown", "home", "end", "delete", "backtab",
        ]),
        ("é°".encode(), ["é", "°"]),
        (b"\x1b[1;5Cx", ["x"]),
        (b"\x1b[200~pasted", list("pasted")),
        (b"\x00\x07", []),
        (b"\x1bq", ["escape", "q"]),
    ],
)  # fmt: skip
def test_keys_are_known_however_they_are_cut(data, keys):
    assert Decoder().feed(data) == keys
    one_by_one = Decoder()
    assert [key for byte in data for key in one_by_one.feed(bytes([byte]))] == keys
    assert not one_by_one.is_pending


def test_an_escape_alone_is_known_when_nothing_follows():
    decoder = Decoder()
    assert decoder.feed(b"\x1b") == [] and decoder.is_pending
    assert decoder.flush() == ["escape"] and not decoder.is_pending
    assert decoder.flush() == []


# The screen


@pytest.fixture
def screen(root):
    return Screen(Actions(root, "live"), overview.look(root, "live"))


def shown(screen, width=100, height=30):
    page = io.StringIO()
    console = Console(width=width, height=height, file=page, color_system=None)
    console.print(screen.render(console))
    text = page.getvalue()
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= height and max(map(len, lines)) <= width
    return text


@pytest.mark.parametrize("size", [(100, 30), (80, 24), (79, 20), (30, 9), (1, 1), (300, 90)])
@pytest.mark.parametrize("pane", range(len(PANES)))
def test_every_pane_fits_every_size(root, size, pane):
    templates.install(root, "proc")
    screen = Screen(Actions(root, "proc"), overview.look(root, "proc"))
    screen.pane = pane
    shown(screen, *size)
    screen.press("v")
    shown(screen, *size)


def test_what_a_file_says_does_not_steer_the_terminal(root, screen):
    scheme = starfile.read(folder_of(root))
    evil = "\x1b]0;title\x07[red]"
    floats = scheme.floats | {evil: FloatVariable(0.0, 0.0)}
    screen.seen = structs.replace(
        screen.seen, scheme=structs.replace(scheme, floats=floats, current_node=evil)
    )
    for pane in range(len(PANES)):
        screen.pane = pane
        assert "\x1b" not in shown(screen)
    screen.press("v")
    assert "?]0;title[red]" in shown(screen)


def test_output_follows_its_end_until_somebody_scrolls(root, screen):
    out = folder_of(root) / "run.out"
    out.write_text("".join(f"line {number}\n" for number in range(100)))
    screen.seen = overview.look(root, "live")
    screen.pane = PANES.index("run.out")
    assert "line 99 " in shown(screen)
    screen.press("pageup")
    assert "line 99 " not in shown(screen)
    screen.press("home")
    assert "line 0 " in shown(screen)
    screen.press("end")
    shown(screen)
    out.write_text(out.read_text() + "line 100\n")
    screen.seen = overview.look(root, "live")
    assert "line 100 " in shown(screen)


def test_the_graph_keeps_the_current_node_in_sight(root):
    templates.install(root, "proc")
    store.edit(root / "Schemes/proc", lambda one: structs.replace(one, current_node="refine3d"))
    screen = Screen(Actions(root, "proc"), overview.look(root, "proc"))
    assert shown(screen, 80, 20).count("▶ refine3d") == 2
    assert shown(screen, 60, 12).count("▶ refine3d") == 1


def test_escape_leaves_a_dialog_and_changes_nothing(root, screen):
    before = (folder_of(root) / "scheme.star").read_bytes()
    for keys in (["v", "escape"], ["v", "enter", "x", "escape"], ["r", "n"], ["o", "enter", "q"]):
        for key in keys:
            screen.press(key)
    assert screen.dialog is not None  # `q` went into the search
    screen.press("escape")
    assert screen.dialog is None
    assert (folder_of(root) / "scheme.star").read_bytes() == before
    assert screen.press("q") is False


def test_a_job_without_options_is_told(root, screen):
    (folder_of(root) / "work" / "job.star").unlink()
    for key in ("o", "enter"):
        screen.press(key)
    assert screen.message.startswith("Not done:") and "job.star" in screen.message
    screen.pane = PANES.index("options")
    assert "has no job.star" in shown(screen)


def test_unlock_is_for_relions_lock_only(root, screen):
    screen.press("u")
    assert "does not lock" in screen.message
    lock = overview.relion_lock(root, "live")
    lock.mkdir()
    (lock / "lock_scheme").touch()
    screen.seen = overview.look(root, "live")
    screen.press("g")
    assert screen.message.startswith("Not while it is running")
    screen.press("u")
    assert "relion_schemer" in shown(screen)
    screen.press("y")
    assert not lock.exists()


# Actions


def test_actions_refuse_a_scheme_that_runs(root):
    actions = Actions(root, "live")
    with store.run_lock(root, folder_of(root), strict=False):
        for action in (
            actions.reset,
            lambda: actions.restart("work"),
            lambda: actions.set_variable("zero", "1"),
            lambda: actions.set_option("work", "param1_label", "x"),
        ):
            with pytest.raises(Exception, match="running"):
                action()
        assert actions.abort() == "asked to abort at WAIT"
    assert (folder_of(root) / store.ABORT_NOW).exists()


def test_a_set_option_lets_the_job_begin_anew_and_relion_it_knows(root):
    (root / relionit.OPTIONS_FILE).write_text("{'live__zero': '0'}\n")
    started = JobRow("External/job001/", "continue", True)
    store.edit(folder_of(root), lambda one: structs.replace(one, jobs={"work": started}))
    actions = Actions(root, "live")
    actions.set_option("work", "param1_label", "colour")
    actions.set_variable("zero", "4.5")
    assert starfile.read(folder_of(root)).jobs["work"] == JobRow("External/job001/", "continue")
    text = (root / relionit.OPTIONS_FILE).read_text()
    assert "'live__work__param1_label' : 'colour'" in text
    assert "'live__zero' : '4.5'" in text
