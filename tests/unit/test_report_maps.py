"""The 3D part of the report: RELION's own runs and tables, and what is missing."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algorithms.formats import mrc, star
from services.kit.events import Event, JobStarted, MapRefined, ParticlesTaken
from services.report import html, mapplots, mapslices, refinement
from services.report.facts import ReportFacts
from tests.report_session import Journal
from tests.shared import shared
from tests.webpages import open_fonts

SHELLS = 17


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    open_fonts()


def events(*bodies) -> list[Event]:
    """Return events of refine."""
    journal = Journal()
    for at, body in enumerate(bodies):
        journal.add(float(at), "refine", body)
    return journal.events


def refined(node: str, process: str, name: str, particles: int, at_A: float | None) -> MapRefined:
    return MapRefined(
        node=node, process=process, particles=particles, map=f"{process}{name}", resolution_A=at_A
    )


def started(node: str, process: str) -> JobStarted:
    return JobStarted(scheme="Schemes/refine/", node=node, process=process, label=node)


def pixels(image: bytes | None) -> np.ndarray:
    """Return a picture that has something on it."""
    assert image is not None
    found = np.asarray(Image.open(io.BytesIO(image)).convert("L"), dtype=float)
    assert found.std() > 5.0
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with what RELION's runs have left, and a table of post-processing."""
    place = tmp_path_factory.mktemp("project")
    runs = shared("data/refinement")
    for run, folder in (("class3d", "InitialModel/job001"), ("refine3d", "Refine3D/job002")):
        shutil.copytree(runs / run, place / folder, copy_function=shutil.copy)
    shutil.copy(
        runs / "ini3d/run_it020_class001.mrc", place / "InitialModel/job001/initial_model.mrc"
    )
    post = place / "PostProcess/job004"
    post.mkdir(parents=True)
    mrc.write(post / "postprocess.mrc", np.random.default_rng(1).normal(size=(16, 16, 16)), 2.0)
    shells = np.arange(SHELLS)
    fsc = {"rlnResolution": shells / 64.0}
    for label, *_ in mapplots.CURVES:
        fsc[label] = np.exp(-shells / 8.0)
    squared = (shells / 64.0) ** 2
    amplitudes = {"rlnResolutionSquared": squared}
    for label, *_ in mapplots.AMPLITUDES:
        amplitudes[label] = -5.0 - 40.0 * squared
    general = {
        "rlnFinalResolution": [7.5],
        "rlnBfactorUsedForSharpening": [-160.0],
        "rlnFittedSlopeGuinierPlot": [-40.0],
        "rlnFittedInterceptGuinierPlot": [-5.0],
    }
    tables = {
        "general": star.Table.of(general, loop=False),
        "fsc": star.Table.of({name: list(values) for name, values in fsc.items()}),
        "guinier": star.Table.of({name: list(values) for name, values in amplitudes.items()}),
    }
    star.save(post / "postprocess.star", tables)
    return place


INITIAL = refined("inimodel3d", "InitialModel/job001/", "initial_model.mrc", 500, 40.0)
REFINED = refined("refine3d", "Refine3D/job002/", "run_class001.mrc", 500, 48.0)
SHARPENED = refined("postprocess", "PostProcess/job004/", "postprocess.mrc", 500, 7.5)


def figures(project: Path, *bodies) -> dict[str, bytes | None]:
    section = refinement.section(project, events(*bodies))
    assert section is not None
    return {figure.name: figure.image for figure in section.figures}


def test_a_session_without_maps_has_no_such_section(tmp_path) -> None:
    taken = ParticlesTaken(process="x/", table="x/p.star", particles=9, is_selected=True)
    assert refinement.section(tmp_path, events(taken)) is None


def test_what_is_there_is_drawn_and_what_is_not_is_left_out(project) -> None:
    drawn = figures(project, started("inimodel3d", "InitialModel/job001/"))
    assert drawn["maps"] is None and drawn["fsc"] is None and "guinier" not in drawn
    pixels(drawn["directions"])  # of the job that runs
    before = figures(project, started("refine3d", REFINED.process), INITIAL, REFINED)
    for name in ("maps", "fsc", "directions", "resolution"):
        pixels(before[name])
    after = figures(project, started("refine3d", REFINED.process), INITIAL, REFINED, SHARPENED)
    pixels(after["guinier"])
    assert after["fsc"] != before["fsc"]  # the curves of post-processing now


def test_each_map_is_a_row_and_classes_have_their_share(project) -> None:
    maps = refinement.maps_of(events(started("refine3d", "x/"), INITIAL, REFINED, SHARPENED))
    rows = refinement.shown(project, maps)
    names = ["initial model", "class 1", "class 2", "refined", "sharpened"]
    assert [one.name for one in rows] == names
    table = star.load(project / "InitialModel/job001/run_it004_model.star")["model_classes"]
    share = table.floats("rlnClassDistribution")[0]
    assert rows[1].facts == f"{100 * share:.0f} %"
    assert "48.0 Å" in rows[3].facts and "500 particles" in rows[3].facts


def test_sections_and_projection_are_those_of_the_axes(tmp_path) -> None:
    volume = np.zeros((8, 8, 8), dtype=np.float32)
    volume[4, 2, 6] = 1.0  # z, y, x
    mrc.write(tmp_path / "map.mrc", volume, 2.0)
    found = mapslices.read_views(tmp_path / "map.mrc")
    assert found is not None
    (z, y, x, projection), pixel_A = found
    assert pixel_A == pytest.approx(2.0)
    assert z[2, 6] == 1.0 and y.sum() == 0.0 and x.sum() == 0.0 and projection[2, 6] == 1.0
    mrc.write(tmp_path / "flat.mrc", np.zeros((4, 8, 8), dtype=np.float32), 2.0)
    assert mapslices.read_views(tmp_path / "flat.mrc") is None
    assert mapslices.read_views(tmp_path / "gone.mrc") is None
    assert mapslices.picture([mapslices.Shown(path=tmp_path / "gone.mrc", name="x")]) is None


def test_directions_are_relative_to_a_uniform_sphere() -> None:
    random = np.random.default_rng(4)
    tilt = np.degrees(np.arccos(random.uniform(-1.0, 1.0, 60_000)))
    relative = mapplots.by_direction(random.uniform(-180.0, 180.0, 60_000), tilt)
    assert relative.mean() == pytest.approx(1.0) and relative.std() < 0.35
    # The same direction written in three ways is one bin.
    rot, tilt = np.array([10.0, 370.0, -170.0]), np.array([40.0, 40.0, -40.0])
    once = mapplots.by_direction(rot, tilt)
    assert np.count_nonzero(once) == 1
    rows, columns = once.shape
    row, column = np.argwhere(once)[0]
    assert column == columns // 2 and row == int((np.cos(np.radians(40.0)) + 1.0) / 2.0 * rows)


def test_the_report_shows_the_section(project, tmp_path) -> None:
    facts = ReportFacts(
        session="s", events=events(started("refine3d", REFINED.process), INITIAL, REFINED)
    )
    page = html.write_report(project, tmp_path / "report.html", facts).read_text()
    assert '<a href="#maps">3D</a>' in page and "The newest maps" in page
    assert (tmp_path / "report" / "maps.png").stat().st_size > 10_000
