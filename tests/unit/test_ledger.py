"""The ledger: seen = done + refused + pending, at every stage, after every event."""

import msgspec
import pytest

from services.kit.errors import Code
from services.kit.events import (
    ClassesAveraged,
    ClassesDue,
    ClassesFailed,
    MicrographImported,
    MicrographRefused,
    MovieImported,
    MovieRefused,
    MovieSeen,
    ResultsOutdated,
    SelectionAnswered,
    SelectionDue,
    SessionClosed,
    SessionOpened,
    SessionReopened,
    SettingsApplied,
    WaitStarted,
)
from services.kit.ledger import STAGES, Counts, Ledger
from services.stories import status_lines
from tests.books import Books
from tests.report_session import extracted, fitted, settled

CLOSED = SessionClosed(seen=3, settled=2, refused=1, waiting=0)


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


def seen(movie: str) -> MovieSeen:
    return MovieSeen(movie=movie, path=f"{movie}.tiff")


def go_through(books: Books, *movies: str) -> None:
    """Take movies from the microscope to particles."""
    for movie in movies:
        books.add("mdcatch", seen(movie), settled(movie, 0.0))
        ctf = fitted(movie, 9000.0, 4.0, 100)
        books.add("prep", MovieImported(movie=movie, settled=settled(movie, 0.0)), ctf)
        books.add("proc", MicrographImported(movie=movie, ctf=ctf), extracted(movie, 10))


def counts(ledger: Ledger) -> dict[str, tuple[int, ...]]:
    ledger.update()
    found = {stage: ledger.counts(stage) for stage in STAGES}
    for c in found.values():
        assert c.seen == c.done + c.refused + c.pending
    return {stage: msgspec.structs.astuple(c) for stage, c in found.items()}


def test_an_empty_project_has_an_empty_ledger(ledger):
    assert not ledger.update() and not ledger.settled()
    assert ledger.counts("prep") == Counts(0, 0, 0, 0)
    assert ledger.story("m") == [] and ledger.find("m") == []


def test_a_movie_moves_from_stage_to_stage(books, ledger):
    books.add("mdcatch", seen("m1"))
    assert counts(ledger)["mdcatch"] == (1, 0, 0, 1)
    books.add("mdcatch", settled("m1", 0.0))
    assert counts(ledger)["mdcatch"] == (1, 1, 0, 0)
    books.add("prep", MovieImported(movie="m1", settled=settled("m1", 0.0)))
    assert counts(ledger)["prep"] == (1, 0, 0, 1)
    ctf = fitted("m1", 9000.0, 4.0, 100)
    books.add("prep", ctf)
    books.add("proc", MicrographImported(movie="m1", ctf=ctf))
    assert counts(ledger) == {"mdcatch": (1, 1, 0, 0), "prep": (1, 1, 0, 0), "proc": (1, 0, 0, 1)}
    books.add("proc", extracted("m1", 12))
    assert counts(ledger)["proc"] == (1, 1, 0, 0) and ledger.particles == {"m1": 12}
    assert not ledger.update(), "nothing new"


def test_what_waits_or_is_refused_says_why(books, ledger):
    books.add("mdcatch", seen("m1"), seen("m2"))
    books.add("mdcatch", WaitStarted(subject="m1", code=Code.NO_METADATA, detail="no XML yet"))
    books.add("mdcatch", WaitStarted(subject="session", code="IDLE", detail="nothing comes"))
    books.add("mdcatch", MovieRefused(movie="m2", code=Code.TRUNCATED, detail="cut"))
    assert counts(ledger)["mdcatch"] == (2, 0, 1, 1)
    rows = {movie: (e.status, e.code, e.detail) for _, movie, e in ledger.not_done()}
    assert rows == {
        "m1": ("pending", "NO_METADATA", "no XML yet"),
        "m2": ("refused", "TRUNCATED", "cut"),
    }


def test_results_that_are_due_again_are_pending_and_not_counted(books, ledger):
    go_through(books, "m1", "m2")
    books.add("proc", ResultsOutdated(stage="extract", movies=("m1",)))
    assert counts(ledger)["proc"] == (2, 1, 0, 1)
    assert ledger.particles == {"m2": 10}
    books.add("proc", MicrographRefused(movie="m1", stage="extract", code="POISON", detail="x"))
    assert counts(ledger)["proc"] == (2, 1, 1, 0)


