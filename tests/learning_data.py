"""Records of small made-up jobs for the tests of training: lumps are good, noise is not."""

import numpy as np

from algorithms.ranker.features import features
from algorithms.ranker.trainingset.records import TAGS, ClassRecords
from tests.ranker_data import averages, class_set


def job(name: str, part: str = "train", *, n: int = 8, seed: int = 1, **changes) -> ClassRecords:
    """Return a job of n classes: the first half are lumps, label 1 or 5, the others noise."""
    random = np.random.default_rng(seed)
    images = averages(n, 32, seed)
    half = n // 2
    images[half:] = random.normal(0.0, 0.3, images[half:].shape) * (images[half:] != 0.0)
    classes = class_set(images, pixel_A=5.0)
    found = features(classes, "coldstream")
    label = np.where(np.arange(n) < half, 1, 0)
    label[1] = 5
    w = random.uniform(0.6, 1.0, n)
    y = np.where(label == 1, 0.75, np.where(label == 5, 0.5, -0.25 * w)) + 0.25 * w
    counts = np.zeros((n, len(TAGS)))
    counts[:half, 0], counts[half:, TAGS.index("N")] = 90.0, 95.0
    counts[:, TAGS.index("C")] = 5.0
    values = {
        "job": name,
        "structure": f"structure of {name}",
        "family": f"family of {name}",
        "part": part,
        "source": "simulated",
        "seed": seed,
        "configuration": "{}",
        "features": found,
        "size": classes.sizes,
        "fraction": classes.fractions,
        "resolution_A": np.where(label > 0, 10.0, 30.0) + random.normal(0.0, 1.0, n),
        "y": y,
        "label": label.astype(np.int64),
        "w": w,
        "job_score": 1.0,
        "true_resolution_A": np.where(label > 0, 10.0, np.inf),
        "offset": np.zeros(n),
        "neighbour": np.zeros(n),
        "counts": counts,
        "rare": np.where(np.arange(n) == 0, 80.0, 0.0),
        "totals": counts.sum(0) + 10.0,
    }
    return ClassRecords(**(values | changes))


def jobs_of(train: int = 6, others: int = 2) -> dict[str, list[ClassRecords]]:
    """Return a set by part."""
    out = {"train": [job(f"t{i}", seed=i) for i in range(train)], "real": []}
    for place, part in enumerate(("validation", "test", "second")):
        out[part] = [job(f"{part}{i}", part, seed=100 * (place + 1) + i) for i in range(others)]
    return out
