"""The watcher killed while its trees grow: each exposure is published once, none is lost.

Source: acquisition.md section 11 (4); reliability.md section 3 (F1).
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mdcatch.orders import KIND, mailbox
from services.kit import events
from services.kit import session as sessions
from services.kit.commands import Command
from services.kit.errors import Misuse
from services.kit.journal import Reader
from services.kit.paths import Layout
from services.kit.session import Session
from tests.component.test_mdcatch import write_movie
from tests.component.test_mdcatch_serialem import mdoc, section
from tests.epu_tree import FOLDER, image_xml, stem

POINTS = ("after-append-before-commit", "after-commit-before-bell", "before-render", "after-render")
COMMANDS = ("command-counted", "command-done", "command-answered")
KILLS = 5
EXPOSURES = 12
GROWING_S = 6.0
Step = tuple[Path, bytes]


def slowly(path: Path, content: bytes, chance: random.Random) -> Iterator[Step]:
    """Yield what is on disk after each step of a writer."""
    for size in sorted(chance.sample(range(1, len(content)), 2)):
        yield path, content[:size]
    yield path, content


def epu(raw: Path, movies: Path, number: int, chance: random.Random) -> list[Step]:
    """Return the steps of an exposure of EPU whose movie lies on another disk."""
    path = movies / FOLDER / f"{stem(number=number)}_fractions.tiff"
    write_movie(path.with_name(".made"))
    steps = list(slowly(path, path.with_name(".made").read_bytes(), chance))
    path.with_name(".made").unlink()
    metadata = slowly(raw / FOLDER / f"{stem(number=number)}.xml", image_xml(), chance)
    steps.insert(chance.randrange(4), (raw / "news.txt", b""))
    return [*steps, *metadata] if number % 2 else [*metadata, *steps]


def serialem(raw: Path, movies: Path, number: int, chance: random.Random) -> list[Step]:
    """Return the steps of a movie of SerialEM; one mdoc per movie, and one for every third."""
    path = raw / "frames" / f"run_{number:03d}.tif"
    write_movie(path.with_name(".made"), height=48)
    steps = list(slowly(path, path.with_name(".made").read_bytes(), chance))
    path.with_name(".made").unlink()
    if number % 3:
        text = mdoc(section(path.name, NumSubFrames="4"))
        return [*steps, *slowly(path.with_name(f"{path.name}.mdoc"), text, chance)]
    names = [f"run_{n:03d}.tif" for n in range(0, number + 1, 3)]
    many = [section(name, number=n, NumSubFrames="4") for n, name in enumerate(names)]
    return [*slowly(raw / "frames" / "run.mdoc", mdoc(*many), chance), *steps]


def grow(steps: list[Step], stopped: threading.Event) -> None:
    """Write the trees, at the pace of a hurried microscope."""
    for path, content in steps:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if stopped.wait(GROWING_S / len(steps)):
            return


class Daemon:
    """A real mdcatch process that is started again whenever it is dead."""

    def __init__(self, layout: Layout, crashes: Path):
        self._line = [sys.executable, "-m", "mdcatch", "--project", str(layout.project)]
        self._env = {**os.environ, "COLDSTREAM_CRASH_DIR": str(crashes)}
        self.deaths = 0
        self._start()

    def _start(self) -> None:
        quiet = subprocess.DEVNULL
        self.popen = subprocess.Popen(self._line, env=self._env, stdout=quiet, stderr=quiet)

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Keep it running for a time, or until something holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not done():
            if self.popen.poll() is not None:
                self.deaths += 1
                self._start()
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once."""
        self.popen.kill()
        self.popen.wait()


def starts(layout: Layout) -> int:
    """Return how often the daemon has got as far as to watch."""
    log = layout.logs / "mdcatch.log"
    return log.read_text().count("service.started") if log.exists() else 0


def published(layout: Layout) -> list[str]:
    """Return the exposures that were published, as often as they were."""
    if not layout.journal("mdcatch").exists():
        return []
    try:
        reader = Reader(layout.journal("mdcatch"))
    except Misuse:  # it is just being made
        return []
    bodies = [event.body for event in reader.read()]
    reader.close()
    return [body.movie for body in bodies if isinstance(body, events.MovieSettled)]


@pytest.mark.parametrize("writer", [epu, serialem])
def test_a_watcher_killed_while_its_trees_grow(tmp_path: Path, writer):
    chance = random.Random(7)
    raw, movies, crashes = (tmp_path / name for name in ("session1", "camera", "crashes"))
    for folder in (raw, movies, crashes):
        folder.mkdir()
    (movies / "notes.txt").touch()
    steps = [step for n in range(EXPOSURES) for step in writer(raw, movies, n, chance)]
    layout = Layout(tmp_path / "project")
    layout.project.mkdir()
    layout.make()
    session = Session(
        name="s",
        raw=str(raw),
        movies=str(movies) if writer is epu else None,
        settle_s=0.5,
        poll_s=0.1,
        metadata_wait_s=100.0,
    )
    sessions.save(layout, session)
    for point in POINTS:
        (crashes / f"mdcatch.{point}").touch()
    stopped = threading.Event()
    thread = threading.Thread(target=grow, args=(steps, stopped))
    daemon = Daemon(layout, crashes)
    thread.start()
    try:
        for _ in range(KILLS):
            before = starts(layout)
            daemon.run(60.0, lambda known=before: starts(layout) > known)
            daemon.run(chance.uniform(0.0, 1.2))
            daemon.kill()
        thread.join()
        daemon.run(120.0, lambda: len(set(published(layout))) >= EXPOSURES)
        decide(layout, daemon, crashes)
        daemon.run(1.5)  # nothing more comes
        daemon.popen.terminate()
        assert daemon.popen.wait(30) == 0
    finally:
        stopped.set()
        thread.join()
        daemon.kill()
    assert daemon.deaths >= KILLS and not list(crashes.iterdir()), "a point was never passed"
    found = published(layout)
    assert len(found) == len(set(found)) == EXPOSURES
    reader = Reader(layout.journal("mdcatch"))
    assert reader.first_broken() is None
    seen = [e.body.movie for e in reader.read() if isinstance(e.body, events.MovieSeen)]
    decided = [e.body for e in reader.read() if isinstance(e.body, events.MovieOverridden)]
    reader.close()
    assert len(seen) == len(set(seen)) and set(seen) == set(found)
    assert [body.accept for body in decided] == [True], "a person's decision is told once"


def decide(layout: Layout, daemon: Daemon, crashes: Path) -> None:
    """Send a decision; the daemon dies at each point of taking it, and it stands once."""
    for point in COMMANDS:
        (crashes / f"mdcatch.{point}").touch()
    box = mailbox(layout)
    arguments = {"movie": published(layout)[0], "accept": True}
    box.send(Command(id="one", kind=KIND, arguments=arguments))
    daemon.run(60.0, lambda: box.waiting() == [] and not list((box.new).iterdir()))
    answer = box.answer("one")
    assert answer is not None and answer.done
