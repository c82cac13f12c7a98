"""`schemer watch` in a terminal: keys, time and window changes drive the screen.

The terminal is given back as it was, also after an error or a signal.
"""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from schemer import overview
from schemer.monitor.actions import Actions
from schemer.monitor.keys import Decoder
from schemer.monitor.screen import Screen

REFRESH_S = 1.0  # RELION's window looks every 3 s
_ESCAPE_S = 0.05  # an escape with nothing after it for this time is the key


def watch(project: Path, name: str, actions: Actions, refresh_s: float = REFRESH_S) -> None:
    """Show a Scheme until the person leaves; standard input and output must be a terminal."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names that the terminal cannot show
    console = Console(highlight=False)
    source = sys.stdin.fileno()
    with (
        _keyboard(source),
        _wake() as alarm,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        screen = Screen(actions, overview.look(project, name))
        decoder = Decoder()
        due = time.monotonic() + refresh_s
        going = True
        while going:
            live.update(screen.render(console), refresh=True)
            patience = _ESCAPE_S if decoder.is_pending else max(0.0, due - time.monotonic())
            ready, _, _ = select.select([source, alarm], [], [], patience)
            if alarm in ready:
                os.read(alarm, 512)  # the window has another size
            if source in ready:
                data = os.read(source, 4096)
                keys = decoder.feed(data)
                going = bool(data)  # nothing: the terminal is gone
            else:
                keys = decoder.flush()
            for key in keys:
                going = going and screen.press(key)
            if keys or time.monotonic() >= due:
                screen.message = actions.reap() or screen.message
                screen.seen = overview.look(project, name)
                due = time.monotonic() + refresh_s


@contextmanager
def _keyboard(source: int) -> Iterator[None]:
    """Let keys come one by one and unseen; Ctrl-Z is off, as it would leave the screen behind."""
    before = termios.tcgetattr(source)
    try:
        tty.setcbreak(source)
        mode = termios.tcgetattr(source)
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(source, termios.TCSADRAIN, mode)
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(source, termios.TCSADRAIN, before)


@contextmanager
def _wake() -> Iterator[int]:
    """Yield a pipe that becomes readable when the window changes; end politely on signals."""
    alarm, bell = os.pipe()
    os.set_blocking(bell, False)
    kinds = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    former = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    try:
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGHUP, _leave)
        yield alarm
    finally:
        signal.set_wakeup_fd(former)
        for kind, handler in before.items():
            signal.signal(kind, handler)
        os.close(alarm)
        os.close(bell)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
