"""Runs a session in the foreground: cluster and services, until Ctrl-C or until done."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services import reporting, running
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.kit.session import Session
from services.kit.supervisor import Supervisor
from services.reporting import LiveReport
from services.screen import Screen, totals_line

# How often the ledger on the screen is brought up to date.
LOOK_S = 0.5


def commands(layout: Layout, session: Session) -> dict[str, list[str]]:
    """Return the command line of every process of a session, the cluster first."""
    python, project = sys.executable, str(layout.project)
    tail = ["--project", project, "--parent", str(os.getpid())]
    modules = {"mdcatch": "mdcatch", "prep": "services.prep", "proc": "services.proc"}
    modules["ranker"] = "services.ranker"
    if session.classify and session.refine:
        modules["refine"] = "services.refine"
    if session.scheduler is None:
        modules = {"cluster": "services.kit.cluster_main", **modules}
    return {name: [python, "-m", module, *tail] for name, module in modules.items()}


def run_session(
    layout: Layout,
    session: Session,
    screen: Screen,
    until: Callable[[Ledger], bool] | None = None,
) -> Ledger:
    """Run until Ctrl-C or SIGTERM, until `until`, or with `close_when_idle` until all is done.

    Raises
    ------
    Misuse, Fatal
        The session runs already; or a process cannot run, and everything is stopped first.
    """
    with running.alone(layout):
        return _run(layout, session, screen, until)


def _run(
    layout: Layout, session: Session, screen: Screen, until: Callable[[Ledger], bool] | None
) -> Ledger:
    layout.cluster_file.unlink(missing_ok=True)
    asked = commands(layout, session)
    supervisor = Supervisor(asked, screen.line)
    ledger = Ledger(layout)
    ledger.expect_start({"prep", "proc", "refine"} & asked.keys())
    report = LiveReport(reporting.command(layout), screen.say)
    with _stop_signals() as stopped, screen, report:
        try:
            supervisor.start()
            while not stopped:
                supervisor.turn(LOOK_S)
                has_news = ledger.update()
                if has_news:
                    screen.show(ledger)
                report.turn(has_news)
                if session.close_when_idle and ledger.settled():
                    break
                if until is not None and until(ledger):
                    break
        finally:
            if stopped:
                screen.say("stopping ...")
            begun = time.monotonic()
            supervisor.stop()
            ledger.update()
            screen.show(ledger)
        if session.close_when_idle and not stopped:
            report.finish()
    if stopped:
        screen.say(f"stopped in {time.monotonic() - begun:.1f} s; {totals_line(ledger)}")
    return ledger


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list instead of ending at once."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: received.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
