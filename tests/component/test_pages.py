"""`coldstream report` and `coldstream micrograph show` on a project with real journals."""

import io
import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from services.cli import app
from services.kit import session as sessions
from services.kit.events import MicrographCorrected, MicrographCtf, ParticlesPicked
from services.kit.journal import Draft
from services.kit.journal import Journal as Book
from services.kit.ledger import STAGES
from services.kit.paths import Layout
from services.report import ctfplots, pictures, readings
from services.report.files import stem_of
from services.report.session import facts_of
from tests.report_session import Journal, movie_name, tell_session, write_project
from tests.webpages import Page, open_fonts

DONE, TRUNCATED, BAD, PENDING, WAITING = (movie_name(index) for index in (3, 5, 11, 17, 18))
SIZE_PX, DIAMETER_A = 256, 30.0
ORANGE, CYAN = (230, 159, 0), pictures.CIRCLE


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    open_fonts()


def keep(project: Path, journal: Journal) -> Layout:
    """Write events into the journals of a project."""
    layout = Layout(project)
    layout.journals.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        with closing(Book(layout.journal(stage), stage, "Simulated")) as book:
            book.commit([Draft(e.body, e.at) for e in journal.events if e.producer == stage])
    return layout


@pytest.fixture(scope="module")
def told() -> Journal:
    return tell_session(18, SIZE_PX)


