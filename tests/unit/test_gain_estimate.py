"""A gain made of movies: as good as its electrons allow, and never from too few."""

import dataclasses
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from algorithms.formats import mrc
from algorithms.formats.gain import load_gain
from algorithms.gain_estimate import TooFewElectrons, estimate_gain
from algorithms.simulate.eer import encode_eer
from algorithms.simulate.movie import render_movie
from algorithms.simulate.recipe import load_recipe
from mdcatch.gain_command import gain_command
from mdcatch.gaincheck import check_gain
from mdcatch.gainestimate import make_gain
from services.kit.errors import Misuse

SHAPE = (160, 200)


def camera(seed, width=0.04):
    """Return a gain with pixel noise, seams, dead pixels and a dead column."""
    rng = np.random.default_rng(seed)
    gain = 1 + width * np.clip(rng.standard_normal(SHAPE), -4, 4)
    gain[:, :100] *= 1.03
    gain[rng.integers(0, 160, 12), rng.integers(0, 200, 12)] = 0
    gain[:, 77] = 0
    return gain / gain[gain > 0].mean()


def counts(gain, electrons, seed=9):
    rate = np.divide(electrons, gain, out=np.zeros(SHAPE), where=gain > 0)
    return np.random.default_rng(seed).poisson(rate).astype(float)


def error_of(found, gain):
    good = (gain > 0) & (found > 0)
    return float(np.std(found[good] / gain[good]))


@pytest.mark.parametrize("electrons", [3000.0, 20_000.0])
def test_the_gain_comes_back_to_within_its_noise(electrons):
    gain = camera(1)
    found = estimate_gain(counts(gain, electrons))
    assert error_of(found.gain, gain) < 1.25 * electrons**-0.5
    assert found.error == pytest.approx(electrons**-0.5, rel=0.1)
    assert found.variation == pytest.approx(0.04, rel=0.1)
    np.testing.assert_array_equal(found.gain == 0, gain == 0)
    assert (found.n_dead, found.n_hot) == (int((gain == 0).sum()), 0)
    assert found.gain[found.gain > 0].mean() == pytest.approx(1, abs=1e-5)


def test_a_few_electrons_correct_less_and_never_worse():
    gain = camera(2)
    for electrons in (1500.0, 2500.0):
        found = estimate_gain(counts(gain, electrons)).gain
        plain = counts(gain, electrons)
        plain = np.divide(plain.mean(), plain, out=np.zeros(SHAPE), where=plain > 0)
        assert error_of(found, gain) < 0.95 * error_of(plain, gain)
        assert error_of(found, gain) < error_of(np.ones(SHAPE), gain)


@pytest.mark.parametrize(("electrons", "width"), [(100.0, 0.04), (400.0, 0.04), (3000.0, 0.0)])
def test_too_few_electrons_are_refused(electrons, width):
    with pytest.raises(TooFewElectrons, match="counts per pixel are needed"):
        estimate_gain(counts(camera(3, width), electrons))
    with pytest.raises(TooFewElectrons, match="empty"):
        estimate_gain(np.zeros(SHAPE))


def test_hot_pixels_are_defects():
    gain = camera(4)
    total = counts(gain, 5000.0)
    total[5, 9] *= 3
    total[50, 90] += 1e6
    found = estimate_gain(total)
    assert found.n_hot == 2
    assert found.gain[5, 9] == found.gain[50, 90] == 0
    assert error_of(found.gain, gain) < 0.02


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_what_is_no_sum_of_counts(value):
    total = np.ones(SHAPE)
    total[0, 0] = value
    with pytest.raises(ValueError, match="negative or not finite"):
        estimate_gain(total)


# Movies

RECIPE = dataclasses.replace(
    load_recipe("tiny"),
    nx=128,
    ny=96,
    n_frames=8,
    pixel_size_A=1.5,
    dose_per_frame_e_A2=15.0,
    n_particles=4,
)


@pytest.fixture(scope="module")
def rendered():
    return [render_movie(RECIPE, 8, index=i) for i in range(10)]


@pytest.mark.parametrize("kind", ["mrc", "eer"])
def test_movies_give_the_gain_that_corrects_them(tmp_path, rendered, kind):
    paths = []
    for index, movie in enumerate(rendered):
        paths.append(tmp_path / f"{index}.{kind}")
        if kind == "mrc":
            mrc.write(paths[-1], movie.frames.astype(np.int16), 1.0, is_stack=True)
        else:
            # Thinned, so that few electrons coincide.
            thin = np.random.default_rng(index).binomial(movie.frames, 0.6).astype(np.uint8)
            content = encode_eer(thin, 200, np.random.default_rng(index))
            paths[-1].write_bytes(content)
    (tmp_path / "cut.mrc").write_bytes(paths[0].read_bytes()[:2000])
    out = tmp_path / "out/gain.mrc"
    made = make_gain([*paths, tmp_path / "cut.mrc"], out, least=10, threads=2)
    assert (made.n_movies, len(made.left_out)) == (10, 1)
    assert made.is_inverse == (kind == "eer")
    true = rendered[0].gain
    found = load_gain(out, true.shape, is_eer=kind == "eer")
    assert made.n_dead >= int((true == 0).sum()) and made.n_hot > 3
    assert error_of(found, true) < 0.7 * np.std(true[true > 0])
    checked = check_gain(paths, out)  # of EER movies, an MRC gain divides
    assert (checked.found, checked.flag) == ((0, 0), "")


def test_too_few_movies_and_other_sizes(tmp_path, rendered):
    mrc.write(tmp_path / "a.mrc", rendered[0].frames.astype(np.int16), 1.0, is_stack=True)
    mrc.write(tmp_path / "b.mrc", np.ones((2, 8, 8)), 1.0, is_stack=True)
    with pytest.raises(Misuse, match="1 movies could be read, 200 are needed"):
        make_gain([tmp_path / "a.mrc"], tmp_path / "gain.mrc")
    with pytest.raises(Misuse, match="unlike the movies before"):
        make_gain([tmp_path / "a.mrc", tmp_path / "b.mrc"], tmp_path / "gain.mrc", least=1)
    with pytest.raises(Misuse, match=r"of 8 frames: .* counts per pixel"):
        make_gain([tmp_path / "a.mrc"], tmp_path / "gain.mrc", least=1)
    assert not (tmp_path / "gain.mrc").exists()


def test_the_command(tmp_path, rendered):
    app = typer.Typer()
    app.command()(gain_command)
    paths = [tmp_path / f"{index}.mrc" for index in range(len(rendered))]
    for path, movie in zip(paths, rendered, strict=True):
        mrc.write(path, movie.frames.astype(np.int16), 1.0, is_stack=True)
    out = tmp_path / "gain.mrc"
    arguments = [*map(str, paths), "--estimate", str(out), "--min-movies", "10"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "10 movies" in done.output and out.exists()
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.output)["n_frames"] == 80
    check = CliRunner().invoke(app, [*map(str, paths), "--gain", str(out), "--json"])
    assert json.loads(check.output)["found"] == [0, 0]
    both = CliRunner().invoke(app, [*arguments, "--gain", str(out)])
    assert isinstance(both.exception, Misuse)
