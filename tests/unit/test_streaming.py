"""The schedule of a set that grows, and what is known of particles taken over into a larger one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.refine import joining, schedule
from algorithms.refine.sampling import Sampling
from algorithms.refine.start import start
from algorithms.refine.streaming import moved_back, passes
from algorithms.refine.types import Options, RefineError
from tests.refine_data import particle_set

N, K = 200, 50


def test_passes_are_those_of_the_batches() -> None:
    counted = passes(N, 100_000, K)
    assert counted[1] == pytest.approx(0.005) and len(counted) == N + 1
    assert counted[N] - counted[N - 1] == 1.0  # the last place is all particles
    assert counted[N] == pytest.approx(6.0, abs=0.1)  # refinement.md 4.1


def test_a_set_that_doubles_has_had_half_of_the_passes() -> None:
    before, after = passes(N, 50_000, K), passes(N, 100_000, K)
    place = moved_back(150.0, N, 50_000, 100_000, K)
    wanted = np.interp(150.0, np.arange(N + 1), before) / 2.0
    assert np.interp(place, np.arange(N + 1), after) == pytest.approx(wanted, rel=1e-6)
    assert 85.0 < place < 150.0


@given(st.floats(0.0, float(N)), st.integers(60, 10**6), st.integers(1, 10**6), st.integers(2, 200))
def test_the_place_is_bounded(place: float, n: int, more: int, k: int) -> None:
    """Never forward, never to long steps once these are over, always before the last phase."""
    after = moved_back(place, N, n, n + more, k)
    assert min(place, 85.0) <= after <= min(place, 160.0)
    assert schedule.step_size(after, N) <= max(0.601, schedule.step_size(place, N))


def test_a_steady_stream_of_particles_does_not_hold_the_schedule() -> None:
    n, place, iterations = 2_000, 0.0, 0
    while n < 20_000:
        place, iterations = min(place + 1.0, 160.0), iterations + 1
        place, n = moved_back(place, N, n, n + 20, K), n + 20
    assert 85.0 < place <= 160.0


def test_rows_are_found_by_their_images_in_whatever_order() -> None:
    data, _ = particle_set(12)
    names = ["mic_b", "mic_d"]
    data.particles.group = np.arange(12) % 2
    options = Options(n_classes=2, iterations=4, particle_diameter_A=100.0, gradient=True)
    sampling = Sampling(psi_step_deg=12.0, offset_range_A=8.0, offset_step_A=8.0)
    model = start(data, options, sampling, list(names))
    model.scales, model.mean_norm = torch.tensor([0.9, 1.1], dtype=torch.float64), 0.7
    data.particles.classes[:] = np.arange(12) % 2
    data.particles.psi_deg[:] = np.arange(12)
    noise = model.noise.clone()
    known = joining.known(data, np.arange(100, 112))
    known = known._replace(columns={k: v.copy() for k, v in known.columns.items()})
    grown, _ = particle_set(14)
    order = np.array([111, 100, 300, 101, 105, 301, 106, 107, 108, 109, 110, 302, 303, 304])
    grown.particles.group = np.array([1, 0, 2, *[0] * 11])
    grown.optics = [
        grown.optics[0].__class__(**{**vars(grown.optics[0]), "name": "new"}),
        *grown.optics,
    ]
    grown.particles.optics[:] = 1
    change = joining.join(model, known, grown, order, ["mic_b", "mic_d", "mic_a"])
    assert change == joining.Change(5, 3)  # 102, 103 and 104 are gone
    old = order < 200
    assert (grown.particles.psi_deg[old] == order[old] - 100).all()
    assert (grown.particles.classes[~old] == joining.NO_CLASS).all()
    assert (grown.particles.norm[~old] == 0.7).all()
    assert model.group_names == ["mic_b", "mic_d", "mic_a"]
    assert model.scales.tolist() == [0.9, 1.1, 1.0]
    assert grown.particles.group[:3].tolist() == [1, 0, 2]
    assert torch.equal(model.noise[1], noise[0]) and torch.allclose(model.noise[0], noise.mean(0))
    order[3] = order[4]
    with pytest.raises(RefineError, match="particle 4 is in the table twice"):
        joining.join(model, known, grown, order, ["mic_b", "mic_d", "mic_a"])


def test_particles_of_another_size_do_not_join() -> None:
    data, _ = particle_set(6)
    options = Options(n_classes=2, iterations=4, particle_diameter_A=100.0, gradient=True)
    sampling = Sampling(psi_step_deg=12.0, offset_range_A=8.0, offset_step_A=8.0)
    model = start(data, options, sampling, ["mic"])
    other, _ = particle_set(8, box=48)
    with pytest.raises(RefineError, match="48 px of 4 A now, the classes 32 px"):
        joining.join(model, joining.known(data, np.arange(6)), other, np.arange(8), ["mic"])
