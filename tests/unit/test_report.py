import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.kit.events import (
    ClassesAveraged,
    ClassesIterated,
    ClassesRanked,
    MicrographCorrected,
    MicrographCtf,
    MovieSeen,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
    RankingRefused,
    ResultsOutdated,
    SessionOpened,
    SessionReopened,
)
from services.kit.journal import Draft
from services.kit.journal import Journal as Real
from services.kit.ledger import STAGES, Ledger
from services.kit.paths import Layout
from services.report import readings
from services.report.ctfplots import like_model
from services.report.facts import ReportFacts, ledger, set_aside, stories
from services.report.flow import latencies
from services.report.gallery import class_sheet, selection_sheet
from services.report.html import write_report
from services.report.thumbnails import montage, thumbnail, uri
from services.report.values import rows_of
from tests.report_session import (
    PIXEL_A,
    START,
    Journal,
    movie_name,
    settled,
    tell_session,
    write_project,
)
from tests.webpages import Page

SIZE_PX = 256
# All that a page may load or lead to: what is in it, and the pages beside it.
OWN = ("data:image/", "#", "report/micrographs/")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Journal]:
    project = tmp_path_factory.mktemp("project")
    journal = tell_session(18, SIZE_PX)
    write_project(project, journal)
    return project, journal


@pytest.fixture(scope="module")
def page(session: tuple[Path, Journal], tmp_path_factory: pytest.TempPathFactory) -> str:
    project, journal = session
    out = tmp_path_factory.mktemp("out") / "report.html"
    facts = ReportFacts(session="Simulated_20261125_apo", events=journal.events)
    assert write_report(project, out, facts) == out
    return out.read_text()


def test_ledger_counts_every_movie_in_every_room() -> None:
    told = stories(tell_session(18).events)
    counts = {
        line.room: (line.seen, line.done, line.refused, line.pending) for line in ledger(told)
    }
    # 18 movies and one waiting for its XML; 1 truncated; 1 bad in prep; the last one just came.
    assert counts == {"mdcatch": (19, 17, 1, 1), "prep": (17, 15, 1, 1), "proc": (15, 15, 0, 0)}


