"""Automatic selection of 2D classes as a job: scores, what follows from them, and a picture.

Features are kept in the project: the job called again with another threshold only selects.
Source: class-ranker.md sections 6 and 7, schemes.md section 10.
"""

from algorithms.formats import star
from algorithms.ranker import inputs, tables, weights
from algorithms.ranker.selection import Overrides, select
from algorithms.ranker.types import RankerError
from services.jobs.job import Failed, Job
from services.kit.options import Options
from services.ranker import files
from services.ranker.choosing import ARGUMENTS, OVERRIDES, rules_of, weights_path
from services.ranker.files import Choice, Place
from services.ranker.scoring import Ranked, ranked


def class2dauto(job: Job) -> None:
    """Score the classes of a 2D classification and select particles by them."""
    name = job.need("fn_model")
    given = Options(job.options.job, job.extra_arguments(ARGUMENTS))
    try:
        used = weights.read(weights_path(job.project, job.options, given))
        scores = ranked(job.layout, inputs.read(job.project, name), used)
        _select(job, given, scores)
    except RankerError as error:
        raise Failed(str(error)) from error


def _select(job: Job, given: Options, scores: Ranked) -> None:
    for remark in scores.remarks:
        job.warn(remark)
    if scores.adopted:
        job.say("the features of these classes are there already")
    rules, note = rules_of(job.options, given, scores.weights, scores.scored.scores)
    decided = _decided(job, given, scores.stack)
    chosen = select(scores.scored.scores, scores.job.classes.sizes, rules, decided)
    place, choice = Place(job.folder, job.process), Choice(rules, chosen, note)
    files.write(place, scores, choice, job.options)
    trouble = files.draw(place, scores, chosen)
    for line in files.lines(place, scores, choice):
        job.say(line)
    for line in (*chosen.warnings, trouble):
        if line:
            job.warn(line)
    if not chosen.order:
        # RELION ends well here, and later jobs start with an empty table.
        raise Failed(f"nothing is selected; the files in {job.process} are written all the same")


def _decided(job: Job, given: Options, stack: str) -> dict[int, bool]:
    """Return a person's decisions that are of these averages, and tell of them."""
    name = given.text(OVERRIDES)
    path = job.project / name if name else job.folder / "overrides.star"
    if not name and not path.exists():
        return {}
    overrides: Overrides = tables.read_overrides(star.load(path), str(path))
    decided = overrides.for_stack(stack)
    if decided or not overrides.kept:
        job.say(f"{len(decided)} classes are decided by a person")
    else:
        job.say(f"{len(overrides.kept)} decisions in {path.name} are of other averages: left out")
    return decided
