"""Memory and time of VDAM's first mini-batches when there are many particles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algorithms.formats import mrc, star

BOX, IMAGES = 128, 200
# Peak memory of a whole process, of which 0.2 GB are torch; a machine of 24 GiB has room to spare.
MOST_GB = 4.0
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import torch
from algorithms.refine.run import Run
from algorithms.refine.sampling import Sampling
from algorithms.refine.types import Options
torch.set_num_threads(1)
folder = Path(sys.argv[1])
options = Options(n_classes=50, iterations=200, particle_diameter_A=256.0, gradient=True, seed=1)
sampling = Sampling(psi_step_deg=12.0, offset_range_A=15.0, offset_step_A=6.0)
run = Run(folder / "particles.star", folder / "run", "run", folder, options, sampling)
took = []
for _ in range(4):
    begun = time.process_time()
    run.step()
    took.append(time.process_time() - begun)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"peak_GB": peak, "took_s": min(took[1:])}))
"""


def classified(folder: Path, n: int) -> dict[str, float]:
    """Do some mini-batches of `n` particles, whose images are a few in half precision."""
    folder.mkdir()
    random = np.random.default_rng(1)
    axis = np.arange(BOX) - BOX // 2
    square = axis[None] ** 2 + axis[:, None] ** 2
    images = random.standard_normal((IMAGES, BOX, BOX)) + np.exp(-square / 800.0)
    mrc.write(folder / "stack.mrcs", images.astype(np.float16), 3.0, is_stack=True)
    defocus = random.uniform(8_000.0, 22_000.0, n)
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [3.0], "rlnImageSize": [BOX], "rlnImageDimensionality": [2],
    }  # fmt: skip
    particles = {
        "rlnImageName": [f"{i % IMAGES + 1:06d}@stack.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic{i // 200:05d}.mrc" for i in range(n)],
        "rlnOpticsGroup": [1] * n, "rlnCoordinateX": defocus, "rlnCoordinateY": defocus,
        "rlnDefocusU": defocus, "rlnDefocusV": defocus, "rlnDefocusAngle": [0.0] * n,
        "rlnPhaseShift": [0.0] * n, "rlnCtfBfactor": [0.0] * n, "rlnCtfScalefactor": [1.0] * n,
    }  # fmt: skip
    tables = {"optics": star.Table.of(optics), "particles": star.Table.of(particles)}
    star.save(folder / "particles.star", tables)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


@pytest.mark.slow
def test_many_particles_need_little_memory_and_no_time_of_their_own(tmp_path: Path) -> None:
    few = classified(tmp_path / "few", 10_000)
    more = classified(tmp_path / "more", 40_000)  # with the same mini-batches, of 200
    many = classified(tmp_path / "many", 100_000)
    assert many["peak_GB"] < MOST_GB
    assert many["peak_GB"] - few["peak_GB"] < 1.0  # 11 kB for each particle
    assert more["took_s"] < 1.4 * few["took_s"]
