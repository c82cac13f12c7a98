"""When movies set out: a back-log from its front, and those sent home with later news."""

import time
from pathlib import Path

import numpy as np

from services.kit.host import Arrived, Finished, Ticked
from services.kit.journal import Journal, Reader
from services.kit.work import Task
from services.prep.build import build
from services.proc.build import build as build_proc
from tests.bench import grown

COUNT, WORKERS = 40, 2


def test_first_movie_is_done_before_the_last_one_is_begun(tmp_path: Path) -> None:
    """All movies are there at once; the first CTF does not wait until all of them are aligned."""
    layout, session = grown.set_up_grown(tmp_path / "project", tmp_path / "raw", COUNT)
    grown.grow_mdcatch(layout, session, COUNT).journal.close()
    service, _ = build(layout, session)
    driver = grown.Driver(service, Journal(layout.journal("prep"), "prep", session.name))
    reader = Reader(layout.journal("mdcatch"))
    driver.handle([Arrived(event) for event in reader.read()])
    reader.close()
    done: list[Task] = []
    rng = np.random.default_rng(1)
    while True:
        deeds = list(service.perform(driver.state))
        tasks = [] if deeds else service.want(driver.state, WORKERS, ())
        if not deeds and not tasks:
            break
        results = [Finished(task, 1, grown.prep_result(task, rng)) for task in tasks]
        driver.handle(deeds or results)
        done += tasks
    driver.journal.close()
    stages = [task.stage for task in done]
    assert stages.count("motioncorr") == stages.count("ctffind") == COUNT
    aligned_before = stages[: stages.index("ctffind")].count("motioncorr")
    assert aligned_before <= COUNT // 4
    # The order of the back-log is kept, within what sets out together.
    fitted = [task.movie for task in done if task.stage == "ctffind"]
    assert fitted == list(driver.state.imported)


def test_a_pass_that_comes_straight_home_waits_for_news(tmp_path: Path) -> None:
    """proc's fork finds no CTF job of prep: the movie waits for the next pass, without a spin."""
    layout, session = grown.set_up_grown(tmp_path / "project", tmp_path / "raw", 1)
    grown.grow_mdcatch(layout, session, 1).journal.close()
    theirs = layout.project / "Schemes" / "prep" / "scheme.star"
    before = theirs.read_text()
    grown.grow_prep(layout, session).journal.close()
    after = theirs.read_text()
    theirs.write_text(before)  # as if prep had not written it yet
    service, _ = build_proc(layout, session)
    driver = grown.Driver(service, Journal(layout.journal("proc"), "proc", session.name))
    reader = Reader(layout.journal("prep"))
    driver.handle([Arrived(event) for event in reader.read()])
    reader.close()
    driver.commit()
    head = driver.journal.head
    (movie,) = driver.state.pool
    driver.handle([Ticked(time.time())])
    driver.commit()
    assert driver.journal.head == head
    theirs.write_text(after)
    driver.handle([Ticked(time.time() + 86_400.0)])
    driver.journal.close()
    assert not driver.state.pool
    assert list(driver.state.pass_of) == [movie]