@pytest.fixture(scope="module")
def project(told: Journal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pages") / "P"
    layout = keep(made, told)
    write_project(made, told)
    session = sessions.Session(name="apo", raw="/raw/apo", particle_diameter_A=DIAMETER_A)
    sessions.save(layout, session)
    limit = made / "Schemes/proc/select_mics/job.star"
    limit.parent.mkdir(parents=True)
    limit.write_text(
        "data_joboptions_values\nloop_\n_rlnJobOptionVariable\n_rlnJobOptionValue\n"
        "select_label rlnCtfMaxResolution\nselect_maxval 6\n"
    )
    return made


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """A copy of the project, for tests that damage it."""
    return Path(shutil.copytree(project, tmp_path / "P", ignore=shutil.ignore_patterns("report*")))


def run(*words: str | Path) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def show(project: Path, *words: str) -> str:
    """Make the page of a micrograph and return its text."""
    code, said = run("micrograph", "show", *words, "-p", project)
    assert code == 0, said
    text = Path(said.strip()).read_text()
    Page(text)
    return text


def picture(project: Path, movie: str, kind: str) -> np.ndarray:
    """Return a picture of a micrograph [ny, nx, 3]."""
    path = project / "report" / "micrographs" / f"{stem_of(movie)}_{kind}.png"
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def distance(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image - np.asarray(colour)).max(axis=2)


@pytest.fixture(scope="module")
def page(project: Path) -> str:
    return show(project, DONE)


def test_the_page_is_complete_in_itself(project: Path, page: str) -> None:
    parsed = Page(page)
    assert "script" not in parsed.tags and "default-src 'none'" in page
    loaded = [source for source in parsed.sources if source.startswith("data:")]
    assert len(loaded) == 5 and len(page) < 1_500_000
    folder = project / "report" / "micrographs"
    for link in parsed.sources:
        # No link leads nowhere: neighbours whose page nobody has asked for say how to get it.
        assert link.startswith("data:") or link == "../../report.html" or (folder / link).is_file()
    assert f"{stem_of(movie_name(2))}.html" in parsed.sources
    assert f"{stem_of(movie_name(4))}.html" in parsed.sources
    neighbour = (folder / f"{stem_of(movie_name(4))}.html").read_text()
    Page(neighbour)
    name = movie_name(4).rpartition("/")[2]
    assert f"coldstream micrograph show {name} --project {project}" in neighbour


def test_the_page_has_numbers_with_units_and_the_history(told: Journal, page: str) -> None:
    text = re.sub(r"<[^>]+>", "", page)
    moved, fit, picked = (
        next(e.body for e in told.events if type(e.body) is kind and e.body.movie == DONE)
        for kind in (MicrographCorrected, MicrographCtf, ParticlesPicked)
    )
    assert isinstance(moved, MicrographCorrected) and isinstance(fit, MicrographCtf)
    assert isinstance(picked, ParticlesPicked)
    for fact in (
        f"{moved.motion_total_px * 1.5:.1f} Å",
        f"{fit.defocus_u_A / 1e4:.3f}, {fit.defocus_v_A / 1e4:.3f} µm",
        f"{fit.max_resolution_A:.2f} Å (limit 6 Å)",
        f"{picked.nearest_neighbour_A:.0f} Å, median",
        "1.5 e/Å² per frame",
        "done in proc",
    ):
        assert fact in text, fact
    kinds = ["movie.seen", "movie.settled", "movie.imported", "micrograph.corrected"]
    kinds += ["micrograph.ctf", "micrograph.imported", "particles.picked", "particles.extracted"]
    history = page[page.index("<h2>History") :]
    assert re.findall(r">([a-z]+\.[a-z]+)</td>", history) == kinds


@pytest.mark.usefixtures("page")
def test_each_pick_has_its_circle(project: Path, told: Journal) -> None:
    picked = next(
        e.body for e in told.events if isinstance(e.body, ParticlesPicked) and e.body.movie == DONE
    )
    found = readings.read_coordinates(project / picked.coordinates)
    assert found is not None and len(found.x_px) > 20
    image = picture(project, DONE, "picks")
    assert image.shape[0] == SIZE_PX and image.std() > 20
    is_ring = distance(image, CYAN) < 60
    radius = DIAMETER_A / 1.5 / 2
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for x, y in zip(found.x_px, found.y_px, strict=True):
        across = x + 0.5 + (radius - 1) * np.cos(angles)
        down = SIZE_PX - (y + 0.5) + (radius - 1) * np.sin(angles)
        inside = (across > 2) & (across < 253) & (down > 2) & (down < 253)
        inside &= (across > 100) | (down < 200)  # where the scale bar is not
        if not inside.any():
            continue
        assert is_ring[down[inside].astype(int), across[inside].astype(int)].mean() > 0.6
    # The rings' share of the picture: as many as there are picks, no more.
    assert is_ring.sum() < 1.6 * len(found.x_px) * 2 * np.pi * radius * pictures.LINE_PX


def test_a_circle_is_around_what_it_marks_and_the_bar_has_its_length() -> None:
    y, x = np.mgrid[:600, :900]
    image = np.exp(-(np.hypot(x - 700, y - 150) ** 2) / 200).astype(np.float32)
    drawn = pictures.with_picks(image, 2.0, np.asarray([[700.0, 150.0]]), 40.0, low_pass_A=4.0)
    seen = np.asarray(drawn).astype(int)
    assert seen.shape == (600, 900, 3)
    rings = np.argwhere(distance(seen, CYAN) < 60)
    assert rings.mean(axis=0) == pytest.approx([600 - 150.5, 700.5], abs=1.0)  # row 0 is below
    assert np.ptp(rings, axis=0) == pytest.approx([80, 80], abs=4)
    bar = np.argwhere(distance(seen[-40:, :300], (255, 255, 255)) == 0)
    longest = np.ptp(bar[bar[:, 0] == 24][:, 1])  # a row inside the bar
    assert longest == pytest.approx(100, abs=2)  # 200 A: the longest that is a fifth of 1,800


@pytest.mark.usefixtures("page")
def test_the_fits_ring_is_where_its_resolution_is(project: Path, told: Journal) -> None:
    fit = next(
        e.body for e in told.events if isinstance(e.body, MicrographCtf) and e.body.movie == DONE
    )
    profile = readings.read_profile(project / readings.without_suffix(fit.ctf_image))
    assert profile is not None
    image = picture(project, DONE, "spectrum")
    assert image.shape == (ctfplots.SPECTRUM_PX, ctfplots.SPECTRUM_PX, 3)
    scale = ctfplots.SPECTRUM_PX / 128
    for resolution_A, colour in ((fit.max_resolution_A, ORANGE), (6.0, (86, 180, 233))):
        radius = scale / resolution_A / float(profile.s[1])
        angles = np.linspace(np.pi, 1.4 * np.pi, 30)  # at the left, where no letters are
        x, y = 64.5 * scale, 63.5 * scale
        near = np.zeros(len(angles), bool)
        for off in (-1, 0, 1):
            across = (x + (radius + off) * np.cos(angles)).astype(int)
            down = (y + (radius + off) * np.sin(angles)).astype(int)
            near |= distance(image[down, across][None], colour)[0] < 40
        assert near.mean() > 0.8, resolution_A


@pytest.mark.usefixtures("page")
def test_drift_and_curve_are_drawn(project: Path) -> None:
    drift, steps, curve = (picture(project, DONE, kind) for kind in ("drift", "steps", "curve"))
    assert (distance(drift, ORANGE) < 20).sum() > 50  # the whole frame, in the image
    assert (distance(drift, (0, 114, 178)) < 20).sum() > 200
    assert (distance(steps, (0, 114, 178)) < 20).sum() > 5000  # bars
    assert (distance(curve, (0, 158, 115)) < 20).sum() > 300
    for image in (drift, steps, curve):
        assert image.min() < 90  # letters
        assert (image[:2] == 255).all() and (image[-2:] == 255).all()  # nothing is cut off
        assert (image[:, :2] == 255).all() and (image[:, -2:] == 255).all()


@pytest.mark.parametrize(
    ("movie", "words"),
    [
        (TRUNCATED, ("refused in mdcatch (TRUNCATED)", "has not been aligned")),
        (BAD, ("refused in prep (NOT_FINITE)", "has not been aligned", "has not been fitted")),
        (PENDING, ("pending in prep", "has not been aligned")),
        (WAITING, ("NO_METADATA", "has not been aligned")),
    ],
)
def test_a_micrograph_that_is_not_there_says_why(
    project: Path, movie: str, words: tuple[str, ...]
) -> None:
    text = re.sub(r"<[^>]+>", "", show(project, movie))
    for word in words:
        assert word in text


def test_files_that_are_gone_or_broken_are_named(copy: Path) -> None:
    root = next(copy.glob(f"MotionCorr/job002/Movies/{DONE}*.mrc"))
    root.unlink()
    root.with_suffix(".star").write_text("data_\nloop_\n")
    text = re.sub(r"<[^>]+>", "", show(copy, DONE))
    assert f"No micrograph: {root} is not there." in text
    assert f"No motion: {root.with_suffix('.star')} cannot be read." in text
    assert f"MotionCorr/job002/Movies/{DONE}_fractions.mrc (is not there)" in text
    assert text.count("data:image") == 0 and "CTF curve" in text
    shutil.rmtree(copy / "CtfFind")
    shutil.rmtree(copy / "AutoPick")
    assert "No spectrum:" in show(copy, DONE)


def test_names_that_do_not_fit_are_answered(project: Path, tmp_path: Path) -> None:
    name = DONE.rpartition("/")[2]
    for words, answers in (
        ((name.replace("Data", "Dat"),), (f"the nearest are {name}",)),
        (("FoilHole_7900",), ("10 micrographs match", "name one of them")),
        (("zebra",), ("no micrograph is called 'zebra'", "19")),
        ((), ("name one micrograph, or give --all",)),
        ((name, "--all"), ("name one micrograph, or give --all",)),
    ):
        code, said = run("micrograph", "show", *words, "-p", project)
        assert code == 2
        for answer in answers:
            assert answer in said
    code, said = run("micrograph", "show", name, "-p", tmp_path / "nowhere")
    assert code == 2 and "is not a folder" in said
    code, said = run("micrograph", "show", name, "-p", tmp_path)
    assert code == 2 and "has no coldstream session" in said


def test_a_file_of_the_movie_names_it(project: Path) -> None:
    code, said = run(
        "micrograph", "show", f"MotionCorr/job002/Movies/{DONE}_fractions_PS.mrc", "-p", project
    )
    assert code == 0 and stem_of(DONE) in said


def test_all_makes_only_what_is_not_up_to_date(tmp_path: Path) -> None:
    small, told = tmp_path / "P", tell_session(3, SIZE_PX)
    keep(small, told)
    write_project(small, told)
    code, said = run("micrograph", "show", "--all", "-p", small)
    assert code == 0 and said.startswith("4 pages written, 0 were up to date")
    assert len(list((small / "report" / "micrographs").glob("*_picks.png"))) == 2
    code, said = run("micrograph", "show", "--all", "-p", small)
    assert said.startswith("0 pages written, 4 were up to date")
    later = Journal()
    later.add(1000.0, "prep", next(e.body for e in told.events if _is_fit(e.body)))
    keep(small, later)
    code, said = run("micrograph", "show", "--all", "-p", small)
    assert said.startswith("1 pages written, 3 were up to date")


def _is_fit(body: object) -> bool:
    return isinstance(body, MicrographCtf) and body.movie == movie_name(1)


@pytest.fixture(scope="module")
def report(project: Path) -> str:
    code, said = run("report", "-p", project)
    assert code == 0 and said.strip() == str(project / "report.html")
    return (project / "report.html").read_text()


def test_the_reports_links_and_figures_are_there(project: Path, report: str) -> None:
    parsed = Page(report)
    links = [source for source in parsed.sources if source.startswith("report/")]
    assert len(links) == 15 and all((project / link).is_file() for link in links)
    figures = sorted(path.stem for path in (project / "report").glob("*.png"))
    assert {"motion", "defocus", "fit", "ice", "picks", "squares", "stage", "rate"} <= set(figures)
    for name in figures:
        data = (project / "report" / f"{name}.png").read_bytes()
        image = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert image.std() > 8, f"{name} is blank"
        assert (image[0] == 255).all() and (image[:, 0] == 255).all(), f"{name} is cut off"
    assert len(list((project / "report" / "thumbnails").glob("*_image.jpg"))) == 15


def test_thumbnails_are_made_once(project: Path, report: str) -> None:
    assert report
    thumbs = sorted((project / "report" / "thumbnails").iterdir())
    before = [path.stat().st_mtime_ns for path in thumbs]
    run("report", "-p", project)
    assert [path.stat().st_mtime_ns for path in thumbs] == before


def test_a_copy_without_its_settings_is_read_by_its_journals(copy: Path) -> None:
    (copy / ".coldstream" / "session.json").unlink()
    facts, ledger = facts_of(Layout(copy))
    ledger.close()
    assert (facts.session, facts.fit_limit_A, len(facts.events) > 100) == (
        "Simulated_apo",
        6.0,
        True,
    )


def test_names_of_files_stay_in_their_folder() -> None:
    names = ["../../etc/passwd", "a/<b>.tif", ".hidden", "x" * 400, "a/same", "b/same", ""]
    stems = [stem_of(name) for name in names]
    assert len(set(stems)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,140}", stem) for stem in stems)
