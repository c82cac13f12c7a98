"""What scoring costs: 100 classes in less than a second of one processor."""

import subprocess
import sys

import pytest

CODE = """
import time
from dataclasses import replace
import numpy as np
from algorithms.ranker.constants import RELION
from algorithms.ranker.features import features
from algorithms.ranker.scoring import scored
from algorithms.ranker.weights import dumps, loads
from tests.ranker_data import CARD, averages, class_set, formula_arrays

classes = class_set(averages(100, 100), 3.54)
weights = loads(dumps(formula_arrays(), RELION, CARD), "w")
scored(features(classes.take(np.arange(2))), 2, weights)
start = time.process_time()
scored(features(classes), 100, weights)
print(time.process_time() - start)
"""


@pytest.mark.slow
def test_a_hundred_classes_are_scored_in_a_second_on_one_core():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert float(done.stdout) < 1.0
