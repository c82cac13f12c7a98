"""What `status`, `why` and `tail` say."""

import json

import pytest

from services import stories
from services.kit.errors import Code
from services.kit.events import (
    MicrographRefused,
    MovieImported,
    MovieRefused,
    MovieSeen,
    PickingDrifted,
    ResultsOutdated,
    SessionOpened,
)
from services.kit.ledger import Ledger
from tests.books import Books
from tests.report_session import settled

MOVIE = "Images-Disc1/GridSquare_1/Data/FoilHole_1_Data_2"


@pytest.fixture
def books(tmp_path):
    made = Books(tmp_path / "P")
    yield made
    made.close()


@pytest.fixture
def ledger(books):
    made = Ledger(books.layout)
    yield made
    made.close()


def refuse(books: Books, count: int) -> None:
    books.add("mdcatch", SessionOpened(name="grid4", raw="/raw/grid4", software="EPU"))
    for number in range(count):
        movie = f"{MOVIE}_{number:02d}"
        books.add("mdcatch", MovieSeen(movie=movie, path=f"{movie}.tiff"))
        books.add("mdcatch", MovieRefused(movie=movie, code=Code.TRUNCATED, detail="cut short"))


def test_status_is_the_ledger_in_a_screen(books, ledger):
    refuse(books, 30)
    books.add("mdcatch", MovieSeen(movie="m", path="m.tiff"))
    ledger.update()
    lines = list(stories.status_lines(ledger))
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert lines[0] == "session grid4 (open), raw /raw/grid4"
    assert lines[1].split() == ["seen", "=", "done", "+", "refused", "+", "pending"]
    assert lines[2].split() == ["mdcatch", "31", "=", "0", "+", "30", "+", "1"]
    assert "refused TRUNCATED FoilHole_1_Data_2_00 (mdcatch): cut short" in lines
    assert lines[-1] == "and 16 more; `coldstream status --json` lists them all"


def test_status_shows_alarms_as_long_as_they_stand(books, ledger):
    def drifted(active):
        facts = {"value": 121.04, "low": 178.0, "expected": 200.0, "high": 223.0}
        return PickingDrifted(movie=MOVIE, measure="nearest_neighbour_A", active=active, **facts)

    refuse(books, 1)
    line = "picks drift: nearest_neighbour_A 121 on average, usual are 178 to 223"
    for body, shown in (
        (drifted(True), True),
        (drifted(False), False),
        (drifted(True), True),
        (ResultsOutdated(stage="autopick", movies=(MOVIE,)), False),
    ):
        books.add("proc", body)
        ledger.update()
        assert (line in stories.status_lines(ledger)) == shown
        assert ledger.as_json()["drifting"] == (["nearest_neighbour_A"] if shown else [])


def test_a_story_ends_with_where_the_movie_stands(books, ledger):
    books.add("mdcatch", MovieSeen(movie=MOVIE, path=f"{MOVIE}.tiff"), settled(MOVIE, 0.0))
    ledger.update()
    assert stories.verdict(ledger, MOVIE) == "done in mdcatch, on its way to the next service"
    books.add("prep", MovieImported(movie=MOVIE, settled=settled(MOVIE, 0.0)))
    ledger.update()
    assert stories.verdict(ledger, MOVIE).startswith("pending in prep for ")
    assert stories.verdict(ledger, MOVIE).endswith(" s: waits for its turn")
    refused = MicrographRefused(
        movie=MOVIE, stage="motioncorr", code=Code.POISON, detail="a worker died", attempts=3
    )
    books.add("prep", refused)
    ledger.update()
    first, *events, last = stories.story_lines(ledger, MOVIE)
    assert first == MOVIE and last == "  now: refused in prep (POISON): a worker died"
    assert [line.split()[2:4] for line in events] == [
        ["mdcatch", "movie.seen"],
        ["mdcatch", "movie.settled"],
        ["prep", "movie.imported"],
        ["prep", "micrograph.refused"],
    ]
    assert "optics_group=1 n_frames=20 pixel_size_A=1.5 dose_e_A2=30" in events[1]
    assert 'code=POISON detail="a worker died"' in events[3]
    assert stories.verdict(ledger, "other") == "unknown"


def test_a_story_as_json_has_every_fact(books, ledger):
    books.add("mdcatch", MovieSeen(movie=MOVIE, path=f"{MOVIE}.tiff"), settled(MOVIE, 0.0))
    ledger.update()
    told = json.loads(json.dumps(stories.story_json(ledger, MOVIE)))
    assert told["movie"] == MOVIE and told["verdict"].startswith("done in mdcatch")
    seen, done = told["events"]
    assert (seen["producer"], seen["seq"], seen["kind"]) == ("mdcatch", 1, "movie.seen")
    assert done["dose_e_A2"] == 30.0 and len(done["uid"]) == 32 and done["cause"] is None
