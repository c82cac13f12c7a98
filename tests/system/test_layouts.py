"""Sessions that are no EPU folder with everything in it, from their files to particles."""

import shutil
from dataclasses import replace
from pathlib import Path

from algorithms.formats import star
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.serialemsession import simulate_serialem_session
from tests.system import sessions

SESSION = "Supervisor_20250130_145409_grid1"
RECIPE = replace(load_recipe("test"), n_exposures=2, pool=1)


def column(project: Path, file: str, table: str, label: str) -> list[str]:
    """Return a column of a table of the project."""
    return star.load(project / file)[table].columns[label]


def check(project: Path, link: str, suffix: str) -> None:
    """Check that all went to the end, and that RELION finds every file below the project."""
    ledger = sessions.status(project)
    assert ledger["stages"]["proc"] == {"seen": 2, "done": 2, "refused": 0, "pending": 0}
    assert ledger["particles"] > 10
    movies = column(project, "Import/job001/movies.star", "movies", "rlnMicrographMovieName")
    assert len(movies) == 2
    for movie in movies:
        assert movie.startswith(f"{link}/") and movie.endswith(suffix)
        assert (project / movie).is_file()
    fits = "CtfFind/job003/micrographs_ctf.star"
    micrographs = column(project, fits, "micrographs", "rlnMicrographName")
    particles = column(project, "Extract/job006/particles.star", "particles", "rlnMicrographName")
    assert set(particles) == set(micrographs)
    for micrograph in micrographs:
        assert micrograph.startswith(f"MotionCorr/job002/{link}/")
        assert (project / micrograph).is_file()
    stars = column(project, fits, "micrographs", "rlnMicrographMetadata")
    assert set(column(project, stars[0], "general", "rlnMicrographMovieName")) <= set(movies)
    (gain,) = column(project, stars[0], "general", "rlnMicrographGainName")
    assert (project / gain).is_file()


def test_a_folder_of_serialem_becomes_particles(tmp_path: Path):
    raw, project = tmp_path / "run7", tmp_path / "project"
    simulate_serialem_session(RECIPE, raw, seed=3, realtime=False)
    result = sessions.process(raw, project, "--workers", "1")
    assert result.returncode == 0, result.stderr
    check(project, "Movies", ".tif")


def test_movies_on_another_disk_are_linked_and_become_particles(tmp_path: Path):
    meta, camera = tmp_path / "meta", tmp_path / "camera"
    raw, project = meta / SESSION, tmp_path / "project"
    sessions.simulate(raw, n_exposures=2, pool=1)
    movies = camera / "DoseFractions" / SESSION
    for path in [p for p in raw.rglob("*") if p.suffix in (".tiff", ".mrc")]:
        place = movies / path.relative_to(raw)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
    site = tmp_path / "site.toml"
    site.write_text(
        f'[roots.metadata]\npath = "{meta}"\nrole = "metadata"\n'
        f'[roots.camera]\npath = "{camera}"\nrole = "movies"\n'
    )
    result = sessions.process(raw, project, "--workers", "1", "--config", str(site))
    assert result.returncode == 0, result.stderr
    check(project, "Movies_2", "_fractions.tiff")
    assert (project / "Movies_2").readlink() == movies
