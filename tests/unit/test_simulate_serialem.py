"""SerialEM sessions on disk: names, mdoc dialects, gain, faults, and starting again."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc
from algorithms.formats.movie import open_movie
from algorithms.simulate.epu import plan_session
from algorithms.simulate.faults import Faults
from algorithms.simulate.movie import render_movie
from algorithms.simulate.recipe import Recipe, RecipeError, load_recipe
from algorithms.simulate.serialem import DIALECTS, frame_mdoc, gain_name, shot_stem
from algorithms.simulate.serialemsession import simulate_serialem_session
from mdcatch.parsers import parse
from mdcatch.parsers.window import Window
from services.kit.errors import Code, Refused

NAME = r"tiny_\d{5}_[A-Z][a-z]{2}\d\d_\d\d\.\d\d\.\d\d"


def small(**changes: object) -> Recipe:
    base = {"nx": 128, "ny": 96, "n_frames": 3, "n_particles": 3, "n_exposures": 4, "pool": 2}
    return dataclasses.replace(load_recipe("tiny"), **{**base, **changes})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    recipe = small()
    out = tmp_path_factory.mktemp("simulated") / "run1"
    simulate_serialem_session(recipe, out, seed=9, realtime=False)
    return recipe, out


def test_names_are_those_of_serialem(session: tuple[Recipe, Path]) -> None:
    recipe, out = session
    names = sorted(contents(out))
    assert len(names) == 2 * recipe.n_exposures + 1
    gain, *rest = names
    assert re.fullmatch(rf"frames/CountRef_{NAME}\.mrc", gain)
    for movie, mdoc in zip(rest[::2], rest[1::2], strict=True):
        assert re.fullmatch(rf"frames/{NAME}\.tif", movie)
        assert mdoc == f"{movie}.mdoc"


def test_movies_show_what_was_rendered_and_name_their_gain(session: tuple[Recipe, Path]) -> None:
    recipe, out = session
    exposure = plan_session(recipe, 9)[1]
    path = out / "frames" / f"{shot_stem(recipe, exposure)}.tif"
    rendered = render_movie(recipe, 9, index=exposure.movie_index)
    with open_movie(path) as movie:
        frames = np.stack([frame for _, frame in movie.frames()])
    np.testing.assert_array_equal(frames, rendered.frames)
    record = parse(Window.of_bytes(path.read_bytes()), path.name)
    assert record.get("gain_reference") == gain_name(recipe, 9)
    assert record.get("rotation_flip") == 0
    assert record.get("pixel_size_A") == pytest.approx(recipe.pixel_size_A)
    gain = mrc.read(out / "frames" / gain_name(recipe, 9))
    np.testing.assert_array_equal(gain, rendered.gain)


def test_the_same_seed_gives_the_same_bytes_and_resumes(
    session: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, out = session
    again = tmp_path / "run1"
    shutil.copytree(out, again)
    shutil.copytree(out.with_name("run1_truth"), again.with_name("run1_truth"))
    stem = shot_stem(recipe, plan_session(recipe, 9)[2])
    (again.with_name("run1_truth") / f"{stem}.json").unlink()
    (again / "frames" / f"{stem}.tif").unlink()
    seen: list[int] = []
    simulate_serialem_session(
        recipe, again, seed=9, realtime=False, progress=lambda done, _all, _name: seen.append(done)
    )
    assert contents(again) == contents(out)
    assert seen == [1, 2, 3, 4]
    for changes in ({"seed": 10}, {"seed": 9, "dialect": "classic"}):
        with pytest.raises(RecipeError):
            simulate_serialem_session(recipe, again, realtime=False, **changes)  # type: ignore[arg-type]


def test_faults_befall_movie_and_mdoc(tmp_path: Path) -> None:
    faults = Faults(
        truncated=(0,),
        doctype_xml=(1,),
        unreadable_xml=(2,),
        movie_only=(3,),
        xml_only=(4,),
        wrong_size=(5,),
        zero_byte=(6,),
    )
    recipe = small(n_exposures=7, faults=faults, super_resolution_factor=2)
    out = tmp_path / "run"
    simulate_serialem_session(recipe, out, seed=3, dialect="classic", realtime=False)
    files = contents(out / "frames")
    assert any(name.startswith("SuperRef_") for name in files)

    def told(index: int, suffix: str) -> object:
        name = f"{shot_stem(recipe, plan_session(recipe, 3)[index])}.tif{suffix}"
        if name not in files:
            return None
        try:
            return parse(Window.of_bytes(files[name]), name)
        except Refused as refused:
            return refused.code

    assert told(0, "").get("complete") is False  # type: ignore[attr-defined]
    assert told(1, ".mdoc").get("movie_file").endswith(".tif")  # type: ignore[attr-defined]
    assert told(2, ".mdoc") == Code.BAD_HEADER
    assert told(3, ".mdoc") is None
    assert told(4, "") is None
    assert told(5, "").get("movie_size_px") == (64, 48)  # type: ignore[attr-defined]
    assert told(6, "") == Code.EMPTY_FILE


def test_an_unknown_dialect_is_told() -> None:
    recipe = small()
    with pytest.raises(ValueError, match=", ".join(DIALECTS)):
        frame_mdoc(recipe, plan_session(recipe, 1)[0], 1e4, gain="g.mrc", dialect="old")
