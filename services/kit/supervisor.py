"""Keeps the processes of a session running: starts, restarts, shows their lines, stops them.

What `coldstream up` does on one host without systemd. Source: reliability.md sections 2.8, 2.2.
"""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from services.kit.errors import Fatal, Misuse
from services.kit.main import MISUSE

# A process that ends this often within this time will not get better by starting it again.
BURST, BURST_S = 20, 60.0
RESTART_S = 0.2
# Ctrl-C has to end everything within 10 s: services first, then the cluster, then by force.
STOP_SERVICES_S, STOP_CLUSTER_S = 5.0, 3.0


class Child:
    """One supervised process."""

    def __init__(self, name: str, command: Sequence[str]):
        self.name, self.command = name, list(command)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts: deque[float] = deque(maxlen=BURST)
        self.start_at = 0.0
        self.rest = b""  # a line that has not ended yet

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches only us."""
        now = time.monotonic()
        if len(self.starts) == BURST and now - self.starts[0] < BURST_S:
            raise Fatal(f"{self.name} ended {BURST} times within {BURST_S:.0f} s: giving up")
        self.starts.append(now)
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdout is not None  # noqa: S101
        os.set_blocking(self.process.stdout.fileno(), False)


class Supervisor:
    """Runs children until `stop`.

    Parameters
    ----------
    commands
        Name -> argument list, in the order of starting.
    show
        Called with every line a child prints, and with our own.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], show: Callable[[str], None]):
        self._children = {name: Child(name, command) for name, command in commands.items()}
        self._show = show
        self._selector = selectors.DefaultSelector()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the children that run."""
        return {
            name: child.process.pid
            for name, child in self._children.items()
            if child.process is not None and child.is_running
        }

    def start(self) -> None:
        """Start all children."""
        for child in self._children.values():
            self._start(child)

    def _start(self, child: Child) -> None:
        child.start()
        assert child.process is not None and child.process.stdout is not None  # noqa: S101
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def turn(self, timeout_s: float) -> None:
        """Show what children print for `timeout_s`, and restart those that ended.

        Raises
        ------
        Misuse
            A child found its configuration wrong: starting it again would not help.
        Fatal
            A child keeps ending.
        """
        end = time.monotonic() + timeout_s
        while True:
            for key, _ in self._selector.select(max(0.0, min(0.1, end - time.monotonic()))):
                self._read(key.data)
            for child in self._children.values():
                self._look_after(child)
            if time.monotonic() >= end:
                return

    def _read(self, child: Child) -> bool:
        """Show the lines that are there; return whether there may be more."""
        assert child.process is not None and child.process.stdout is not None  # noqa: S101
        data = child.process.stdout.read(65536)
        if data:
            *lines, child.rest = (child.rest + data).split(b"\n")
            for line in lines:
                self._show(line.decode(errors="replace"))
        return bool(data)

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        self._drain(child)
        child.process, child.start_at = None, now + RESTART_S
        if code == MISUSE:
            raise Misuse(f"{child.name} cannot run with this configuration; see its line above")
        self._show(f"{child.name} ended ({_why(code)}); it is started again")

    def _drain(self, child: Child) -> None:
        """Show the last lines of a process that has ended."""
        assert child.process is not None and child.process.stdout is not None  # noqa: S101
        self._selector.unregister(child.process.stdout)
        while self._read(child):
            pass
        if child.rest:
            self._show(child.rest.decode(errors="replace"))
            child.rest = b""
        child.process.stdout.close()

    def stop(self) -> None:
        """Stop all children: services first, the first started (the cluster) last."""
        cluster, *services = self._children.values()
        self._end(services, STOP_SERVICES_S)
        self._end([cluster], STOP_CLUSTER_S)
        self._selector.close()

    def _end(self, children: Sequence[Child], limit_s: float) -> None:
        alive = [c for c in children if c.process is not None]
        for child in alive:
            assert child.process is not None  # noqa: S101
            child.process.send_signal(signal.SIGTERM)  # does nothing to one that has ended
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and any(c.is_running for c in alive):
            for key, _ in self._selector.select(0.05):
                self._read(key.data)
        for child in alive:
            assert child.process is not None  # noqa: S101
            if child.is_running:
                self._show(f"{child.name} did not stop within {limit_s:.0f} s; it is killed")
                child.process.kill()
            child.process.wait()
            self._drain(child)
            child.process = None


def _why(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
