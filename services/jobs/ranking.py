"""Automatic selection of 2D classes as a job: scores, what follows from them, and a picture.

Features are kept in the job's folder: the job called again with another threshold only selects.
Source: class-ranker.md sections 6 and 7, schemes.md section 10.
"""

import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.formats import mrc, star
from algorithms.ranker import inputs, scoring, tables, weights
from algorithms.ranker.features import Features
from algorithms.ranker.inputs import Classified
from algorithms.ranker.scoring import Scored
from algorithms.ranker.selection import (
    DEFAULT_THRESHOLD,
    Overrides,
    Rules,
    Selection,
    adaptive_threshold,
    select,
    stack_digest,
)
from algorithms.ranker.types import RankerError
from algorithms.ranker.weights import Weights
from services.jobs.job import HIDDEN, Failed, Job
from services.kit.digest import file_digest
from services.kit.errors import Misuse
from services.kit.options import Options
from services.kit.paths import atomic_write
from services.kit.tables import save_table
from services.report.ranking import contact_sheet

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
}
# An adaptive threshold stays between these.
ADAPTIVE_BOUNDS = (0.05, 0.5)
SHEET = "rank_classes.png"
SUB_IMAGES = "rank_images.mrcs"
KEPT = "ranker.npz"


@dataclass(frozen=True)
class Ranked:
    """What is known of the classes before a choice is made."""

    job: Classified
    weights: Weights
    found: Features
    scored: Scored
    stack: str


def class2dauto(job: Job) -> None:
    """Score the classes of a 2D classification and select particles by them."""
    for option in ("do_regroup", "do_recenter"):
        if job.options.switch(option, False):
            raise Misuse(
                f"option {option} of {job.options.job} is Yes: automatic class selection can "
                "neither regroup nor recenter; say No"
            )
    name = job.need("fn_model")
    given = Options(job.options.job, job.extra_arguments(ARGUMENTS))
    try:
        path = _weights_path(job, given)
        ranked = _ranked(job, inputs.read(job.project, name), weights.read(path))
        rules, note = _rules(job, given, ranked.scored.scores)
        decided, word = _decided(job, given, ranked.stack)
        chosen = select(ranked.scored.scores, ranked.job.classes.sizes, rules, decided)
        for line in (note, word):
            if line:
                job.say(line)
        _write(job, ranked, rules, chosen, note)
    except RankerError as error:
        raise Failed(str(error)) from error
    _draw(job, ranked, chosen)
    _tell(job, ranked, chosen)


def _weights_path(job: Job, given: Options) -> Path:
    name = given.text(WEIGHTS)
    if name:
        return job.project / name
    if weights.DEFAULT.exists():
        return weights.DEFAULT
    raise Misuse(
        f"option other_args of {job.options.job} names no weights: write `{WEIGHTS} FILE` there, "
        f"where FILE is an own .safetensors file, {weights.RELION5}, or RELION 4's "
        "relion_class_ranker_default_model.pt. This version has no weights of its own yet"
    )


def _ranked(job: Job, classified: Classified, used: Weights) -> Ranked:
    """Return features and scores; features that were kept are taken when they still fit."""
    stack = stack_digest(classified.classes)
    constants = used.constants
    for remark in classified.classes.remarks:
        job.warn(remark)
    key = _key(classified, stack, constants.mode)
    path = job.folder / HIDDEN / KEPT
    found = _kept(path, key)
    if found is None:
        # All of them: features.star has what the network does not look at, too.
        found = scoring.features_of(classified, constants.mode, with_texture=True)
        atomic_write(path, key + scoring.packed(found), durable=False)
    else:
        job.say("the features of these classes are there already")
    for remark in scoring.contract_remarks(found, constants):
        job.warn(remark)
    scored = scoring.scored(found, len(classified.classes), used)
    return Ranked(classified, used, found, scored, stack)


def _key(classified: Classified, stack: str, mode: str) -> bytes:
    """Return what the features follow from, as a digest."""
    folder = classified.folder
    model = classified.general.columns["rlnModelStarFile"][0]
    parts = [stack, mode, str(scoring.VERSION), file_digest(folder / classified.data_name)]
    digest = hashlib.sha256(repr(parts).encode())
    for name in (classified.optimiser, model):
        digest.update((folder / name).read_bytes())
    return digest.digest()


def _kept(path: Path, key: bytes) -> Features | None:
    if not path.exists():
        return None
    content = path.read_bytes()
    return scoring.unpacked(content[len(key) :]) if content.startswith(key) else None


