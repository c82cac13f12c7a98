"""The ranker's work on a worker: scores, selection and files of one iteration.

All of it is written into the job folder of the selection, and repeating it writes the same.
Source: class-ranker.md sections 6 and 7.
"""

from pathlib import Path

import msgspec

from algorithms.formats import star
from algorithms.formats.star import StarError
from algorithms.ranker import inputs, tables, weights
from algorithms.ranker.selection import Overrides, select
from algorithms.ranker.types import RankerError
from services.kit.errors import Misuse
from services.kit.faults import crash_point
from services.kit.options import Options
from services.kit.paths import Layout, atomic_write
from services.kit.work import Output
from services.ranker import fence, files, labels
from services.ranker.choosing import ARGUMENTS, NoModel, rules_of, weights_path
from services.ranker.files import Choice, Place
from services.ranker.requests import RankRefusal, RankReply, RankRequest, RankResult
from services.ranker.scoring import Ranked, ranked


def rank(request: bytes, folder: Path, project: Path) -> Output:
    """Score an iteration and select from it; a `services.kit.work` task."""
    asked = msgspec.msgpack.decode(request, type=RankRequest)
    return Output(msgspec.msgpack.encode(_answer(Layout(project), asked)), {})


def _answer(layout: Layout, asked: RankRequest) -> RankReply:
    """Return the scores, or why there are none; that is told in the job folder, too."""
    place = Place(layout.project / asked.job, asked.job)
    try:
        if not place.folder.is_dir():
            return RankRefusal(reason="vanished", detail=f"somebody has deleted {asked.job}")
        with fence.alone(place.folder, asked.order):
            crash_point("rank-begun")
            reply = _scored(layout, asked, place)
            if isinstance(reply, RankRefusal):
                _tell(place, [], [f"ERROR: {reply.detail}"])
            crash_point("rank-written")
    except fence.Overtaken as error:
        return RankRefusal(reason="vanished", detail=str(error))
    return reply


def _scored(layout: Layout, asked: RankRequest, place: Place) -> RankReply:
    if not (layout.project / asked.optimiser).exists():
        return RankRefusal(reason="vanished", detail=f"{asked.optimiser} is not there any more")
    options = Options(f"{asked.job} (relion.select.class2dauto)", asked.options)
    try:
        given = Options(options.job, options.arguments(ARGUMENTS))
        used = weights.read(weights_path(layout.project, options, given))
        found = ranked(layout, inputs.read(layout.project, asked.optimiser), used)
        return _selected(layout, asked, place, options, given, found)
    except NoModel as error:
        return RankRefusal(reason="no_model", detail=str(error))
    except (RankerError, Misuse, StarError) as error:
        return RankRefusal(reason="unusable", detail=str(error))


def _selected(
    layout: Layout,
    asked: RankRequest,
    place: Place,
    options: Options,
    given: Options,
    found: Ranked,
) -> RankResult:
    """Select by scores that are there, and write everything."""
    scores, sizes = found.scored.scores, found.job.classes.sizes
    rules, note = rules_of(options, given, found.weights, scores, asked.session)
    decided = asked.overrides.get(found.stack, {})
    chosen = select(scores, sizes, rules, decided)
    choice = Choice(rules, chosen, note)
    particles = files.write(place, found, choice, options)
    crash_point("rank-half-written")
    trouble = files.draw(place, found, chosen)
    remarks = [line for line in (*found.remarks, *chosen.warnings, trouble) if line]
    _show_decided(place, found.stack, decided)
    if found.stack in asked.overrides:
        labels.save(layout, found, decided)
    said = [f"{asked.optimiser}:", *files.lines(place, found, choice)]
    _tell(place, said, remarks)
    return RankResult(
        stack=found.stack,
        scores=tuple(scores.tolist()),
        outcomes=tuple(chosen.outcomes),
        threshold=chosen.low,
        threshold_note=note,
        ask_threshold=rules.low if rules.ask is None else rules.ask,
        automatic=rules.automatic,
        mode=found.weights.constants.mode,
        weights=found.weights.source,
        weights_digest=found.weights.digest,
        total=found.job.classes.n_particles,
        particles=particles,
        overrides=len(decided),
        sheet=f"{place.process}{files.SHEET}",
        remarks=tuple(remarks),
        adopted=found.adopted,
    )


def _show_decided(place: Place, stack: str, decided: dict[int, bool]) -> None:
    """Write a person's decisions beside the selection, for the job done again by hand."""
    path = place.folder / "overrides.star"
    if decided:
        blocks = tables.overrides_blocks(Overrides(stack=stack, kept=decided))
        star.save(path, blocks, durable=False)
    else:
        path.unlink(missing_ok=True)


def _tell(place: Place, said: list[str], warned: list[str]) -> None:
    """Write what people read of a job, as it is now."""
    for name, lines in (("run.out", said), ("run.err", warned)):
        text = "".join(f" {line}\n" for line in lines)
        atomic_write(place.folder / name, text, durable=False)