def test_settled_means_closed_started_and_nothing_under_way(books, ledger):
    books.add("mdcatch", SessionOpened(name="s", raw="/raw", software="EPU"))
    go_through(books, "m1")
    books.add("mdcatch", seen("m2"))
    steps = (
        ("mdcatch", MovieRefused(movie="m2", code=Code.TRUNCATED, detail="cut")),
        ("mdcatch", CLOSED),
        ("prep", SettingsApplied(digest="d")),
        ("proc", SettingsApplied(digest="d")),
    )
    for producer, body in steps:
        ledger.update()
        assert not ledger.settled()
        books.add(producer, body)
    ledger.update()
    assert ledger.settled() and ledger.session is not None and ledger.session.raw == "/raw"
    books.add("mdcatch", SessionReopened(raw="/raw"))
    ledger.update()
    assert not ledger.settled()


@pytest.mark.parametrize("missing", ["prep", "proc"])
def test_a_movie_between_two_services_is_under_way(books, ledger, missing):
    go_through(books, "m1")
    books.add("mdcatch", seen("m2"), settled("m2", 0.0))
    if missing == "proc":
        ctf = fitted("m2", 9000.0, 4.0, 100)
        books.add("prep", MovieImported(movie="m2", settled=settled("m2", 0.0)), ctf)
    ledger.update()
    assert not ledger.at_rest()


def test_a_movie_that_waits_for_a_file_does_not_keep_a_session_open(books, ledger):
    go_through(books, "m1")
    books.add("mdcatch", seen("m2"))
    ledger.update()
    assert not ledger.at_rest(), "it is still settling"
    books.add("mdcatch", WaitStarted(subject="m2", code=Code.NO_METADATA, detail="no XML"))
    ledger.update()
    assert ledger.at_rest()


def test_after_expect_start_an_old_close_does_not_count(books, ledger):
    go_through(books, "m1")
    books.add("mdcatch", CLOSED)
    for service in ("prep", "proc"):
        books.add(service, SettingsApplied(digest="d"))
    ledger.expect_start()
    assert not ledger.settled()
    for service in ("prep", "proc"):
        books.add(service, SettingsApplied(digest="d"))
    ledger.update()
    assert not ledger.settled()
    books.add("mdcatch", CLOSED)
    ledger.update()
    assert ledger.settled()


def test_movies_are_found_by_name_and_by_part(books, ledger):
    names = ("D/Data/F_1_Data_2", "D/Data/F_1_Data_22", "E/Data/F_1_Data_2")
    for name in names:
        books.add("mdcatch", seen(name))
    ledger.update()
    assert ledger.find("F_1_Data_2") == [names[0], names[2]], "whole names come first"
    assert ledger.find("D/Data/F_1_Data_2") == [names[0]]
    assert ledger.find("Data_22") == [names[1]]
    assert ledger.find("F_1") == list(names) and ledger.find("F_9") == []


def test_the_story_of_a_movie_is_in_the_order_of_time(books, ledger):
    go_through(books, "m1", "m2")
    kinds = [(e.producer, e.body.__struct_config__.tag) for e in ledger.story("m1")]
    assert kinds == [
        ("mdcatch", "movie.seen"),
        ("mdcatch", "movie.settled"),
        ("prep", "movie.imported"),
        ("prep", "micrograph.ctf"),
        ("proc", "micrograph.imported"),
        ("proc", "particles.extracted"),
    ]


def test_json_is_the_same_for_the_same_outcome(books, ledger, tmp_path):
    other = Books(tmp_path / "Q")
    for made, order in ((books, ("m1", "m2")), (other, ("m2", "m1"))):
        go_through(made, *order)
        for movie in reversed(order):
            refused = MicrographRefused(movie=movie, stage="extract", code="POISON", detail="x")
            made.add("proc", refused)
    ledger.update()
    second = Ledger(other.layout)
    second.update()
    assert msgspec.json.encode(ledger.as_json()) == msgspec.json.encode(second.as_json())
    second.close()
    other.close()


