"""A person's word on single classes: `coldstream ranker keep|drop|auto JOB CLASS ...`.

It holds for the averages that the person saw and for no others. The command is on disk before the
program ends; a session that does not run carries it out when it is started again, if the averages
are still the same. Source: class-ranker.md sections 6 and 7, users.md W23.
"""

import getpass
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from algorithms.formats import star
from algorithms.formats.star import StarError, Table
from services.kit import session as sessions
from services.kit.commands import Command, Mailbox, Reply, new_id
from services.kit.errors import Misuse
from services.kit.paths import Layout
from services.kit.rulings import Rulings
from services.ranker.service import Ruling
from services.ranker.state import RankerState

KIND = "class.override"
DECISIONS = "rank_decisions.star"

JobArgument = Annotated[str, typer.Argument(help="Selection job: Select/job008, or job008.")]
ClassesArgument = Annotated[list[int], typer.Argument(help="Numbers of classes, from 1.", min=1)]
ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="RELION project folder.", show_default=False)
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for the session's answer.")]


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a command; `stack` is the digest of the averages that were seen."""

    job: str
    number: int
    keep: bool | None
    stack: str
    reason: str = ""
    user: str = ""


def mailbox(layout: Layout) -> Mailbox:
    """Return where the commands for a project's ranker are put."""
    return Mailbox(layout.hidden / "classdecisions")


class Overriding(Rulings):
    """The source of the ranker: commands become stimuli, one after the other.

    Parameters
    ----------
    box
        Where the commands are.
    """

    def __init__(self, box: Mailbox):
        super().__init__(box, ruling_of, _stands, _said)


def ruling_of(command: Command, state: RankerState) -> Ruling:
    """Return what a command decides.

    Raises
    ------
    Misuse
        It is another command, or names no class of averages as they are now.
    """
    if command.kind != KIND:
        raise Misuse(f"not done: {command.kind} is no command of the ranker; {KIND} is")
    try:
        asked = msgspec.convert(command.arguments, _Asked)
    except msgspec.ValidationError as error:
        raise Misuse(f"not done: {error}") from None
    of = state.selection_of(asked.job)
    scored = None if of is None else state.ranked.get(of)
    if of is None or scored is None:
        raise Misuse(f"not done: no classes of {asked.job} have scores in this session")
    if scored.stack != asked.stack:
        raise Misuse(
            f"not done: the averages of {scored.job} are others since; look at {scored.sheet} again"
        )
    if not 1 <= asked.number <= len(scored.scores):
        raise Misuse(f"not done: {scored.job} has classes 1 to {len(scored.scores)}")
    return Ruling(
        of=of,
        job=scored.job,
        stack=asked.stack,
        number=asked.number,
        keep=asked.keep,
        reason=asked.reason[:1000],
        user=asked.user[:100],
        command=command.id,
    )


def _stands(ruling: Ruling, state: RankerState) -> bool:
    found = state.overrides.get(ruling.stack, {}).get(ruling.number)
    return found is not None and found.command == ruling.command


def _said(ruling: Ruling) -> Reply:
    words = {True: "kept", False: "dropped", None: "left to its score"}[ruling.keep]
    facts = {"job": ruling.job, "class": ruling.number, "keep": ruling.keep}
    return Reply(f"class {ruling.number} of {ruling.job} is {words}", facts)


# ---- the commands


def keep(
    job: JobArgument,
    classes: ClassesArgument,
    project: ProjectOption,
    reason: ReasonOption = "",
    wait: WaitOption = 10.0,
) -> int:
    """Select classes whatever their scores are; kept as labels for retraining."""
    return _decide(job, classes, project, True, reason, wait)


def drop(
    job: JobArgument,
    classes: ClassesArgument,
    project: ProjectOption,
    reason: ReasonOption = "",
    wait: WaitOption = 10.0,
) -> int:
    """Leave classes out whatever their scores are; kept as labels for retraining."""
    return _decide(job, classes, project, False, reason, wait)


def auto(
    job: JobArgument,
    classes: ClassesArgument,
    project: ProjectOption,
    reason: ReasonOption = "",
    wait: WaitOption = 10.0,
) -> int:
    """Take decisions back: the scores decide again."""
    return _decide(job, classes, project, None, reason, wait)


def show(job: JobArgument, project: ProjectOption) -> int:
    """List the classes of a selection: score, particles, resolution, outcome and why."""
    about, classes = _decisions(Layout(project), job)
    row = about.row(0)
    typer.echo(
        f"threshold {row['rlnColdstreamThreshold']} ({row['rlnColdstreamThresholdNote']}), "
        f"weights {row['rlnColdstreamWeights']}"
    )
    labels = (
        "rlnClassNumber rlnClassScore rlnParticleNr rlnEstimatedResolution rlnColdstreamOutcome "
        "rlnColdstreamReason"
    ).split()
    typer.echo("class    score  particles  resolution  outcome")
    rows = zip(*(classes.strings(label) for label in labels), strict=True)
    for number, score, size, resolution, outcome, why in sorted(rows, key=lambda r: -float(r[1])):
        score = "-" if float(score) < -900.0 else f"{float(score):.3f}"
        typer.echo(
            f"{number:>5s} {score:>8s} {float(size):10.0f} {float(resolution):9.1f} A  "
            f"{outcome} ({why})"
        )
    return 0


def _decide(
    job: str, classes: list[int], project: Path, is_kept: bool | None, reason: str, wait_s: float
) -> int:
    layout = Layout(project)
    sessions.load(layout)  # says what to do when there is no session
    about, known = _decisions(layout, job)
    wrong = [number for number in classes if number > len(known)]
    if wrong:
        raise Misuse(f"class {wrong[0]}: {job} has classes 1 to {len(known)}")
    box = mailbox(layout)
    is_done = True
    for number in dict.fromkeys(classes):
        command = Command(
            id=new_id(),
            kind=KIND,
            arguments={
                "job": job,
                "number": number,
                "keep": is_kept,
                "stack": about.row(0)["rlnColdstreamClassStack"],
                "reason": reason,
                "user": getpass.getuser(),
            },
            sent_at=time.time(),
        )
        is_done &= _sent(box, command, number, wait_s)
    return 0 if is_done else 1


def _sent(box: Mailbox, command: Command, number: int, wait_s: float) -> bool:
    """Send a command and print what came of it; return whether it is not refused."""
    box.send(command)
    if box.served_by() is None:
        typer.echo(f"class {number}: noted; it is carried out when the session runs again")
        return True
    answer = box.wait(command.id, wait_s)
    if answer is None:
        typer.echo(f"class {number}: noted; the session has not answered yet")
        return True
    typer.echo(answer.text, err=not answer.done)
    return answer.done


def _decisions(layout: Layout, job: str) -> tuple[Table, Table]:
    """Return what a selection rests on, and its classes.

    Raises
    ------
    Misuse
        There is no such job, or it has no scores.
    """
    name = job.strip("/")
    folder = layout.project / (name if "/" in name else f"Select/{name}")
    try:
        blocks = star.load(folder / DECISIONS)
        return blocks["class_selection"], blocks["class_decisions"]
    except (OSError, StarError, KeyError):
        raise Misuse(f"{folder} has no {DECISIONS}: name a job that the ranker has made") from None
