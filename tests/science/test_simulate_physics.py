"""The simulator against numbers and data that were not made by it (simulation.md section 8 A)."""

import dataclasses
import json
import math
from functools import cache

import numpy as np
import pytest
import scipy.ndimage
import tifffile
import torch

from algorithms import ctf as ctf_model
from algorithms import fourier
from algorithms.ctf import Ctf
from algorithms.formats import mrc
from algorithms.simulate.movie import RenderedMovie, render_movie
from algorithms.simulate.optics import Canvas, Ice, contrast_transfer, interaction_constant
from algorithms.simulate.recipe import Recipe, load_recipe
from algorithms.simulate.specimen import (
    ELEMENTS,
    Projector,
    Specimen,
    atom_potential,
    euler_matrix,
    form_factor,
    ice_potential_V,
    load_specimen,
)
from algorithms.simulate.transforms import forward, inverse
from tests.shared import shared

SEED = 11


@cache
def demo_movie() -> RenderedMovie:
    return render_movie(load_recipe("demo"), SEED)


def bright(**changes: object) -> Recipe:
    """A small movie with so many electrons that noise hides nothing."""
    quiet = {"ice_thickness_A": 1e-6, "n_hot": 0, "n_dead": 0, "n_dead_columns": 0}
    recipe = dataclasses.replace(load_recipe("tiny"), dose_per_frame_e_A2=8.0, **quiet)
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def corrected(movie: RenderedMovie) -> np.ndarray:
    """Frames times gain, defects set to the mean."""
    frames = movie.frames.astype(np.float32) * movie.gain
    mean, spread = frames.mean(), frames.std()
    frames[:, movie.gain == 0] = mean
    frames[np.abs(frames - mean) > 8 * spread] = mean
    return frames


# 1. Constants


@pytest.mark.parametrize(
    ("element", "expected_A"),
    [("H", 0.529), ("C", 2.509), ("N", 2.2125), ("O", 1.983), ("P", 5.49), ("S", 5.16)],
)
def test_forward_scattering_of_every_element(element: str, expected_A: float) -> None:
    assert form_factor(element, 0.0) == pytest.approx(expected_A, rel=0.005)


def test_form_factor_of_hydrogen_is_the_exact_one() -> None:
    # Mott-Bethe: f_e = 0.023934 (Z - f_x) / s^2, and f_x of the 1s orbital is known in closed form.
    s = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
    orbital = 1 / (1 + (2 * math.pi * 0.529177 * s) ** 2) ** 2
    assert form_factor("H", 2 * s) == pytest.approx(0.0239337 * (1 - orbital) / s**2, rel=0.005)


def test_potential_of_ice() -> None:
    assert ice_potential_V() == pytest.approx(4.57, abs=0.02)


def test_wavelength_and_interaction_constant() -> None:
    assert ctf_model.wavelength_A(300) == pytest.approx(0.019687, rel=1e-4)
    assert ctf_model.wavelength_A(200) == pytest.approx(0.025079, rel=1e-4)
    assert interaction_constant(300) == pytest.approx(6.53e-4, abs=1e-6)
    assert interaction_constant(200) == pytest.approx(7.29e-4, abs=1e-6)


# 2. Contrast transfer


def test_contrast_transfer_equals_the_formula_typed_again() -> None:
    given = Ctf(
        defocus_u_A=15200.0,
        defocus_v_A=14800.0,
        angle_deg=25.0,
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )
    canvas = Canvas(shape=(96, 96), image_shape=(96, 96), pixel_size_A=2.0)
    qy, qx = np.meshgrid(np.fft.fftfreq(96, 2.0), np.fft.rfftfreq(96, 2.0), indexing="ij")
    azimuth, q2 = np.arctan2(qy, qx), qx**2 + qy**2
    defocus = 15000.0 + 200.0 * np.cos(2 * (azimuth - np.radians(25.0)))
    lam = 0.0196875
    chi = np.pi * lam * q2 * defocus - 0.5 * np.pi * 2.7e7 * lam**3 * q2**2 + math.asin(0.1)
    expected = -2 * 6.5262e-4 * np.sin(chi) * np.exp(-0.25 * 70.0 * q2)
    expected[0, 0] = 0.0
    found = contrast_transfer(given, 70.0, canvas)
    # The wavelength typed here has six digits: the phase agrees to 1e-4 of up to 300 radians.
    assert found / 6.5262e-4 == pytest.approx(expected / 6.5262e-4, abs=2e-3)


