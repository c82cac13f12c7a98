"""Simulated EER movies: the writer against another one, electrons against the frames."""

import dataclasses

import numpy as np
import pytest

from algorithms.formats.gain import load_gain
from algorithms.formats.movie import EerOptions, open_movie
from algorithms.simulate.eer import encode_eer, encode_stream
from algorithms.simulate.faults import Faults
from algorithms.simulate.movie import render_movie
from algorithms.simulate.recipe import RecipeError, load_recipe
from algorithms.simulate.session import simulate_session
from tests.eer_files import random_electrons, stream

RECIPE = dataclasses.replace(
    load_recipe("tiny"),
    nx=128,
    ny=96,
    n_frames=4,
    n_particles=3,
    pixel_size_A=2.0,
    dose_per_frame_e_A2=0.5,
    eer_raw_frames=25,
)


@pytest.mark.parametrize("n", [0, 1, 7, 300, 4096])
def test_streams_are_those_of_another_writer(n: int):
    electrons = random_electrons(np.random.default_rng(n), n, 4096)
    ours = encode_stream(electrons.pixel, electrons.symbol, 4096)
    assert ours == stream(electrons, 4096)


def test_every_electron_is_in_one_raw_frame():
    frames = np.random.default_rng(1).poisson(0.05, (3, 32, 48)).astype(np.uint8)
    first, second = (encode_eer(frames, 200, np.random.default_rng(2)) for _ in range(2))
    assert first == second


def test_movies_come_back(tmp_path):
    movie = render_movie(RECIPE, 3)
    content = encode_eer(movie.frames, 25, np.random.default_rng(0))
    (tmp_path / "a.eer").write_bytes(content)
    with open_movie(tmp_path / "a.eer", eer=EerOptions(grouping=25)) as opened:
        found = np.stack([frame for _, frame in opened.frames()]).astype(int)
    lost = movie.frames.astype(int) - found
    assert (lost >= 0).all()
    # Of 2 electrons in 25 raw frames one in 25 coincides with the other one; hot pixels lose more.
    assert 0.01 < np.median(lost.sum((1, 2)) / movie.frames.sum((1, 2))) < 0.08
    assert (found[movie.frames == 1] == 1).all()


def test_a_session_of_eer_movies(tmp_path):
    recipe = dataclasses.replace(RECIPE, n_exposures=2, pool=1)
    simulate_session(recipe, tmp_path / "a", seed=4, realtime=False)
    simulate_session(recipe, tmp_path / "b", seed=4, realtime=False)
    movies = sorted((tmp_path / "a").rglob("*_EER.eer"))
    assert len(movies) == 2 and not list((tmp_path / "a").rglob("*.tiff"))
    for one in movies:
        assert one.read_bytes() == (tmp_path / "b" / one.relative_to(tmp_path / "a")).read_bytes()
    gain = load_gain(tmp_path / "a/EER_GainReference.gain", (96, 128), is_eer=True)
    np.testing.assert_array_equal(gain, render_movie(recipe, 4).gain)


def test_recipes_that_cannot_be(tmp_path):
    with pytest.raises(RecipeError, match="eer_raw_frames"):
        dataclasses.replace(RECIPE, eer_raw_frames=-1)
    with pytest.raises(RecipeError, match="wrong size"):
        dataclasses.replace(RECIPE, faults=Faults(wrong_size=(0,)))