def test_counts_agree_with_the_ledger_that_status_shows(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.journals.mkdir(parents=True)
    told = tell_session(18).events
    for stage in STAGES:
        with closing(Real(layout.journal(stage), stage, "Simulated")) as journal:
            journal.commit([Draft(e.body, e.at) for e in told if e.producer == stage])
    kept = Ledger(layout, keep_events=True)
    kept.update()
    lines = ledger(stories(kept.events or []))
    kept.close()
    for line in lines:
        counts = kept.counts(line.room)
        assert (line.seen, line.done, line.refused, line.pending) == (
            counts.seen,
            counts.done,
            counts.refused,
            counts.pending,
        )
    assert len(set_aside(stories(kept.events or []))) == len(kept.not_done())


def test_set_aside_names_stage_code_and_detail() -> None:
    aside = set_aside(stories(tell_session(18).events))
    found = [(item.state, item.stage, item.code) for item in aside]
    assert found == [
        ("refused", "mdcatch", "TRUNCATED"),
        ("refused", "motioncorr", "NOT_FINITE"),
        ("pending", "mdcatch", "NO_METADATA"),
        ("pending", "prep", ""),
    ]
    assert aside[0].movie == movie_name(5)
    assert "1,048,576 bytes" in aside[0].detail


def test_a_later_result_replaces_a_refusal_and_outdated_results_are_pending_again() -> None:
    journal = tell_session(18)
    movie = movie_name(5)
    journal.add(900, "mdcatch", settled(movie, 5.0 + 15 * 5))
    journal.add(901, "prep", ResultsOutdated(stage="ctffind", movies=(movie_name(0), "unknown")))
    lines = {line.room: line for line in ledger(stories(journal.events))}
    assert (lines["mdcatch"].done, lines["mdcatch"].refused) == (18, 0)
    assert (lines["prep"].done, lines["prep"].pending) == (14, 3)


def test_latency_counts_from_last_byte_or_opening_whichever_is_later() -> None:
    journal = Journal()
    journal.add(0, "mdcatch", SessionOpened(name="s", raw="/r", software="EPU"))
    journal.add(100, "mdcatch", SessionReopened(raw="/r"))
    for movie, written_at in (("old", 20.0), ("new", 150.0)):
        journal.add(152, "mdcatch", _seen(movie))
        journal.add(153, "mdcatch", settled(movie, written_at))
    seconds = dict(latencies(stories(journal.events)))["last byte to complete"]
    assert seconds == pytest.approx([53.0, 3.0], abs=1e-3)


def test_motion_is_told_in_angstrom() -> None:
    told = stories(tell_session(3).events)
    body = told[0].get(MicrographCorrected)
    assert body is not None
    assert rows_of(told)["total_A"][0] == pytest.approx(body.motion_total_px * PIXEL_A)


def test_page_is_self_contained_and_complete(page: str) -> None:
    parsed = Page(page)
    assert all(source.startswith(OWN) for source in parsed.sources)
    assert len(page.encode()) < 5_000_000
    assert "script" not in parsed.tags
    assert 'class="badge">simulated' in page
    assert "TRUNCATED" in page and "1,048,576 bytes" in page
    assert parsed.tags["circle"] > 15 * 30  # the picked positions
    assert page.count("data:image/png") == 17  # the figures, with the map of the stage
    # 15 micrographs and 15 CTF images, and the sheet of particles
    assert page.count("data:image/jpeg") == 31


def test_same_facts_give_the_same_page(
    session: tuple[Path, Journal], page: str, tmp_path: Path
) -> None:
    project, journal = session
    facts = ReportFacts(session="Simulated_20261125_apo", events=journal.events)
    again = write_report(project, tmp_path, facts)
    assert again.name == "report.html"
    hide = re.compile(r"Written \S+ \S+")
    assert hide.sub("", again.read_text()) == hide.sub("", page)


def test_a_session_of_a_microscope_is_not_called_simulated(tmp_path: Path) -> None:
    facts = ReportFacts(session="20261125_apo", events=tell_session(2).events)
    assert "simulated" not in write_report(tmp_path, tmp_path / "r.html", facts).read_text().lower()


def test_empty_session(tmp_path: Path) -> None:
    page = write_report(tmp_path, tmp_path / "r.html", ReportFacts(session="s", events=()))
    text = page.read_text()
    Page(text)
    assert text.count("No data yet.") == 16
    assert "No micrographs yet." in text


@pytest.mark.parametrize("damage", ["nothing there", "empty files", "text for images", "cut short"])
def test_missing_and_broken_files_leave_placeholders(
    session: tuple[Path, Journal], tmp_path: Path, damage: str
) -> None:
    project, journal = session
    copy = tmp_path / "project"
    if damage != "nothing there":
        shutil.copytree(project, copy)
        for path in (path for path in copy.rglob("*") if path.is_file()):
            whole = path.read_bytes()
            path.write_bytes(
                {"empty files": b"", "text for images": b"data_\nloop_\n"}.get(
                    damage, whole[: len(whole) // 2]
                )
            )
    page = write_report(copy, tmp_path / "r.html", ReportFacts(session="s", events=journal.events))
    text = page.read_text()
    Page(text)
    assert text.count(">no image<") == 15
    assert text.count("no CTF image") == 15


def test_hostile_names_are_text(tmp_path: Path) -> None:
    journal = Journal()
    journal.add(0, "mdcatch", _seen("<script>alert(1)</script>"))
    facts = ReportFacts(session='"><img src=x onerror=alert(1)>', events=journal.events)
    parsed = Page(write_report(tmp_path, tmp_path / "r.html", facts).read_text())
    assert "script" not in parsed.tags and "x" not in parsed.sources


def test_many_movies_stay_small(tmp_path: Path) -> None:
    facts = ReportFacts(session="s", events=tell_session(3000).events)
    page = write_report(tmp_path, tmp_path / "r.html", facts)
    assert page.stat().st_size < 5_000_000
    assert "more; " in page.read_text()  # the table of refused movies is cut, and says so


def test_track_leaves_unused_frames_out_and_is_in_angstrom(
    session: tuple[Path, Journal],
) -> None:
    project, journal = session
    body = next(e.body for e in journal.events if isinstance(e.body, MicrographCorrected))
    track = readings.read_track(project / body.metadata_star, 99.0)
    assert track is not None
    path_A = np.hypot(np.diff(track.x_A), np.diff(track.y_A)).sum()
    assert len(track.x_A) == 20  # the file also lists an unused frame
    assert path_A == pytest.approx(body.motion_total_px * PIXEL_A, rel=1e-3)


def test_profile_and_coordinates_are_read(session: tuple[Path, Journal]) -> None:
    project, journal = session
    ctf = next(e.body for e in journal.events if isinstance(e.body, MicrographCtf))
    picks = next(e.body for e in journal.events if isinstance(e.body, ParticlesPicked))
    profile = readings.read_profile(project / readings.without_suffix(ctf.ctf_image))
    found = readings.read_coordinates(project / picks.coordinates)
    assert profile is not None and found is not None
    assert profile.s[-1] == pytest.approx(90 / 179.2)
    assert 0.0 <= profile.model.min() and profile.model.max() <= 1.0
    assert len(found.x_px) == len(found.y_px) > 30


def test_stack_is_sampled_evenly(session: tuple[Path, Journal]) -> None:
    project, journal = session
    body = next(e.body for e in journal.events if isinstance(e.body, ParticlesExtracted))
    whole = readings.read_stack(project / str(body.stack), 100)
    some = readings.read_stack(project / str(body.stack), 4)
    assert len(whole) == 12
    for image, index in zip(some, (1, 4, 7, 10), strict=True):
        np.testing.assert_array_equal(image, whole[index])


def test_profile_is_drawn_on_the_scale_of_its_model() -> None:
    s = np.linspace(0, 0.3, 300)
    model = np.abs(np.sin(3000 * s**2))
    flat = np.zeros_like(s)
    profile = readings.Profile(
        s=s, rotational=flat, epa=0.02 * model - 0.01, model=model, agreement=flat
    )
    drawn = like_model(profile, 4.0)
    shown = s >= 1 / 30
    np.testing.assert_allclose(drawn[shown], model[shown], atol=1e-9)
    assert np.isnan(drawn[~shown]).all()


def test_thumbnail_keeps_low_frequencies_removes_high_ones_and_turns_upright() -> None:
    y, x = np.mgrid[:600, :800]
    slow = np.sin(2 * np.pi * x / 200)  # 200 px of 1 A: far below 20 A
    fast = 5 * np.sin(2 * np.pi * x / 5)  # 5 A
    image = (slow + fast + 2.0 * (y < 60)).astype(np.float32)  # bright at the bottom
    picture = np.asarray(thumbnail(image, 1.0), dtype=float)
    assert picture.shape == (384, 512)
    assert picture[-30:].mean() > picture[:-60].mean() + 40  # row 0 of the data is at the bottom
    row = picture[100] - picture[100].mean()
    expected = np.sin(2 * np.pi * np.arange(512) / 128)
    assert np.corrcoef(row, expected)[0, 1] > 0.98


def test_small_and_flat_images_make_thumbnails() -> None:
    assert thumbnail(np.zeros((7, 9), np.float32), 1.0).size == (8, 8)
    sheet = montage([np.zeros((16, 16), np.float32)] * 5, columns=3, tile_px=20, gap_px=2)
    assert isinstance(sheet, Image.Image) and sheet.size == (64, 42)


def _seen(movie: str) -> MovieSeen:
    return MovieSeen(movie=movie, path="p")


def test_story_knows_when_it_was_told() -> None:
    story = stories(tell_session(2).events)[0]
    assert story.at(MovieSettled) is not None
    assert story.available_at() == pytest.approx(START + 5.0)
    assert story.at(ResultsOutdated) is None


def test_classes_are_shown_as_they_are_now(tmp_path: Path) -> None:
    """The running job's picture where there is one, else the last that was finished."""
    project, journal = tmp_path / "project", tell_session(2)
    done, now = "Class2D/job007/", "Class2D/job008/"
    (project / done).mkdir(parents=True)
    montage_path = f"{done}run_it200_classes.png"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(project / montage_path)
    finished = ClassesAveraged(
        process=done, iteration=200, particles=410, optimiser=f"{done}x.star", montage=montage_path
    )
    journal.add(900.0, "proc", finished)
    told = ClassesIterated(
        process=now,
        iteration=3,
        iterations=200,
        place=3.0,
        particles=200,
        total=1234,
        particles_per_s=900.0,
        log_likelihood=1e6,
        resolution_A=21.04,
        classes=7,
    )
    journal.add(950.0, "proc", told)
    sheet = class_sheet(project, journal.events)
    assert sheet is not None
    assert sheet[0] == "Class2D/job008/: iteration 3 of 200, 1,234 particles, 21.0 Å."
    assert sheet[1] == uri((project / montage_path).read_bytes())
    (project / now).mkdir()
    Image.fromarray(np.full((20, 30), 9, np.uint8)).save(project / now / "run_classes.png")
    journal.add(960.0, "ranker", RANKED)
    (project / RANKED.job).mkdir(parents=True)
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(project / RANKED.sheet)
    page = write_report(
        project, tmp_path / "r.html", ReportFacts(session="S", events=journal.events)
    )
    assert uri((project / now / "run_classes.png").read_bytes()) in page.read_text()
    assert uri((project / RANKED.sheet).read_bytes()) in page.read_text()
    assert "the quantile 0.5 of the scores" in page.read_text()
    (project / now / "run_classes.png").unlink()
    (project / montage_path).unlink()
    assert class_sheet(project, journal.events) is None


RANKED = ClassesRanked(
    order=1,
    process="Class2D/job007/",
    visit=1,
    iteration=200,
    is_final=True,
    optimiser="o",
    job="Select/job008/",
    stack="s",
    scores=(0.9, 0.2, 0.05),
    outcomes=("keep", "ask", "drop"),
    threshold=0.31,
    threshold_note="threshold 0.31: the quantile 0.5 of the scores of this session's classes",
    ask_threshold=0.1,
    automatic=True,
    mode="coldstream",
    weights="/opt/w.safetensors",
    weights_digest="d",
    total=1234,
    particles=567,
    overrides=1,
    sheet="Select/job008/rank_classes.png",
    remarks=("protein is bright in only 1 of 3 classes",),
    took_s=0.1,
)


def test_the_selection_is_shown_with_its_threshold(tmp_path: Path) -> None:
    project, journal = tmp_path / "project", tell_session(2)
    assert selection_sheet(project, journal.events) is None
    journal.add(900.0, "ranker", RANKED)
    (project / RANKED.job).mkdir(parents=True)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(project / RANKED.sheet)
    told = selection_sheet(project, journal.events)
    assert told is not None and told[1] == uri((project / RANKED.sheet).read_bytes())
    text = "\n".join(told[0])
    for words in (
        "1 classes kept, 1 for a person to decide, 1 dropped; 567 of 1,234 particles",
        "the quantile 0.5 of the scores",
        "w.safetensors, mode coldstream",
        "1 classes are decided by a person",
        "bright in only 1 of 3",
    ):
        assert words in text
    refused = RankingRefused(
        order=2,
        process="Class2D/job007/",
        visit=1,
        iteration=200,
        is_final=True,
        job=RANKED.job,
        reason="no_model",
        detail="there are no weights",
    )
    journal.add(950.0, "ranker", refused)
    lines = ["Class2D/job007/: iteration 200 has no scores. there are no weights"]
    assert selection_sheet(project, journal.events) == (lines, None)
