"""Target scores from a person's labels and a score of the job. Source: class-ranker.md 5.5."""

import numpy as np

from algorithms.ranker.types import LEAST_PARTICLES, Mode, RankerError

# Label of a class (a colour in RELION's display) -> base of its score; label 6 and 0 are 0.
BASES = {1: 0.75, 5: 0.50, 2: 0.25, 3: 0.0, 4: 0.0}
ZERO = (0, 6)
_NO_BEST_A = 999.0


def target_scores(
    labels: np.ndarray,
    resolution_A: np.ndarray,
    sizes: np.ndarray,
    job_score: float,
    mode: Mode = "coldstream",
) -> np.ndarray:
    """Return the score that each class should get.

    The measure of resolution is the finest class labelled best. In our own mode it is the finest of
    the other labels where there is none such, and no class gains by being finer; RELION's scores
    leave their range there.

    Parameters
    ----------
    labels
        Of each class, 0 to 6 `[K]`.
    resolution_A
        Estimated resolution `[K]`, A.
    sizes
        Particles in each class `[K]`.
    job_score
        0 to 1, of the whole job.
    mode
        Whose rule.

    Returns
    -------
    np.ndarray
        `[K]`; 0 to 1 in our own mode.
    """
    known = (*BASES, *ZERO)
    if not np.isin(labels, known).all() or not 0.0 <= job_score <= 1.0:
        raise RankerError(
            f"labels must be of {sorted(known)} and the score of a job between 0 and 1, "
            f"not {sorted(set(labels.tolist()))} and {job_score:g}"
        )
    is_ours = mode == "coldstream"
    rated = ~np.isin(labels, ZERO)
    usable = (sizes > LEAST_PARTICLES) & (resolution_A > 0.0)
    best_class = (labels == 1) & usable
    measure = best_class if best_class.any() or not is_ours else rated & usable
    best = resolution_A[measure].min(initial=_NO_BEST_A)
    finer = (best / np.where(resolution_A > 0.0, resolution_A, np.inf)) ** 2
    base = np.array([BASES.get(int(label), 0.0) for label in labels])
    score = job_score * (base + 0.25 * (np.minimum(1.0, finer) if is_ours else finer))
    return np.where(rated, score, 0.0)
