"""Class averages and weights for the tests of the ranker: reference folders, and made ones."""

import json
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.ranker import inputs
from algorithms.ranker.architecture import Widths
from algorithms.ranker.inputs import Classified
from algorithms.ranker.types import ClassSet
from tests.shared import shared

FOLDERS = {
    "bgal_it025": "Class2D/manual_it025_optimiser.star",
    "syn_a": "Class2D/job001/run_it025_optimiser.star",
    "syn_c": "Class2D/job001/run_it025_optimiser.star",
}
OPTIMISER = "Class2D/job001/run_it025_optimiser.star"
CARD = {
    "training_set": "none",
    "label_rule": "none",
    "splits": "none",
    "metrics": {},
    "limits": "drawn by a formula: its scores mean nothing",
    "licence": "CC0",
}


def reference(name: str) -> tuple[Classified, dict]:
    """Return a reference job and what RELION's program made of it; skip where it is absent."""
    folder = shared(f"data/class2d/{name}")
    return inputs.read(folder, FOLDERS[name]), json.loads((folder / "reference.json").read_text())


def labels(name: str) -> np.ndarray:
    """Return a person's label of each class."""
    folder = (shared(f"data/class2d/{name}") / FOLDERS[name]).parent
    return star.load(folder / "backup_selection.star")[""].ints("rlnSelected")


def formula_arrays(widths: Widths | None = None) -> dict[str, np.ndarray]:
    """Return weights by the formula of reference_network.json, layers in the order of the file."""
    shapes = (widths or Widths()).shapes()
    out = {}
    names = [name for name in shapes if name.endswith(".weight")]
    for t, name in enumerate(names):
        shape = shapes[name]
        fan_in, n = int(np.prod(shape[1:])), int(np.prod(shape))
        values = 2.0 / np.sqrt(fan_in) * np.sin(0.37 * np.arange(n) + t)
        out[name] = values.reshape(shape).astype(np.float32)
        bias = 0.01 * np.cos(np.arange(shape[0]) + t)
        out[name.replace(".weight", ".bias")] = bias.astype(np.float32)
    return out


def averages(k: int, box: int, seed: int = 1) -> np.ndarray:
    """Return averages `[k, box, box]`: a lump of protein in a disc of solvent, all different."""
    random = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    out = np.full((k, box, box), 0.0, np.float32)
    inside = axis[:, None] ** 2 + axis[None] ** 2 <= (0.42 * box) ** 2
    for image in out:
        for _ in range(6):
            x, y = random.uniform(-0.12, 0.12, 2) * box
            width = random.uniform(0.04, 0.08) * box
            square = (axis[None] - x) ** 2 + (axis[:, None] - y) ** 2
            image += random.uniform(0.5, 1.5) * np.exp(-square / (2.0 * width**2))
        image += random.normal(0.0, 0.05, image.shape) - 0.3
        image *= inside
    return out


def class_set(images: np.ndarray, pixel_A: float = 4.0, **changes) -> ClassSet:
    """Return averages with plausible numbers: 100 particles in each."""
    k, box = images.shape[:2]
    values = {
        "images": images,
        "names": [f"{n + 1:06d}@Class2D/job001/run_it025_classes.mrcs" for n in range(k)],
        "pixel_A": pixel_A,
        "diameter_A": 0.8 * box * pixel_A,
        "n_particles": 100 * k,
        "fractions": np.full(k, 1.0 / k),
        "accuracy_deg": np.linspace(1.0, 5.0, k),
        "accuracy_A": np.linspace(1.0, 4.0, k),
        "resolution_A": np.linspace(9.0, 30.0, k),
    }
    return ClassSet(**(values | changes))


def write_job(
    place: Path, classes: ClassSet, *, drop: tuple[str, ...] = (), **flags: float
) -> None:
    """Write an iteration below a folder as RELION 5 does, particles in turn in all classes.

    `drop` leaves columns and flags out, whatever file they are in.
    """
    folder = place / "Class2D/job001"
    folder.mkdir(parents=True, exist_ok=True)
    # Written as bytes: a test may want values that no average has.
    path = folder / "run_it025_classes.mrcs"
    mrc.write(path, np.nan_to_num(classes.images), classes.pixel_A, is_stack=True)
    content = bytearray(path.read_bytes())
    content[1024:] = classes.images.astype("<f4").tobytes()
    path.write_bytes(content)
    k, n = len(classes), classes.n_particles
    name = "Class2D/job001/run_it025"

    def table(columns: dict, loop: bool = True) -> star.Table:
        kept = {label: values for label, values in columns.items() if label not in drop}
        return star.Table.of(kept, loop)

    general = {
        "rlnModelStarFile": f"{name}_model.star",
        "rlnExperimentalDataStarFile": f"{name}_data.star",
        "rlnParticleDiameter": classes.diameter_A,
        "rlnDoCorrectCtf": 1,
        **flags,
    }
    about = {
        "rlnOriginalImageSize": classes.box,
        "rlnCurrentImageSize": classes.box,
        "rlnPixelSize": classes.pixel_A,
        "rlnNrClasses": k,
        "rlnNrOpticsGroups": 1,
    }
    per_class = {
        "rlnReferenceImage": classes.names,
        "rlnClassDistribution": classes.fractions,
        "rlnAccuracyRotations": classes.accuracy_deg,
        "rlnAccuracyTranslationsAngst": classes.accuracy_A,
        "rlnEstimatedResolution": classes.resolution_A,
        "rlnOverallFourierCompleteness": [0.9] * k,
        "rlnClassPriorOffsetX": [0.0] * k,
        "rlnClassPriorOffsetY": [0.0] * k,
    }
    shells = np.arange(classes.box // 2 + 1)
    noise = {"rlnSpectralIndex": shells, "rlnSigma2Noise": np.full(len(shells), 1e-4)}
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [classes.pixel_A],
    }
    particles = {
        "rlnImageName": [f"{i + 1:06d}@Extract/m.mrcs" for i in range(n)],
        "rlnMicrographName": ["m.mrc"] * n,
        "rlnDefocusU": [12_000.0 + i % 7 for i in range(n)],
        "rlnDefocusV": [11_800.0] * n,
        "rlnDefocusAngle": [20.0] * n,
        "rlnOpticsGroup": [1] * n,
        "rlnClassNumber": [i % k + 1 for i in range(n)],
        "rlnColdstreamMark": [f"p{i}" for i in range(n)],
    }
    model = {
        "model_general": table(about, loop=False),
        "model_classes": table(per_class),
        "model_optics_group_1": table(noise),
    }
    star.save(place / f"{name}_model.star", model)
    star.save(place / f"{name}_data.star", {"optics": table(optics), "particles": table(particles)})
    star.save(place / f"{name}_optimiser.star", {"optimiser_general": table(general, loop=False)})