def _rules(job: Job, given: Options, scores: np.ndarray) -> tuple[Rules, str]:
    """Return the rules, and a line on a threshold that follows the scores."""
    options = job.options
    low, note = options.number("rank_threshold", DEFAULT_THRESHOLD, -10.0, 10.0), ""
    quantile = given.number("--adaptive_quantile", -1.0, 0.0, 1.0)
    if quantile >= 0.0:
        low = adaptive_threshold(scores, quantile, ADAPTIVE_BOUNDS)
        note = f"threshold {low:.3g}: the quantile {quantile:g} of the scores of these classes"
    ask = given.number("--ask_score", low)
    particles = options.whole("select_nr_parts", -1)
    classes = given.whole("--select_min_nr_classes", options.whole("select_nr_classes", -1))
    rules = Rules(
        low=low,
        high=given.number("--max_score", 999.0),
        ask=min(ask, low) if quantile >= 0.0 else ask,
        relative=given.switch("--relative_thresholds", False),
        least_particles=particles,
        # As RELION's window: one of the two, unless both are asked for by name.
        least_classes=-1
        if particles > 0 and "--select_min_nr_classes" not in given.values
        else classes,
    )
    return rules, note


def _decided(job: Job, given: Options, stack: str) -> tuple[dict[int, bool], str]:
    """Return a person's decisions that are of these averages, and a line on them."""
    name = given.text(OVERRIDES)
    path = job.project / name if name else job.folder / "overrides.star"
    if not name and not path.exists():
        return {}, ""
    overrides: Overrides = tables.read_overrides(star.load(path), str(path))
    decided = overrides.for_stack(stack)
    if decided or not overrides.kept:
        return decided, f"{len(decided)} classes are decided by a person"
    return {}, f"{len(overrides.kept)} decisions in {path.name} are of other averages: left out"


def _write(job: Job, ranked: Ranked, rules: Rules, chosen: Selection, note: str) -> None:
    """Write all files of the selection."""
    at, classified, scores = job.process, ranked.job, ranked.scored.scores
    found, classes = ranked.found, ranked.job.classes
    sub_images = ""
    if len(found):
        sub_images = f"{at}{SUB_IMAGES}"
        pixel_A = classes.diameter_A / found.images.shape[-1]
        content = mrc.encode(found.images, pixel_A, is_stack=True)
        atomic_write(job.folder / SUB_IMAGES, content, durable=False)
    model, data = f"{at}rank_model.star", f"{at}rank_data.star"
    about = {
        "Threshold": chosen.low,
        "ThresholdNote": note or "as given",
        "MaximumScore": rules.high,
        "AskScore": rules.low if rules.ask is None else rules.ask,
        "Weights": ranked.weights.source,
        "WeightsDigest": ranked.weights.digest,
        "RankerMode": ranked.weights.constants.mode,
        "ClassStack": ranked.stack,
    }
    flags, vector = chosen.flags(), ranked.scored.vector
    files = {
        "rank_model.star": tables.rank_model(classified, scores),
        "rank_data.star": classified.data,
        "rank_optimiser.star": tables.rank_optimiser(classified, model, data),
        "backup_selection.star": tables.backup_selection(chosen),
        "class_averages.star": tables.class_averages(classified, found, scores, chosen),
        "particles.star": tables.particles(classified, chosen),
        "features.star": tables.features_blocks(classes, found, flags, sub_images=sub_images),
        "features_normalized.star": tables.normalized_blocks(
            classes, found, vector, scores, sub_images
        ),
        "rank_decisions.star": tables.decisions(classes, scores, chosen, about),
    }
    for name, blocks in files.items():
        save_table(job.folder / name, blocks)


def _draw(job: Job, ranked: Ranked, chosen: Selection) -> None:
    """Draw the contact sheet; a picture never fails a job."""
    classes = ranked.job.classes
    try:
        picture = contact_sheet(
            classes.images,
            ranked.scored.scores,
            classes.sizes,
            classes.resolution_A,
            chosen.outcomes,
            chosen.reasons,
        )
        content = io.BytesIO()
        picture.save(content, "PNG")
        atomic_write(job.folder / SHEET, content.getvalue(), durable=False)
    except (OSError, ValueError) as error:
        job.warn(f"the classes could not be drawn: {error}")


def _tell(job: Job, ranked: Ranked, chosen: Selection) -> None:
    sizes, counts = ranked.job.classes.sizes, Counter(chosen.outcomes)
    total = float(sizes.sum())
    kept = float(sum(sizes[place] for place in chosen.order))
    job.say(
        f"{counts['keep']} of {len(sizes)} classes are kept, {kept:.0f} of {total:.0f} particles; "
        f"threshold {chosen.low:.3g}, weights {ranked.weights.source}"
    )
    asked = [place + 1 for place, outcome in enumerate(chosen.outcomes) if outcome == "ask"]
    if asked:
        share = 100.0 * sum(sizes[number - 1] for number in asked) / max(total, 1.0)
        job.say(
            f"{len(asked)} classes ({share:.0f} % of the particles) wait for a person: "
            f"{', '.join(map(str, asked))}; see {job.process}{SHEET}"
        )
    for line in chosen.warnings:
        job.warn(line)
    if not chosen.order:
        # RELION ends well here, and later jobs start with an empty table.
        raise Failed(f"nothing is selected; the files in {job.process} are written all the same")
