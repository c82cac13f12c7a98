"""How a service process starts and how it ends.

Exit codes: 0 stopped as asked, 2 misuse (not restarted), 70 bug, 75 fatal (restarted by whoever
supervises it: `coldstream up` or systemd).
"""

import argparse
import faulthandler
import logging
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from services.kit import session as sessions
from services.kit.errors import Bug, Fatal, Misuse
from services.kit.faults import name_process
from services.kit.host import Host, Source
from services.kit.logs import LEVELS, Log
from services.kit.paths import Layout, remove_unfinished
from services.kit.process import die_with_parent, show_name
from services.kit.session import Session

MISUSE, BUG, FATAL = 2, 70, 75
# A cluster takes seconds to start; one that takes a minute will not come.
CLUSTER_WAIT_S = 60.0

Build = Callable[[Layout, Session], tuple[Any, Source | None]]


def cluster_address(layout: Layout, session: Session) -> str:
    """Return the scheduler's address, waiting for the cluster to come up.

    Raises
    ------
    Fatal
        It did not come up in time.
    """
    from services.kit.runner import ClusterFile

    if session.scheduler is not None:
        return session.scheduler
    deadline = time.monotonic() + CLUSTER_WAIT_S
    while time.monotonic() < deadline:
        try:
            found = msgspec.json.decode(layout.cluster_file.read_bytes(), type=ClusterFile)
        except (OSError, msgspec.MsgspecError):
            time.sleep(0.05)
            continue
        if Path(f"/proc/{found.pid}").exists() or not Path("/proc/self").exists():
            return found.address
        time.sleep(0.05)
    raise Fatal(f"no cluster came up within {CLUSTER_WAIT_S:.0f} s")


def service_main(
    name: str, build: Build, *, needs_cluster: bool, argv: Sequence[str] | None = None
) -> int:
    """Run one service until it is told to stop; return the exit code.

    Parameters
    ----------
    name
        Service name.
    build
        Makes the service, and its source if it has one.
    needs_cluster
        Whether it wants tasks.
    argv
        Command line without the program name.
    """
    parser = argparse.ArgumentParser(prog=f"coldstream service {name}")
    parser.add_argument("--project", type=Path, required=True, help="RELION project folder")
    parser.add_argument("--parent", type=int, help="stop when this process ends")
    parser.add_argument("--log-level", default="INFO", choices=LEVELS, help="lowest level shown")
    arguments = parser.parse_args(argv)
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    faulthandler.enable()
    # Dask's own lines; what matters of them is told by the runner.
    logging.disable(logging.CRITICAL)
    show_name(f"coldstream-{name}")
    name_process(name)
    layout = Layout(arguments.project)
    layout.make()
    remove_unfinished(layout)
    log = Log(name, layout.logs / f"{name}.log", arguments.log_level)
    try:
        session = sessions.load(layout)
        service, source = build(layout, session)
        address = cluster_address(layout, session) if needs_cluster else None
        Host(service, layout, session.name, log, address, source).run()
    except Misuse as error:
        log.line("service.misuse", "ERROR", detail=error)
        return MISUSE
    except Fatal as error:
        log.line("service.fatal", "ERROR", detail=error)
        return FATAL
    except Bug as error:
        log.line("service.bug", "ERROR", detail=error)
        traceback.print_exc()
        return BUG
    finally:
        sys.stdout.flush()
        log.close()
    return 0
