"""A whole processed session in the hands of RELION's programs, written against Debian's 3.1.3.

Files go both ways: RELION reads what coldstream wrote, and where RELION does the same work
(correction, picks, particles) its results are compared with ours. Micrographs and stacks are
written as float32 here: RELION 3.1 refuses float16, which RELION 4 and 5 read.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from algorithms.extraction import ExtractOptions, extract
from algorithms.formats import mrc, star
from algorithms.motion import motion_statistics
from algorithms.simulate.recipe import load_recipe
from algorithms.simulate.specimen import load_specimen
from algorithms.simulate.truth import MovieTruth, read_movie_truth, truth_folder
from tests.system import sessions
