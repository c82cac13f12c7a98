"""What the options of a selection ask for: weights, thresholds, minima.

Source: class-ranker.md section 6, schemes.md section 10.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from algorithms.ranker import weights
from algorithms.ranker.selection import Rules, adaptive_threshold
from algorithms.ranker.weights import Weights
from services.kit.errors import Misuse
from services.kit.options import Options

WEIGHTS = "--weights"
OVERRIDES = "--overrides"
ARGUMENTS = {
    WEIGHTS: "FILE",
    OVERRIDES: "FILE",
    "--ask_score": "SCORE",
    "--max_score": "SCORE",
    "--relative_thresholds": "Yes|No",
    "--select_min_nr_classes": "N",
    "--adaptive_quantile": "SHARE",
    "--auto_select": "Yes|No",
}
# An adaptive threshold stays between these.
ADAPTIVE_BOUNDS = (0.05, 0.5)


class NoModel(Misuse):
    """There are no weights to score with."""


def weights_path(project: Path, options: Options, given: Options) -> Path:
    """Return where the weights are.

    Parameters
    ----------
    project
        What a relative path is below.
    options, given
        Of the job, and its additional arguments.

    Raises
    ------
    NoModel
        None are named, and none come with this version; or the file is not there.
    """
    name = given.text(WEIGHTS)
    path = project / name if name else weights.DEFAULT
    if path.exists():
        return path
    if name:
        raise NoModel(f"the weights {path} cannot be read: there is no such file")
    raise NoModel(
        f"option other_args of {options.job} names no weights: write `{WEIGHTS} FILE` there, "
        f"where FILE is an own .safetensors file, {weights.RELION5}, or RELION 4's "
        "relion_class_ranker_default_model.pt. This version has no weights of its own yet"
    )


def rules_of(
    options: Options,
    given: Options,
    used: Weights,
    scores: np.ndarray,
    session: Sequence[float] = (),
) -> tuple[Rules, str]:
    """Return the rules, and a line on where the threshold comes from; empty: as given.

    Parameters
    ----------
    options, given
        Of the job, and its additional arguments.
    used
        Their card has thresholds, and says whether they may select by themselves.
    scores
        Of these classes `[K]`.
    session
        Scores of other classifications of the session, for an adaptive threshold.
    """
    low, note = options.number("rank_threshold", used.threshold, -10.0, 10.0), ""
    if options.text("rank_threshold") == "":
        note = f"threshold {low:.3g}: the default of the weights"
    quantile = given.number("--adaptive_quantile", -1.0, 0.0, 1.0)
    if quantile >= 0.0:
        low = adaptive_threshold([*scores.tolist(), *session], quantile, ADAPTIVE_BOUNDS)
        whose = "this session's classes" if session else "these classes"
        note = f"threshold {low:.3g}: the quantile {quantile:g} of the scores of {whose}"
    ask = given.number("--ask_score", low if used.ask_threshold is None else used.ask_threshold)
    particles = options.whole("select_nr_parts", -1)
    classes = given.whole("--select_min_nr_classes", options.whole("select_nr_classes", -1))
    rules = Rules(
        low=low,
        high=given.number("--max_score", 999.0),
        # One that is given has to be in order; others follow.
        ask=min(ask, low) if quantile >= 0.0 or "--ask_score" not in given.values else ask,
        relative=given.switch("--relative_thresholds", False),
        least_particles=particles,
        # As RELION's window: one of the two, unless both are asked for by name.
        least_classes=-1
        if particles > 0 and "--select_min_nr_classes" not in given.values
        else classes,
        automatic=given.switch("--auto_select", not used.is_experimental),
    )
    return rules, note
