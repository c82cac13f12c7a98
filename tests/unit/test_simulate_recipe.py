"""Recipes: what is shipped, what is refused, and that a seed settles everything."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from algorithms.simulate.faults import FAULTS, Faults, fault_of
from algorithms.simulate.movie import render_movie
from algorithms.simulate.recipe import (
    RecipeError,
    load_recipe,
    parse_recipe,
    random_stream,
    shipped_recipes,
)
from algorithms.simulate.scene import make_scene, poisson_disc
from algorithms.simulate.specimen import load_specimen
from tests.shared import shared

LEAST = "nx = 256\nny = 256\nn_frames = 4\npixel_size_A = 4\ndose_per_frame_e_A2 = 2.0\n"


def test_every_shipped_recipe_loads_under_its_name() -> None:
    assert shipped_recipes() == ["ci", "demo", "test", "tiny"]
    assert [load_recipe(name).name for name in shipped_recipes()] == shipped_recipes()


def test_the_demo_has_two_spoilt_exposures() -> None:
    recipe = load_recipe("demo")
    assert (recipe.n_exposures, recipe.n_rendered) == (24, 8)
    assert recipe.faults == Faults(truncated=(9,), xml_only=(16,))


def test_a_recipe_file_is_read_and_an_integer_is_good_for_a_float(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(LEAST + "[faults]\nzero_byte = [3, 5]\nxml_only = 0.25\n")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.name == "mine"
    assert recipe.pixel_size_A == 4.0
    assert recipe.faults == Faults(zero_byte=(3, 5), xml_only=0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST + "pixel = 2.0\n", "unknown key 'pixel'"),
        (LEAST + "[faults]\nbroken = [1]\n", "unknown key 'broken'"),
        (LEAST + "pace_s = 'fast'\n", "pace_s = 'fast' must be of type float"),
        (LEAST + "n_exposures = 2.5\n", "n_exposures = 2.5 must be of type int"),
        (LEAST + "order = 'both'\n", "order = 'both', must be one of xml-first"),
        (LEAST + "voltage_kV = 120.0\n", "voltage_kV = 120.0, must be 200 or 300"),
        (LEAST + "start = '2026-11-20T10:00:00'\n", "start"),
        (LEAST + "[faults]\ntruncated = [-1]\n", "fault truncated"),
        (LEAST + "[faults]\ntruncated = 1.5\n", "fault truncated"),
        (LEAST.replace("nx = 256\n", ""), "missing 1 required keyword-only argument: 'nx'"),
        ("nx = = 3", "no TOML"),
    ],
)
def test_a_bad_recipe_is_refused_by_the_name_of_the_key(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(text, name="bad")


def test_an_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="ci, demo, test, tiny"):
        load_recipe("none")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe("/nowhere/none.toml")


def test_same_seed_same_bytes_and_another_seed_others() -> None:
    recipe = dataclasses.replace(load_recipe("tiny"), n_frames=3)
    one, again = render_movie(recipe, 5), render_movie(recipe, 5)
    assert one.frames.tobytes() == again.frames.tobytes()
    assert one.gain.tobytes() == again.gain.tobytes()
    assert one.truth.header() == again.truth.header()
    other = render_movie(recipe, 6)
    assert one.frames.tobytes() != other.frames.tobytes()
    assert one.gain.tobytes() != other.gain.tobytes()


def test_movies_of_a_session_share_the_camera_and_nothing_else() -> None:
    recipe = dataclasses.replace(load_recipe("tiny"), n_frames=3)
    first, second = render_movie(recipe, 5, index=0), render_movie(recipe, 5, index=1)
    assert first.gain.tobytes() == second.gain.tobytes()
    assert first.frames.tobytes() != second.frames.tobytes()
    assert first.truth.defocus_u_A != second.truth.defocus_u_A
    assert first.truth.position_px[0] != pytest.approx(second.truth.position_px[0])


def test_threads_do_not_change_the_bytes() -> None:
    recipe = dataclasses.replace(load_recipe("tiny"), n_frames=3)
    one, two = render_movie(recipe, 5), render_movie(recipe, 5, threads=2)
    assert one.frames.tobytes() == two.frames.tobytes()


def test_sites_keep_their_distance_and_a_full_field_gives_fewer() -> None:
    rng = np.random.default_rng(1)
    sites = poisson_disc((200, 300), 500, distance_px=30.0, edge_px=10.0, rng=rng)
    assert 40 < len(sites) < 100
    gaps = np.hypot(*(sites[:, None] - sites[None]).transpose(2, 0, 1))
    assert gaps[~np.eye(len(sites), dtype=bool)].min() >= 30.0
    assert sites.min() >= -10.0
    assert sites[:, 0].max() > 200


def test_decoys_are_labelled_and_a_share_of_the_particles() -> None:
    recipe = dataclasses.replace(
        load_recipe("demo"), nx=4096, ny=4096, n_particles=200, decoy_fraction=0.2
    )
    scene = make_scene(recipe, 264.0, random_stream(1, "scene"))
    assert len(scene.position_px) == 200
    assert len(scene.decoys) == 40
    assert {decoy.kind for decoy in scene.decoys} == {"ice_crystal", "ethane"}


def test_preferred_orientation_lays_particles_flat() -> None:
    recipe = dataclasses.replace(load_recipe("demo"), nx=4096, ny=4096, n_particles=200)
    free = make_scene(recipe, 264.0, random_stream(1, "scene")).angles_deg[:, 1]
    flat = dataclasses.replace(recipe, preferred_fraction=1.0)
    laid = make_scene(flat, 264.0, random_stream(1, "scene")).angles_deg[:, 1]
    assert np.median(laid) < 12.0
    assert 75.0 < np.median(free) < 105.0


def test_the_shipped_specimen_is_the_deposited_model() -> None:
    lines = shared("data/maps/ribosome.pdb").read_text().splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    positions = np.array([[float(a[30:38]), float(a[38:46]), float(a[46:54])] for a in atoms])
    specimen = load_specimen()
    assert np.abs(positions - positions.mean(0) - specimen.positions_A).max() < 0.0051
    assert "".join("HCNOPS"[e] for e in specimen.elements[:9]) == "POOOCCOCO"


def test_unknown_specimen_is_refused() -> None:
    with pytest.raises(ValueError, match="no specimen 'apoferritin'"):
        load_specimen("apoferritin")


def test_faults_hit_listed_exposures_or_a_share_of_them() -> None:
    listed = Faults(truncated=(2,), zero_byte=(2, 4))
    kinds = [fault_of(listed, n, random_stream(1, "fault", n)) for n in range(6)]
    assert kinds == [None, None, "truncated", None, "zero_byte", None]
    often = Faults(movie_only=0.3)
    kinds = [fault_of(often, n, random_stream(1, "fault", n)) for n in range(400)]
    assert 90 < kinds.count("movie_only") < 150
    assert len(FAULTS) == 7
