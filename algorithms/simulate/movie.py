"""One movie: scene, optics, motion, damage and camera put together, frame by frame.

Known simplifications: single scattering, no loss of coincident electrons, particles do not turn
during the exposure, ice of constant thickness, no charging, no movement within a frame.

Source: simulation.md sections 4 and 5.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray

from algorithms import fourier
from algorithms.ctf import Ctf
from algorithms.simulate.detector import Detector, make_detector, signal_transfer
from algorithms.simulate.motion import (
    damage,
    displacements_px,
    draw_drift_px,
    draw_local_coeff,
    local_shift_px,
)
from algorithms.simulate.optics import Canvas, Ice, contrast_transfer, make_canvas
from algorithms.simulate.recipe import Recipe, random_stream
from algorithms.simulate.scene import Scene, draw_potential, make_scene, slab_offsets_A
from algorithms.simulate.specimen import Projector, Specimen, euler_matrix, load_specimen
from algorithms.simulate.transforms import forward, inverse
from algorithms.simulate.truth import MovieTruth

_MARGIN_A = 128.0
# EPU sets the defocus in steps of 0.1 um.
_NOMINAL_STEP_A = 1000.0
# Shape of the gamma distribution of astigmatism; its median is about (shape - 1/3) scale.
_ASTIGMATISM_SHAPE = 5.0


@dataclass(frozen=True, kw_only=True)
class RenderedMovie:
    """Raw frames `[F, ny, nx]` uint8 in MRC orientation, the camera, and the truth."""

    frames: NDArray[np.uint8]
    gain: NDArray[np.float32]
    truth: MovieTruth


def session_detector(recipe: Recipe, seed: int) -> Detector:
    """The camera that all movies of (recipe, seed) share."""
    return make_detector(recipe, random_stream(seed, "detector"))


def render_movie(recipe: Recipe, seed: int, *, index: int = 0, threads: int = 1) -> RenderedMovie:
    """Render one movie of a session.

    Parameters
    ----------
    recipe, seed
        Of the session.
    index
        Number of the movie within the session.
    threads
        Of the transforms; everything else runs on the caller's thread.
    """
    specimen = load_specimen(recipe.specimen, b_factor_A2=recipe.atom_b_factor_A2)
    scene = make_scene(recipe, specimen.diameter_A, random_stream(seed, "scene", index))
    truth = _draw_truth(recipe, specimen, scene, seed, index)
    detector = session_detector(recipe, seed)
    shot = random_stream(seed, "shot noise", index)
    ice = random_stream(seed, "ice", index)
    frames = np.empty((recipe.n_frames, recipe.ny, recipe.nx), np.uint8)
    for number, electrons in enumerate(_expected(recipe, specimen, scene, truth, ice, threads)):
        frames[number] = detector.count(electrons, shot)
    return RenderedMovie(frames=frames, gain=detector.gain, truth=truth)


def _draw_truth(
    recipe: Recipe, specimen: Specimen, scene: Scene, seed: int, index: int
) -> MovieTruth:
    """Draw optics and motion of one movie and gather all that is known about it."""
    optics = random_stream(seed, "optics", index)
    steps = (recipe.defocus_max_A - recipe.defocus_min_A) / _NOMINAL_STEP_A
    nominal = recipe.defocus_min_A + _NOMINAL_STEP_A * int(optics.integers(int(steps) + 1))
    mean = nominal + recipe.defocus_spread_A * float(optics.standard_normal())
    scale = recipe.astigmatism_median_A / (_ASTIGMATISM_SHAPE - 1 / 3)
    astigmatism = float(optics.gamma(_ASTIGMATISM_SHAPE, scale)) if scale else 0.0
    motion = random_stream(seed, "motion", index)
    drift = draw_drift_px(recipe, motion)
    local = draw_local_coeff(recipe, motion)
    shape = (recipe.ny, recipe.nx)
    return MovieTruth(
        index=index,
        pixel_size_A=recipe.pixel_size_A,
        dose_per_frame_e_A2=recipe.dose_per_frame_e_A2,
        voltage_kV=recipe.voltage_kV,
        spherical_aberration_mm=recipe.spherical_aberration_mm,
        amplitude_contrast=recipe.amplitude_contrast,
        nominal_defocus_A=nominal,
        defocus_u_A=mean + 0.5 * astigmatism,
        defocus_v_A=mean - 0.5 * astigmatism,
        defocus_angle_deg=float(optics.uniform(-90.0, 90.0)),
        b_factor_A2=recipe.b_factor_A2,
        ice_thickness_A=recipe.ice_thickness_A,
        particle_diameter_A=specimen.diameter_A,
        global_shift_px=drift,
        local_coeff=local,
        decoys=scene.decoys,
        position_px=scene.position_px,
        height_A=scene.height_A,
        defocus_offset_A=slab_offsets_A(recipe)[scene.slab],
        rot=scene.angles_deg[:, 0],
        tilt=scene.angles_deg[:, 1],
        psi=scene.angles_deg[:, 2],
        displacement_px=displacements_px(drift, local, scene.position_px, shape),
    )


def _expected(
    recipe: Recipe,
    specimen: Specimen,
    scene: Scene,
    truth: MovieTruth,
    rng: np.random.Generator,
    threads: int,
) -> Iterator[NDArray[np.float32]]:
    """Expected electrons per pixel `[ny, nx]` of every frame in turn."""
    canvas = make_canvas((recipe.ny, recipe.nx), recipe.pixel_size_A, _MARGIN_A)
    q = canvas.frequencies()
    mtf = signal_transfer(q * recipe.pixel_size_A, recipe.mtf_at_nyquist)
    middle = contrast_transfer(truth.ctf, recipe.b_factor_A2, canvas) * mtf
    particles = mtf * _particle_contrast(recipe, specimen, scene, truth.ctf, canvas, threads)
    ice = Ice(
        canvas,
        thickness_A=recipe.ice_thickness_A,
        dose_per_frame_e_A2=recipe.dose_per_frame_e_A2,
        diffusion_A2=recipe.ice_diffusion_A2,
        rng=rng,
    )
    ice_transfer = middle * ice.amplitude
    decoys = middle * _decoy_potential(scene, canvas, threads)
    drift = torch.from_numpy(truth.global_shift_px)
    ramps_y, ramps_x = fourier.phase_ramps(canvas.shape, drift[:, 0], drift[:, 1])
    lost = np.exp(-recipe.ice_thickness_A / recipe.loss_length_A) if recipe.loss_length_A else 1.0
    electrons = np.float32(recipe.dose_per_frame_e_A2 * recipe.pixel_size_A**2 * lost)
    for frame in range(recipe.n_frames):
        # Half of this frame's dose is on the specimen when the average electron arrives.
        dose = (frame + 0.5) * recipe.dose_per_frame_e_A2
        spectrum = particles * damage(q, dose, recipe.voltage_kV) + decoys
        spectrum += ice_transfer * ice.next_frame()
        spectrum *= ramps_y[frame].numpy()
        spectrum *= ramps_x[frame].numpy()
        contrast = inverse(spectrum, canvas.shape, threads)
        if recipe.local_motion_A:
            image = _warped(contrast, canvas, truth.local_coeff, frame)
        else:
            image = canvas.cut(contrast)
        yield electrons * (1 + image)


def _particle_contrast(
    recipe: Recipe, specimen: Specimen, scene: Scene, ctf: Ctf, canvas: Canvas, threads: int
) -> NDArray[np.complex64]:
    """Transform of the particles' contrast on the canvas, undamaged, before the camera."""
    projector = Projector(specimen, recipe.pixel_size_A, threads=threads)
    total = np.zeros((canvas.shape[0], canvas.shape[1] // 2 + 1), np.complex64)
    for slab, offset_A in enumerate(slab_offsets_A(recipe)):
        members = np.flatnonzero(scene.slab == slab)
        if not len(members):
            continue
        potential = np.zeros(canvas.shape, np.float32)
        for member in members:
            corner, offset = _place(scene.position_px[member], canvas, projector.box_px)
            matrix = euler_matrix(*scene.angles_deg[member])
            _add(potential, projector.project(matrix, offset_px=offset), corner)
        own = dataclasses.replace(
            ctf,
            defocus_u_A=ctf.defocus_u_A + offset_A,
            defocus_v_A=ctf.defocus_v_A + offset_A,
        )
        transfer = contrast_transfer(own, recipe.b_factor_A2, canvas)
        total += forward(potential, threads) * transfer
    return total


def _decoy_potential(scene: Scene, canvas: Canvas, threads: int) -> NDArray[np.complex64]:
    """Transform of the decoys' potential; they lie in the middle of the layer."""
    potential = np.zeros(canvas.shape, np.float32)
    for decoy in scene.decoys:
        box = 2 * int(np.ceil((1.25 * decoy.radius_A + 20.0) / canvas.pixel_size_A))
        corner, offset = _place(np.array([decoy.x_px, decoy.y_px]), canvas, box)
        _add(potential, draw_potential(decoy, offset, box, canvas.pixel_size_A), corner)
    return forward(potential, threads)


def _place(
    position_px: NDArray[np.float64], canvas: Canvas, box_px: int
) -> tuple[tuple[int, int], tuple[float, float]]:
    """First (row, column) on the canvas of a box around a position, and the rest (x, y) in px."""
    origin = canvas.origin
    whole = np.round(position_px).astype(int)
    rest = position_px - whole
    corner = (origin[0] + whole[1] - box_px // 2, origin[1] + whole[0] - box_px // 2)
    return (int(corner[0]), int(corner[1])), (float(rest[0]), float(rest[1]))


def _add(potential: NDArray[np.float32], box: NDArray[np.float32], corner: tuple[int, int]) -> None:
    """Add a box to the periodic canvas."""
    rows = (corner[0] + np.arange(box.shape[0])) % potential.shape[0]
    columns = (corner[1] + np.arange(box.shape[1])) % potential.shape[1]
    potential[np.ix_(rows, columns)] += box


def _warped(
    contrast: NDArray[np.float32], canvas: Canvas, coeff: NDArray[np.float64], frame: int
) -> NDArray[np.float32]:
    """The image part of a canvas whose content moved by the local field (cubic splines)."""
    ny, nx = canvas.image_shape
    rows, columns = np.arange(ny)[:, None], np.arange(nx)[None, :]
    # The field is smooth over thousands of A: its value where things arrive is that where they
    # started, to a few thousandths of a pixel.
    dx, dy = local_shift_px(coeff, frame, columns / nx - 0.5, rows / ny - 0.5)
    points = np.stack([rows - dy + canvas.origin[0], columns - dx + canvas.origin[1]])
    image = scipy.ndimage.map_coordinates(contrast, points, order=3, mode="grid-wrap")
    return np.asarray(image, dtype=np.float32)
