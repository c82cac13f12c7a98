"""A stack through the real 2D classification, its files included.

Source: refinement.md; class-ranker.md section 9.1 (averages are never drawn).
"""

from collections.abc import Iterator
from pathlib import Path

from algorithms.formats import mrc, star
from algorithms.ranker.trainingset.settings import Setting
from algorithms.ranker.trainingset.stacks import Stack
from algorithms.refine.run import Run, suffix_of
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Options, Particles

TABLE, STACK = "particles.star", "particles.mrcs"
EARLY = 0.55  # of the iterations
_FOLDER = "run"
# Poses of the first pass that are kept at most (RELION's --maxsig): three times as fast, and the
# averages of such small sets look the same.
_SIGNIFICANT = 40


def write(setting: Setting, stack: Stack, folder: Path) -> Path:
    """Write a stack and its table, as extraction does; return the table."""
    n = len(stack.tags)
    content = mrc.encode(stack.images.numpy(), setting.pixel_A, is_stack=True)
    (folder / STACK).write_bytes(content)
    ctf = stack.ctf
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnVoltage": [ctf.voltage_kV],
        "rlnSphericalAberration": [ctf.spherical_aberration_mm],
        "rlnAmplitudeContrast": [ctf.amplitude_contrast],
        "rlnImagePixelSize": [setting.pixel_A],
        "rlnImageSize": [setting.box_px],
        "rlnImageDimensionality": [2],
    }
    rows = {
        "rlnImageName": [f"{i + 1:06d}@{STACK}" for i in range(n)],
        "rlnMicrographName": [f"micrograph{m:04d}.mrc" for m in stack.micrograph],
        "rlnOpticsGroup": [1] * n,
        "rlnDefocusU": ctf.defocus_u_A.tolist(),
        "rlnDefocusV": ctf.defocus_v_A.tolist(),
        "rlnDefocusAngle": ctf.angle_deg.tolist(),
        "rlnPhaseShift": ctf.phase_shift_deg.tolist(),
        "rlnClassNumber": [0] * n,  # none yet: an early stop leaves particles without a class
    }
    table = folder / TABLE
    star.save(table, {"optics": star.Table.of(optics), "particles": star.Table.of(rows)})
    return table


def options_of(setting: Setting) -> Options:
    """Return how a job is classified."""
    return Options(
        n_classes=setting.n_classes,
        iterations=setting.iterations,
        particle_diameter_A=setting.mask_A,
        gradient=setting.gradient,
        tau2_fudge=setting.fudge,
        zero_mask=setting.zero_mask,
        max_significants=_SIGNIFICANT,
        replacement="split" if setting.split else "copy",
        seed=setting.seed % 1_000_000,
    )


def looks(setting: Setting) -> list[int]:
    """Return after which iterations a job is looked at: jobs for training once before the end, too.

    That costs little beside the classification, and shows classes that are still blurred.
    """
    is_whole = setting.stop == setting.iterations
    early = round(EARLY * setting.stop)
    return [early, setting.stop] if is_whole and setting.part == "train" else [setting.stop]


def classify(setting: Setting, table: Path) -> Iterator[tuple[str, Particles]]:
    """Classify the particles of a table.

    Yields, when the job is to be looked at, the optimiser's path below the table's folder, and
    what is then known of the particles.
    """
    project = table.parent
    folder = project / _FOLDER
    folder.mkdir()
    pixel = setting.pixel_A
    sampling = Sampling(
        psi_step_deg=setting.psi_step_deg,
        offset_range_A=setting.offset_range_px * pixel,
        offset_step_A=2.0 * pixel,
    )
    run = Run(table, folder / "run", f"{_FOLDER}/run", project, options_of(setting), sampling)
    for number in looks(setting):
        while run.model.iteration < number:
            run.step()
        run.write()
        suffix = suffix_of(run.model.iteration)
        yield f"{_FOLDER}/run{suffix}_optimiser.star", run.data.particles