def test_events_are_kept_for_a_report_only_when_asked_for(books, ledger):
    go_through(books, "m1")
    ledger.update()
    assert ledger.events is None
    keeper = Ledger(books.layout, keep_events=True)
    keeper.update()
    assert keeper.events is not None and len(keeper.events) == 6
    keeper.close()


def test_a_journal_that_is_just_being_made_is_waited_for(books, ledger):
    books.layout.journal("prep").touch()
    assert not ledger.update()
    books.layout.journal("prep").unlink()
    go_through(books, "m1")
    assert ledger.update() and ledger.counts("prep").done == 1


def test_a_movie_that_is_refused_after_it_was_processed_does_not_keep_a_session_open(books, ledger):
    go_through(books, "m1", "m2")
    books.add("mdcatch", MovieRefused(movie="m1", code=Code.TRUNCATED, detail="replaced by half"))
    ledger.update()
    assert ledger.at_rest()
    books.add("prep", ResultsOutdated(stage="motioncorr", movies=("m2",)))
    ledger.update()
    assert not ledger.at_rest()
    books.add("prep", MicrographRefused(movie="m2", stage="motioncorr", code="POISON", detail="x"))
    ledger.update()
    assert ledger.at_rest(), "proc has what prep has not any more"


def selection_due(visit: int, *, is_final: bool = False) -> SelectionDue:
    label, process = "relion.select.class2dauto", f"Class2D/job{visit:03d}/"
    return SelectionDue(
        node="select_parts",
        label=label,
        process=process,
        visit=visit,
        options={},
        key=label,
        is_final=is_final,
    )


def answered(visit: int, outcome) -> SelectionAnswered:
    return SelectionAnswered(
        process="Class2D/job001/", visit=visit, job="Select/job002/", outcome=outcome
    )


def averaged(visit: int) -> ClassesAveraged:
    process = f"Class2D/job{visit:03d}/"
    return ClassesAveraged(process=process, iteration=9, particles=9, optimiser="o", montage="m")


def test_a_selection_that_is_due_keeps_a_session_open(books, ledger):
    books.add("prep", SettingsApplied(digest="d"))
    books.add("proc", SettingsApplied(digest="d"))
    books.add("mdcatch", SessionClosed(seen=0, settled=0, refused=0, waiting=0))
    books.add("proc", averaged(1))  # of a time before there was a ranker: nobody is asked
    ledger.update()
    assert ledger.selection.status == "none" and ledger.settled()
    books.add("proc", selection_due(1), averaged(1))
    ledger.update()
    assert ledger.selection.status == "due" and not ledger.settled()
    books.add("proc", answered(1, "asks"))  # a person may never come
    ledger.update()
    assert ledger.settled() and "a person is asked" in "\n".join(status_lines(ledger))
    books.add("proc", selection_due(2), averaged(2), answered(1, "selected"))  # of the one before
    ledger.update()
    assert ledger.selection.status == "due"
    books.add("proc", answered(2, "refused"))
    ledger.update()
    assert ledger.settled() and ledger.as_json()["selection"]["status"] == "refused"  # type: ignore[index]


def test_what_the_ranker_copies_is_not_due_once_more(books, ledger):
    asked = selection_due(1, is_final=True)
    books.add("proc", asked)
    books.add("ranker", asked)
    ledger.update()
    assert ledger.selection.status == "due"
    books.add("proc", answered(1, "nothing"))
    ledger.update()
    assert ledger.selection.status == "nothing"
    assert "no class is selected" in "\n".join(status_lines(ledger))
    books.add("proc", selection_due(1, is_final=True), answered(1, "selected"))
    books.add("ranker", asked)  # read after the answer, though it was written before
    ledger.update()
    assert ledger.selection.status == "selected"


def test_no_selection_is_due_for_ever(books, ledger):
    books.add("proc", selection_due(1), averaged(1), selection_due(2), answered(1, "selected"))
    books.add("proc", ClassesFailed(process="Class2D/job002/", reason="failed", detail="no"))
    ledger.update()
    assert ledger.selection.status == "selected", "the answer to the first came late"
    due = ClassesDue(
        node="class2d", key="k", is_new=False, streaming=True, micrographs=9, particles=9
    )
    books.add("proc", due, averaged(2))  # the ranker has been switched off
    ledger.update()
    assert ledger.selection.status == "selected"
