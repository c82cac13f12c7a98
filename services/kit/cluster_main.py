"""The cluster process: `python -m services.kit.cluster_main --project P`."""

import argparse
import os
import sys
from pathlib import Path

from services.kit import session as sessions
from services.kit.cluster import run_cluster
from services.kit.errors import Fatal
from services.kit.logs import Log
from services.kit.main import FATAL
from services.kit.paths import Layout
from services.kit.process import die_with_parent, show_name


def main() -> int:
    """Run scheduler and workers until told to stop."""
    parser = argparse.ArgumentParser(prog="coldstream cluster")
    parser.add_argument("--project", type=Path, required=True, help="RELION project folder")
    parser.add_argument("--parent", type=int, help="stop when this process ends")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    show_name("coldstream-cluster")
    layout = Layout(arguments.project)
    layout.make()
    session = sessions.load(layout)
    log = Log("cluster", layout.logs / "cluster.log")
    try:
        run_cluster(layout, session.workers, session.worker_memory, log)
    except Fatal as error:
        log.line("cluster.fatal", "ERROR", detail=error)
        return FATAL
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Dask waits for ever for a worker that died while it was closing; workers end with us anyway.
    os._exit(code)
