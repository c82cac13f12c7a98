"""The journal and the bus: commits, replay, and delivery of events to one follower over ipc."""

import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Event as Flag
from pathlib import Path

import zmq

from services.kit.bus import Follower, Producer
from services.kit.events import MicrographCtf
from services.kit.journal import Draft, Journal
from tests.bench.figures import Bench, median, percentile

COMMITS, REPLAYED, DELIVERED, LIVE = 500, 20_000, 20_000, 200
BATCH = 200
# An event at a time: what a service does for each movie of a live session.
INTERVAL_S = 0.01


def run(bench: Bench) -> None:
    """Measure commits per second, replay, delivery of a back-log, and delay of single events."""
    bench.say(f"{COMMITS} commits")
    _commits(bench)
    path = bench.folder / "replay.sqlite"
    bench.say(f"writing {REPLAYED} events")
    journal = _filled(path, REPLAYED)
    journal.close()
    bench.say("replay")
    begun = time.perf_counter()
    journal = Journal(path, "prep", "bench")
    opened_s = time.perf_counter() - begun
    begun = time.perf_counter()
    count = sum(1 for _ in journal.read())
    rate = count / (time.perf_counter() - begun)
    journal.close()
    bench.add(f"opening a journal of {REPLAYED:,} events, with its checks", opened_s, "s")
    bench.goal("replay", rate, "events/s", 20_000, "reliability.md 4")
    bench.say("delivery")
    _delivery(bench, path)
    bench.note(
        "Events are fitted CTFs (about 900 bytes). Floor of a commit: one 4 KiB write and "
        "fdatasync at the end of a file on the same disk."
    )


def body(number: int) -> MicrographCtf:
    """Return a fitted CTF, the commonest of the larger events."""
    folder = "Movies/Images-Disc1/GridSquare_18540796/Data"
    stem = f"FoilHole_18541796_Data_18541296_18541298_20261120_{number:06d}"
    return MicrographCtf(
        movie=f"Images-Disc1/GridSquare_18540796/Data/{stem}",
        key="0" * 64,
        token=1,
        micrograph=f"MotionCorr/job002/{folder}/{stem}_fractions.mrc",
        micrograph_nodw=f"MotionCorr/job002/{folder}/{stem}_fractions_noDW.mrc",
        ctf_image=f"CtfFind/job003/{folder}/{stem}_fractions_PS.ctf:mrc",
        metadata_star=f"MotionCorr/job002/{folder}/{stem}_fractions.star",
        optics_group=1,
        width_px=4096,
        height_px=4096,
        pixel_size_A=0.83,
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        original_pixel_size_A=0.83,
        acquired_at="2026-11-20T10:15:02.1234567+00:00",
        defocus_u_A=15000.0 + number,
        defocus_v_A=14800.0 + number,
        defocus_angle_deg=31.0,
        phase_shift_deg=0.0,
        figure_of_merit=0.12,
        max_resolution_A=3.9,
        reliable=True,
        took_s=0.5,
    )


def _filled(path: Path, count: int) -> Journal:
    journal = Journal(path, "prep", "bench")
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        journal.commit([Draft(body(number), time.time()) for number in numbers])
    return journal


def _commits(bench: Bench) -> None:
    journal = Journal(bench.folder / "commits.sqlite", "prep", "bench")
    took = []
    for number in range(COMMITS):
        draft = Draft(body(number), time.time())
        begun = time.perf_counter()
        journal.commit([draft])
        took.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    journal.commit([Draft(body(number), time.time()) for number in range(BATCH)])
    batch_s = time.perf_counter() - begun
    journal.close()
    floor = _synchronised_writes(bench.folder / "floor")
    bench.goal(
        "commits of one event", COMMITS / sum(took), "commits/s", 10, "a few a movie: far above 10"
    )
    bench.floor(
        "commit of one event, median",
        1e3 * median(took),
        "ms",
        1e3 * median(floor),
        "synchronised 4 KiB write",
    )
    bench.goal("the same, 99 %", 1e3 * percentile(took, 99), "ms", 10, "reliability.md 4")
    bench.add(f"events written {BATCH} in a commit", BATCH / batch_s, "events/s")


def _synchronised_writes(path: Path, count: int = 100) -> list[float]:
    """Return the seconds of appending one page and waiting until the disk has it."""
    import os

    page, took = bytes(4096), []
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(page)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return took


def _delivery(bench: Bench, path: Path) -> None:
    """Follow a producer in another process: first its back-log, then single events."""
    context = multiprocessing.get_context("spawn")
    live, stop = context.Event(), context.Event()
    # Socket paths are short; the benchmark's folder need not be.
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:
        ends = f"ipc://{folder}/bell", f"ipc://{folder}/desk"
        process = context.Process(target=_produce, args=(path, *ends, live, stop))
        process.start()
        try:
            rate, delays = _follow(*ends, live)
        finally:
            stop.set()
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
    bench.goal(
        "delivery of a back-log to one follower", rate, "events/s", 2_000, "reliability.md 4"
    )
    bench.goal(
        "commit to seen by a follower, median", 1e3 * median(delays), "ms", 5, "reliability.md 4"
    )
    bench.goal("the same, 99 %", 1e3 * percentile(delays, 99), "ms", 50, "reliability.md 4")


def _produce(path: Path, bell: str, desk: str, live: Flag, stop: Flag) -> None:
    """Serve a journal; once `live` is set, commit one event after another."""
    journal = Journal(path, "prep", "bench")
    context = zmq.Context()
    producer = Producer(context, journal, bell, desk)
    poller = zmq.Poller()
    poller.register(producer.desk, zmq.POLLIN)
    written, due = 0, 0.0
    while not stop.is_set():
        now = time.monotonic()
        if live.is_set() and written < LIVE and now >= due:
            # The time of the event is that before its commit: the whole way counts.
            journal.commit([Draft(body(written), time.time())])
            producer.ring()
            written, due = written + 1, now + INTERVAL_S
        producer.beat(now)
        poller.poll(2)
        producer.serve()
    producer.close()
    context.term()
    journal.close()


def _follow(bell: str, desk: str, live: Flag, limit_s: float = 60.0) -> tuple[float, list[float]]:
    """Return events per second of the back-log, and the delays of single events in seconds."""
    context = zmq.Context()
    follower = Follower(context, "prep", bell, desk, None)
    poller = zmq.Poller()
    poller.register(follower.bell, zmq.POLLIN)
    poller.register(follower.desk, zmq.POLLIN)
    deadline = time.monotonic() + limit_s
    received, first, last = 0, 0.0, 0.0
    delays: list[float] = []
    try:
        while len(delays) < LIVE:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {received} events came")
            poller.poll(100)
            follower.listen()
            events = follower.receive()
            if events and received < DELIVERED:
                last = time.monotonic()
                first = first or last
                received += len(events)
                if received >= DELIVERED:
                    live.set()
                continue
            delays += [time.time() - event.at for event in events]
            follower.patience(time.monotonic())
    finally:
        follower.close()
        context.term()
    return received / max(last - first, 1e-9), delays
