"""Motion correction: a movie in, an aligned and weighted micrograph out."""

from algorithms.motion.correct import correct_movie, motion_statistics
from algorithms.motion.types import (
    CorrectedMovie,
    MotionError,
    MotionOptions,
    MotionStatistics,
    MovieLike,
)

__all__ = [
    "CorrectedMovie",
    "MotionError",
    "MotionOptions",
    "MotionStatistics",
    "MovieLike",
    "correct_movie",
    "motion_statistics",
]
