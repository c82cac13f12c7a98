"""The files of a selection in its job folder, as RELION reads them, and the picture.

Source: class-ranker.md section 6.
"""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.formats import mrc
from algorithms.ranker import poststeps, tables
from algorithms.ranker.selection import Rules, Selection
from algorithms.ranker.tables import Blocks
from services.kit.options import Options
from services.kit.paths import atomic_write
from services.kit.tables import save_table
from services.ranker.scoring import Ranked
from services.report.ranking import contact_sheet

SHEET = "rank_classes.png"
SUB_IMAGES = "rank_images.mrcs"
RECENTRED = "class_averages.mrcs"


@dataclass(frozen=True)
class Place:
    """Where the files go."""

    folder: Path
    process: str  # the folder below the project, `Select/job008/`


@dataclass(frozen=True)
class Choice:
    """What was chosen, by which rules, and where their threshold comes from."""

    rules: Rules
    chosen: Selection
    note: str


def write(place: Place, ranked: Ranked, choice: Choice, options: Options) -> int:
    """Write all files of a selection; return the number of its particles.

    Raises
    ------
    RankerError
        The particles have no classes, or cannot be regrouped as the options want.
    """
    at, classified, scores = place.process, ranked.job, ranked.scored.scores
    chosen, found, classes = choice.chosen, ranked.found, ranked.job.classes
    particles = tables.particles(classified, chosen)
    n_particles = len(particles["particles"])
    if options.switch("do_regroup", False) and n_particles:
        n_groups = options.whole("nr_groups", 1, 1)
        particles["particles"] = poststeps.regrouped(particles["particles"], n_groups)
    averages = tables.class_averages(classified, found, scores, chosen)
    if options.switch("do_recenter", False) and chosen.order:
        averages = _recentred(place, ranked, chosen, averages)
    model, data, sub_images = f"{at}rank_model.star", f"{at}rank_data.star", ""
    if len(found):
        sub_images = f"{at}{SUB_IMAGES}"
        pixel_A = classes.diameter_A / found.images.shape[-1]
        content = mrc.encode(found.images, pixel_A, is_stack=True)
        atomic_write(place.folder / SUB_IMAGES, content, durable=False)
    flags, vector = chosen.flags(), ranked.scored.vector
    files = {
        "rank_model.star": tables.rank_model(classified, scores),
        "rank_data.star": classified.data,
        "rank_optimiser.star": tables.rank_optimiser(classified, model, data),
        "backup_selection.star": tables.backup_selection(chosen),
        "class_averages.star": averages,
        "particles.star": particles,
        "features.star": tables.features_blocks(classes, found, flags, sub_images=sub_images),
        "features_normalized.star": tables.normalized_blocks(
            classes, found, vector, scores, sub_images
        ),
        "rank_decisions.star": tables.decisions(classes, scores, chosen, _about(ranked, choice)),
    }
    for name, blocks in files.items():
        save_table(place.folder / name, blocks)
    return n_particles


def _about(ranked: Ranked, choice: Choice) -> dict[str, object]:
    rules = choice.rules
    return {
        "Optimiser": ranked.job.optimiser,
        "Threshold": choice.chosen.low,
        "ThresholdNote": choice.note or "as given",
        "MaximumScore": rules.high,
        "AskScore": rules.low if rules.ask is None else rules.ask,
        "Automatic": int(rules.automatic),
        "Weights": ranked.weights.source,
        "WeightsDigest": ranked.weights.digest,
        "RankerMode": ranked.weights.constants.mode,
        "ClassStack": ranked.stack,
    }


def _recentred(place: Place, ranked: Ranked, chosen: Selection, averages: Blocks) -> Blocks:
    """Write the selected averages with their mass in the middle; return the table for them."""
    classes = ranked.job.classes
    images = poststeps.recentred(classes.images[np.array(chosen.order)])
    content = mrc.encode(images, classes.pixel_A, is_stack=True)
    atomic_write(place.folder / RECENTRED, content, durable=False)
    columns = dict(averages[""].columns)
    columns["rlnReferenceImage"] = [
        f"{number:06d}@{place.process}{RECENTRED}" for number in range(1, len(images) + 1)
    ]
    return {"": type(averages[""])(columns)}


def draw(place: Place, ranked: Ranked, chosen: Selection) -> str:
    """Draw the contact sheet; return what went wrong: a picture never fails a selection."""
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
        atomic_write(place.folder / SHEET, content.getvalue(), durable=False)
    except (OSError, ValueError) as error:
        return f"the classes could not be drawn: {error}"
    return ""


def lines(place: Place, ranked: Ranked, choice: Choice) -> list[str]:
    """Return what people are told of a selection."""
    chosen = choice.chosen
    sizes, counts = ranked.job.classes.sizes, Counter(chosen.outcomes)
    total = float(sizes.sum())
    kept = float(sizes[chosen.order].sum())
    said = [choice.note] if choice.note else []
    said.append(
        f"{counts['keep']} of {len(sizes)} classes are kept, {kept:.0f} of {total:.0f} particles; "
        f"threshold {chosen.low:.3g}, weights {ranked.weights.source}"
    )
    asked = [number for number, outcome in enumerate(chosen.outcomes, 1) if outcome == "ask"]
    if asked:
        share = 100.0 * sum(sizes[number - 1] for number in asked) / max(total, 1.0)
        said.append(
            f"{len(asked)} classes ({share:.0f} % of the particles) wait for a person: "
            f"{', '.join(map(str, asked))}; see {place.process}{SHEET}"
        )
    return said
