"""A processed session for RELION's programs, and what comparing tables and images needs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.simulate.truth import MovieTruth
from tests.system import sessions


@dataclass(frozen=True)
class Session:
    """A processed session: its project folder and the truth of each micrograph, by name."""

    project: Path
    truth: dict[str, MovieTruth]

    def relion(self, program, *arguments, fails=False, **env):
        """Run a program in the project folder, as RELION's users do."""
        done = subprocess.run(
            [f"relion_{program}", *map(str, arguments)],
            cwd=self.project,
            env=sessions.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said[-3000:]
        return done.stdout if not fails else said

    def load(self, path):
        return star.load(self.project / path)

    def read(self, path):
        return mrc.read(self.project / path)

    def files(self, pattern):
        found = sorted(self.project.glob(pattern))
        assert found, pattern
        return [path.relative_to(self.project) for path in found]

    def images(self, table):
        """Return the images that a particle table names, `[n, side, side]`."""
        names = [name.split("@") for name in table.strings("rlnImageName")]
        stacks = {stack: self.read(stack) for stack in {stack for _, stack in names}}
        return np.stack([stacks[stack][int(number) - 1] for number, stack in names])


def columns(table, *labels):
    """Return columns side by side, `[n, labels]`."""
    return np.column_stack([table.floats(label) for label in labels])


def positions(table):
    return columns(table, "rlnCoordinateX", "rlnCoordinateY")


def shifts(table):
    return columns(table, "rlnMicrographShiftX", "rlnMicrographShiftY")


def spread(difference):
    """Root mean square of vectors `[n, 2]`, their mean taken away."""
    return float(np.sqrt(np.square(difference - difference.mean(0)).sum(1).mean()))


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def radius_px(side, dimensions=2):
    axis = np.arange(side) - side // 2
    return np.sqrt(sum(np.square(a) for a in np.meshgrid(*[axis] * dimensions)))


def moved(images, x_px, y_px):
    """Shift images `[n, side, side]` so that what is at (x, y) from the centre comes to it.

    The rows beside Nyquist are left out: RELION 3.1 keeps the other one of the two there.
    """
    side = images.shape[-1]
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    phase = fx * x_px[:, None, None] + fy * y_px[:, None, None]
    shift = np.exp(2j * np.pi * phase) * (np.maximum(abs(fy), fx) < 0.45)
    return np.fft.irfft2(np.fft.rfft2(images) * shift, s=(side, side))
