"""The process that does the commands of a host: opens sessions, for people and by policy.

What it starts runs apart from it: it may be stopped and started at any time, and sessions go on.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdcatch.launch import policy as policies
from mdcatch.launch.found import Found, Sessions, from_document
from mdcatch.launch.look import Query
from mdcatch.launch.opening import Opener
from mdcatch.launch.policy import Policy
from mdcatch.launch.request import KIND, to_arguments
from services.kit.commands import Answer, Command, Inbox, Mailbox
from services.kit.errors import Misuse
from services.kit.logs import Log
from services.kit.sitetables import Site
from services.kit.watchdog import notify

# A click in the launcher is answered within this time, and what else is due.
TURN_S = 0.2
# A look at all sessions of a share costs it some hundred requests.
LOOK_S = 60.0
BEAT_S = 5.0


class Daemon:
    """Does commands until it is stopped.

    Parameters
    ----------
    mailbox
        Where commands come from.
    opener
        Opens sessions.
    log
        Where a line for each answer goes.
    policy, sessions
        What to open without being asked, and where the sessions come from; None: nothing.
    look_s
        Between two looks at the sessions.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        opener: Opener,
        log: Log,
        policy: Policy | None = None,
        sessions: Sessions | None = None,
        look_s: float = LOOK_S,
    ):
        self._opener, self._log, self._mailbox = opener, log, mailbox
        self._inbox = Inbox(mailbox, opener.handle)
        self._policy, self._sessions, self._look_s = policy, sessions, look_s
        self._query: Query | None = None
        self._look_at = self._beat_at = 0.0
        # Exposures of each session at the first look at it: what grows beyond is running.
        self._first: dict[str, int] | None = None
        self._problem = ""

    def run(self, stopped: Callable[[], bool]) -> None:
        """Do commands until `stopped`."""
        with self._inbox:
            self._log.line("daemon.started", commands=str(self._mailbox.folder))
            notify(READY="1")
            try:
                while not stopped():
                    self.turn(time.monotonic())
                    time.sleep(TURN_S)
            finally:
                if self._query is not None:
                    self._query.close()
                self._opener.let_go()
                self._log.line("daemon.stopped")

    def turn(self, now: float) -> None:
        """Do what waits; look at the sessions if that is due."""
        for answer in self._inbox.turn():
            self._tell(answer)
        self._opener.reap()
        if self._policy is not None and self._sessions is not None:
            self._look(now, self._sessions, self._policy)
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            notify(WATCHDOG="1", STATUS=f"live, {len(self._mailbox.waiting())} commands wait")

    def _tell(self, answer: Answer) -> None:
        level = "INFO" if answer.done else "WARNING"
        self._log.line("command.answered", level, id=answer.id, text=answer.text)

    # ---- by itself

    def _look(self, now: float, sessions: Sessions, policy: Policy) -> None:
        """Start a look, or take up the one that is ready."""
        if self._query is None:
            if now >= self._look_at:
                self._look_at = now + self._look_s
                self._query = sessions.start()
            return
        try:
            document = self._query.poll()
            if document is None:
                return
            self._query = None
            self._open_new(from_document(document), policy, self._opener.site)
            self._problem = ""
        except Misuse as error:
            self._query = None
            if str(error) != self._problem:  # told once, not every minute
                self._problem = str(error)
                self._log.line("sessions.unknown", "WARNING", detail=error)

    def _open_new(self, found: list[Found], policy: Policy, site: Site) -> None:
        known = policies.known_sessions(self._mailbox.exchanges(), self._waiting())
        if self._first is None:
            self._first = {one.identity: one.exposures for one in found}
        folder = Path(site.defaults.projects)
        taken = {str(path) for path in folder.iterdir()} if folder.is_dir() else set()
        for plan in policies.plans(policy, site, found, self._first, known, taken):
            if plan.request is None:
                self._log.line("session.skipped", "WARNING", raw=plan.session.raw, why=plan.problem)
                continue
            arguments: dict[str, Any] = to_arguments(plan.request)
            command = Command(
                id=plan.command_id, kind=KIND, arguments=arguments, sent_at=time.time()
            )
            self._mailbox.send(command)
            self._log.line("session.found", raw=plan.session.raw, project=plan.request.project)

    def _waiting(self) -> list[Command | None]:
        return [self._mailbox.command(one) for one in self._mailbox.waiting()]


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl-C into a question that the loop asks."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: received.append(n))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
