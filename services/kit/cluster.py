"""The default cluster: a Dask scheduler and single-threaded workers on this host.

One thread a worker: per-movie tasks are independent, so processes scale better than threads, and a
movie that crashes its worker takes nothing else with it. Source: architecture.md section 6.
"""

import contextlib
import logging
import os
import signal
import threading

import dask.config
import msgspec
from distributed import LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from services.kit.errors import Fatal
from services.kit.logs import Log
from services.kit.paths import Layout, atomic_write
from services.kit.runner import ClusterFile
from services.kit.work import prepare_worker, sweep

# Workers that do not end in this time die when this process does: they watch it.
CLOSE_S = 1.5

# Freed memory that a worker keeps for the next movie. Dask has workers return it at once: getting
# the pages again took more than half of the time of motion correction.
KEEP_BYTES = 1 << 30
_MALLOC = "distributed.nanny.pre-spawn-environ.MALLOC_"
_GLIBC = "distributed.nanny.pre-spawn-environ.GLIBC_"

SETTINGS = {
    f"{_MALLOC}TRIM_THRESHOLD_": KEEP_BYTES,
    f"{_MALLOC}MMAP_THRESHOLD_": KEEP_BYTES,
    f"{_MALLOC}ARENA_MAX": 1,  # those of threads return whole arrays whatever the thresholds are
    # Without lists of small pieces what is freed grows together: half the heap is enough.
    f"{_GLIBC}TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
    # A dead worker is told to us at once; repeating is our decision, with a count that survives.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # No data of ours stays on a worker: there is nothing to spill, and pausing frees nothing.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.daemon": True,
    "distributed.admin.tick.limit": "30s",
    "distributed.comm.timeouts.connect": "15s",
    "distributed.worker.profile.enabled": False,
}


class Prepare(WorkerPlugin):
    """Loads what every task needs before the first task is there."""

    name = "coldstream-prepare"

    def setup(self, worker: object) -> None:
        """Run on each worker when it starts, and again when it is restarted."""
        prepare_worker()


def run_cluster(layout: Layout, workers: int, memory_limit: str, log: Log) -> None:
    """Run scheduler and workers until SIGTERM or SIGINT; their address is in the cluster file.

    Raises
    ------
    Fatal
        They could not be started.
    """
    layout.make()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    layout.cluster_file.unlink(missing_ok=True)
    sweep(layout)
    # Dask's own lines are for Dask's developers (a client that leaves is "critical" to it); what
    # matters to people comes through the services.
    logging.disable(logging.CRITICAL)
    with dask.config.set(SETTINGS):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=memory_limit,
            worker_class="distributed.Nanny",
            silence_logs=logging.CRITICAL,
        )
        try:
            with cluster.get_client() as client:
                client.register_plugin(Prepare())
        except OSError as error:
            raise Fatal(f"the cluster did not start: {error}") from error
        content = ClusterFile(cluster.scheduler_address, os.getpid(), workers)
        atomic_write(layout.cluster_file, msgspec.json.encode(content))
        log.line("cluster.ready", workers=workers, address=cluster.scheduler_address)
        while not stop.wait(1.0):
            pass
        layout.cluster_file.unlink(missing_ok=True)
        with contextlib.suppress(TimeoutError):
            cluster.close(timeout=CLOSE_S)
    log.line("cluster.stopped")