def test_first_zero_and_sign() -> None:
    given = Ctf(
        defocus_u_A=15000.0,
        defocus_v_A=15000.0,
        angle_deg=0.0,
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )
    n, pixel_A = 4096, 1.0
    canvas = Canvas(shape=(2, n), image_shape=(2, n), pixel_size_A=pixel_A)
    along = contrast_transfer(given, 0.0, canvas)[0]
    # Quadratic in q^2: pi lam (dz q^2 - lam^2 Cs q^4 / 2) + asin(w) = pi.
    lam, cs = 0.0196875, 2.7e7
    wanted = (math.pi - math.asin(0.1)) / (math.pi * lam)
    q2 = (15000 - math.sqrt(15000**2 - 2 * lam**2 * cs * wanted)) / (lam**2 * cs)
    first = int(np.flatnonzero(np.diff(np.sign(along[1:])))[0]) + 1
    assert first / (n * pixel_A) == pytest.approx(math.sqrt(q2), abs=1.0 / (n * pixel_A))
    # Raw images: protein is dark at low frequency, by the amplitude contrast.
    assert along[1] == pytest.approx(-2 * 0.1 * interaction_constant(300), rel=0.02)


# 3. Projections


def exact_transform(specimen: Specimen, matrix: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Sum over atoms at frequencies `[m, 2]` (x, y) in 1/A: no grid, no interpolation."""
    length = np.hypot(*q.T)
    factors = np.array([atom_potential(e, length, b_factor_A2=40.0) for e in ELEMENTS])
    points = (specimen.positions_A @ matrix.T)[:, :2]
    waves = np.exp(-2j * np.pi * (points @ q.T))
    return np.array([(factors[specimen.elements, m] * waves[:, m]).sum() for m in range(len(q))])


@pytest.mark.parametrize("angles", [(0, 0, 0), (31, 52, 74), (-120, 97, 15), (170, 140, -66)])
def test_projection_equals_the_sum_over_atoms(angles: tuple[float, float, float]) -> None:
    specimen, pixel_A = load_specimen(), 4.0
    projector = Projector(specimen, pixel_A)
    box = projector.box_px
    image = projector.project(euler_matrix(*angles), offset_px=(1.3, -0.4))
    spectrum = np.fft.rfft2(image) * pixel_A**2
    rng = np.random.default_rng(1)
    k = rng.integers(-int(0.45 * box), int(0.45 * box), (80, 2))
    k[:, 0] = np.abs(k[:, 0])
    expected = exact_transform(specimen, euler_matrix(*angles), k / (box * pixel_A))
    centre = np.exp(-2j * np.pi * (k @ [1.3 + box // 2, -0.4 + box // 2]) / box)
    found = spectrum[k[:, 1], k[:, 0]] / centre
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 0.01


def voxel_map(specimen: Specimen, size: int, voxel_A: float) -> np.ndarray:
    """Potential in V on a grid `[z, y, x]`: trilinear splat, sinc correction, form factors."""
    k = np.fft.fftfreq(size)
    q = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, : size // 2 + 1] ** 2)
    sinc = np.sinc(k[:, None, None]) * np.sinc(k[:, None]) * np.sinc(k[: size // 2 + 1])
    spectrum = 0
    for index in np.unique(specimen.elements):
        points = specimen.positions_A[specimen.elements == index] / voxel_A + size // 2
        low = np.floor(points).astype(int)
        part = points - low
        grid = np.zeros((size,) * 3)
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(corner, part, 1 - part), axis=1)
            np.add.at(grid, tuple((low + corner).T[::-1]), weight)
        factor = atom_potential(ELEMENTS[index], q / voxel_A, b_factor_A2=40.0) / sinc**2
        spectrum = spectrum + np.fft.rfftn(grid) * factor
    # Band limit at half the grid's Nyquist frequency: interpolation is then nearly exact.
    return np.fft.irfftn(spectrum * (q < 0.25), s=(size,) * 3, axes=(0, 1, 2)) / voxel_A**3


def ring_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """FRC by shell of two square images."""
    fa, fb = np.fft.rfft2(a), np.fft.rfft2(b)
    size = len(a)
    k = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)[None])
    shell = np.round(k).astype(int).ravel()

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell, np.real(values).ravel())

    power = np.sqrt(summed(np.abs(fa) ** 2) * summed(np.abs(fb) ** 2))
    return summed(fa * fb.conj()) / np.maximum(power, 1e-30)


def test_atom_projector_agrees_with_a_rotated_voxel_map() -> None:
    specimen, pixel_A = load_specimen(), 6.0
    projector = Projector(specimen, pixel_A, box_px=54)
    size = 54 * 2
    volume = voxel_map(specimen, size, pixel_A / 2)
    coefficients = scipy.ndimage.spline_filter(volume, order=5)
    axis = np.arange(size) - size // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    shells = int(0.9 * 27)
    for angles in ((20.0, 35.0, -50.0), (-140.0, 110.0, 75.0)):
        matrix = euler_matrix(*angles)
        # The image at (x, y) integrates the map along A^T (x, y, z).
        source = np.tensordot(matrix.T, np.stack([x, y, z]), axes=1)[::-1] + size // 2
        turned = scipy.ndimage.map_coordinates(coefficients, source, order=5, prefilter=False)
        projected = turned.sum(axis=0)[::2, ::2]
        frc = ring_correlations(projected, projector.project(matrix))
        assert frc[1:shells].min() > 0.995
        mirrored = projector.project(matrix @ np.diag([1.0, 1.0, -1.0]))
        assert ring_correlations(projected, mirrored)[5:shells].mean() < 0.5


def test_poses_optics_and_contrast_agree_with_an_independent_simulator() -> None:
    folder = shared("data/movies/sim_30S")
    stem = "FoilHole_18911345_Data_18884024_18884026_20260404_091207"
    gain = mrc.read(next(folder.glob("Supervisor_*/gain.mrc")))
    raw = tifffile.imread(next(folder.rglob(f"{stem}_fractions.tiff")))[:, ::-1]
    header = json.loads((folder / "ground_truth" / f"{stem}.json").read_text())
    particles = np.load(folder / "ground_truth" / f"{stem}.npz")
    frames = raw.astype(np.float32) * gain
    frames[:, gain == 0] = 4.0
    frames[frames > 30] = 4.0
    shift = -torch.tensor(header["global_shift_px"])
    spectra = fourier.rfft2(torch.from_numpy(frames))
    total = fourier.shift_rfft(spectra, (1024, 1024), shift[:, 0], shift[:, 1]).sum(0)
    image = fourier.irfft2(total, (1024, 1024)).numpy() / (16 * 4.0) - 1

    projector = Projector(load_specimen(), 2.0)
    half = projector.box_px // 2
    box = (2 * half, 2 * half)
    canvas = Canvas(shape=box, image_shape=box, pixel_size_A=2.0)

    def agreement(turn: np.ndarray, angle_sign: int = 1) -> tuple[float, float]:
        """Mean correlation and mean scale of observed on predicted contrast."""
        found = []
        for n, (x, y) in enumerate(particles["pos"]):
            ix, iy = round(x), round(y)
            if not (half <= ix < 1024 - half and half <= iy < 1024 - half):
                continue
            own = Ctf(
                defocus_u_A=header["defocus_u"] + particles["zslab"][n],
                defocus_v_A=header["defocus_v"] + particles["zslab"][n],
                angle_deg=header["defocus_angle"],
                voltage_kV=300.0,
                spherical_aberration_mm=2.7,
                amplitude_contrast=0.1,
            )
            psi = angle_sign * particles["psi"][n]
            matrix = euler_matrix(particles["rot"][n], particles["tilt"][n], psi) @ turn
            potential = projector.project(matrix, offset_px=(x - ix, y - iy))
            transfer = contrast_transfer(own, 60.0, canvas)
            wanted = inverse(forward(potential, 1) * transfer, canvas.shape, 1)
            window = image[iy - half : iy + half, ix - half : ix + half]
            window, wanted = window - window.mean(), wanted - wanted.mean()
            product = float((window * wanted).sum())
            power = float((wanted**2).sum())
            found.append((product / math.sqrt(power * float((window**2).sum())), product / power))
        return tuple(np.mean(found, axis=0))  # type: ignore[return-value]

    correlation, scale = agreement(np.eye(3))
    assert correlation > 0.15
    # Damage over 16 e/A^2 and an MTF of 0.5 at Nyquist take part of the undamaged contrast.
    assert 0.65 < scale < 0.95
    assert agreement(np.diag([1.0, 1.0, -1.0]))[0] < 0.4 * correlation
    assert agreement(np.eye(3), angle_sign=-1)[0] < 0.4 * correlation


# 4. Ice, dose, counting


def test_ice_forgets_itself_as_water_diffuses() -> None:
    canvas = Canvas(shape=(256, 256), image_shape=(256, 256), pixel_size_A=1.0)
    rng = np.random.default_rng(3)
    ice = Ice(canvas, thickness_A=300.0, dose_per_frame_e_A2=2.0, diffusion_A2=0.3, rng=rng)
    first, second = ice.next_frame(), ice.next_frame()
    q = canvas.frequencies()
    for low, high in ((0.05, 0.1), (0.18, 0.22), (0.28, 0.32)):
        band = (q > low) & (q < high)
        found = np.vdot(first[band], second[band]).real / np.vdot(first[band], first[band]).real
        expected = np.mean(np.exp(-2 * np.pi**2 * q[band] ** 2 * 0.3 * 2.0))
        assert found == pytest.approx(expected, abs=0.03)


def test_ice_has_the_amplitude_of_its_molecules() -> None:
    canvas = Canvas(shape=(512, 512), image_shape=(512, 512), pixel_size_A=2.0)
    rng = np.random.default_rng(4)
    ice = Ice(canvas, thickness_A=400.0, dose_per_frame_e_A2=1.0, diffusion_A2=0.3, rng=rng)
    potential = inverse(ice.next_frame() * ice.amplitude, (512, 512), 1)
    # Parseval over the band below 1/5 A, where S = 0.08 and f of water is tabulated.
    spectrum = np.abs(np.fft.fft2(potential)) ** 2 / potential.size
    k = np.fft.fftfreq(512, 2.0)
    q = np.hypot(k[:, None], k[None])
    band = (q > 0.05) & (q < 0.15)
    water = form_factor("O", q) + 2 * form_factor("H", q)
    expected = (47.878 * water) ** 2 * 0.08 * 0.0314 * 400.0 / 2.0**2
    assert spectrum[band].mean() == pytest.approx(expected[band].mean(), rel=0.03)
    # The first column and the first row are treated alike although only one is halved.
    edge = (np.abs(k) > 0.05) & (np.abs(k) < 0.15)
    assert spectrum[edge, 0].mean() == pytest.approx(spectrum[0, edge].mean(), rel=0.5)


def test_counts_have_the_dose_and_the_spread_of_electrons() -> None:
    recipe = dataclasses.replace(
        load_recipe("ci"), nx=512, ny=512, n_particles=0, ice_thickness_A=1e-6, n_hot=0
    )
    movie = render_movie(recipe, SEED)
    good = movie.gain > 0
    raw = movie.frames[:, good].astype(np.float64)
    dose = recipe.dose_per_frame_e_A2 * recipe.pixel_size_A**2
    assert (raw * movie.gain[good]).mean() == pytest.approx(dose, rel=0.005)
    assert raw.var(axis=0, ddof=1).mean() / raw.mean() == pytest.approx(1.0, rel=0.02)
    assert movie.frames[:, ~good].max() == 0
    # Flat after gain correction: blocks differ by no more than counting noise allows.
    total = (movie.frames * movie.gain).sum(axis=0)
    total[~good] = total[good].mean()
    blocks = total.reshape(16, 32, 16, 32).mean(axis=(1, 3))
    assert blocks.std() / blocks.mean() < 1.5 / math.sqrt(dose * recipe.n_frames * 32 * 32)
    uncorrected = movie.frames.sum(axis=0).reshape(16, 32, 16, 32).mean(axis=(1, 3))
    assert uncorrected.std() / uncorrected.mean() > 0.01


def test_mean_of_a_full_movie_is_its_dose() -> None:
    recipe = load_recipe("demo")
    dose = recipe.dose_per_frame_e_A2 * recipe.pixel_size_A**2
    assert corrected(demo_movie()).mean() == pytest.approx(dose, rel=0.005)


# 5. Thon rings


def ring_correlation(movie: RenderedMovie, given: Ctf, low_A: float, high_A: float) -> float:
    """Correlation of the power spectrum with sin^2(phase), both as functions of the phase."""
    pixel_A = movie.truth.pixel_size_A
    shape = (movie.frames.shape[1], movie.frames.shape[2])
    shift = -torch.from_numpy(movie.truth.global_shift_px)
    spectra = fourier.rfft2(torch.from_numpy(corrected(movie) - corrected(movie).mean()))
    aligned = fourier.shift_rfft(spectra, shape, shift[:, 0], shift[:, 1])
    # Groups of 4.5 e/A^2: water moves too much over a longer time.
    power = torch.stack([group.sum(0).abs() ** 2 for group in aligned.split(3)]).sum(0)
    ky, kx = fourier.frequencies(shape, pixel_A)
    q = fourier.radius(shape, pixel_A)
    band = (q > 1 / low_A) & (q < 1 / high_A)
    phase = ctf_model.phase(given, kx, ky)[band].numpy()
    bins = (phase / math.pi / 0.2).astype(int)
    number = np.bincount(bins)
    used = number > 20
    observed = np.bincount(bins, power[band].numpy())[used] / number[used]
    expected = np.bincount(bins, np.sin(phase) ** 2)[used] / number[used]
    # Ten bins are two rings: what varies more slowly is background.
    observed = observed / scipy.ndimage.uniform_filter1d(observed, 10)
    expected = expected - scipy.ndimage.uniform_filter1d(expected, 10)
    return float(np.corrcoef(observed, expected)[0, 1])


def test_power_spectrum_shows_the_true_rings_and_no_others() -> None:
    movie = demo_movie()
    true = movie.truth.ctf
    best = ring_correlation(movie, true, 12.0, 4.05)
    assert best > 0.8
    off = {"defocus_u_A": true.defocus_u_A + 400, "defocus_v_A": true.defocus_v_A + 400}
    assert ring_correlation(movie, dataclasses.replace(true, **off), 12.0, 4.05) < 0.5 * best


# 6. Motion


def peak_shift(reference: np.ndarray, moved: np.ndarray) -> tuple[float, float]:
    """(x, y) by which the content of `moved` lies further up the indices, to a fraction of a px."""
    a, b = (np.fft.rfft2(image - image.mean()) for image in (reference, moved))
    k = np.hypot(np.fft.fftfreq(len(reference))[:, None], np.fft.rfftfreq(reference.shape[1]))
    surface = np.fft.irfft2(b * a.conj() * np.exp(-50 * k**2), s=reference.shape)
    y, x = np.unravel_index(int(surface.argmax()), surface.shape)

    def refined(line: np.ndarray, top: int) -> float:
        low, mid, high = (line[(top + step) % len(line)] for step in (-1, 0, 1))
        whole = (top + len(line) // 2) % len(line) - len(line) // 2
        return whole - 0.5 * (high - low) / (high + low - 2 * mid)

    return refined(surface[y], int(x)), refined(surface[:, x], int(y))


def test_content_moves_by_plus_the_recorded_shift() -> None:
    movie = render_movie(bright(nx=768, ny=768, n_particles=90, creep_A=40.0), SEED)
    frames = corrected(movie)
    for frame in (2, 4, 7):
        found = peak_shift(frames[0], frames[frame])
        assert found == pytest.approx(tuple(movie.truth.global_shift_px[frame]), abs=0.2)
    assert np.hypot(*movie.truth.global_shift_px[7]) > 4.0


def test_local_motion_moves_particles_as_recorded() -> None:
    recipe = bright(
        nx=384, ny=384, n_particles=24, burst_A=0, creep_A=0, walk_A=0, local_motion_A=15
    )
    movie = render_movie(recipe, SEED)
    frames = corrected(movie)
    found, true = [], []
    half = 32
    for (x, y), moved in zip(movie.truth.position_px, movie.truth.displacement_px, strict=True):
        ix, iy = round(x), round(y)
        if half <= ix < 384 - half and half <= iy < 384 - half:
            box = np.s_[iy - half : iy + half, ix - half : ix + half]
            found.append(peak_shift(frames[0][box], frames[-1][box]))
            true.append(moved[-1])
    error = np.array(found) - np.array(true)
    assert len(found) > 8
    assert np.std(true) > 1.0
    assert math.sqrt(np.mean(error**2)) < 0.35


def test_particles_are_dark_and_where_the_truth_says() -> None:
    movie = demo_movie()
    shift = -torch.from_numpy(movie.truth.global_shift_px)
    spectra = fourier.rfft2(torch.from_numpy(corrected(movie)))
    total = fourier.shift_rfft(spectra, (1024, 1024), shift[:, 0], shift[:, 1]).sum(0)
    image = scipy.ndimage.gaussian_filter(fourier.irfft2(total, (1024, 1024)).numpy(), 15.0)

    def darkness(points: np.ndarray) -> float:
        inside = points[np.all((points > 60) & (points < 964), axis=1)]
        values = image[tuple(inside.T[::-1].astype(int))]
        return float((image.mean() - values.mean()) / image.std())

    positions = movie.truth.position_px
    right = darkness(positions)
    assert right > 1.0
    assert darkness(positions * [1, -1] + [0, 1023]) < 0.5 * right
    assert darkness(positions[:, ::-1]) < 0.5 * right
