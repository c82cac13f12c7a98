"""What stands on the screen while a session runs: log lines that scroll, progress that stays."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from services.kit.ledger import Classification, Ledger
from services.kit.refinement import Refinement

COLOURS = {"WARNING": "yellow", "ERROR": "red"}
_STAGES = {"mdcatch": "movies settled", "prep": "micrographs", "proc": "particles cut out"}


def totals_line(ledger: Ledger) -> str:
    """Return the ledger in one line."""
    mdcatch, prep, proc = (ledger.counts(stage) for stage in ("mdcatch", "prep", "proc"))
    refused = sum(c.refused for c in (mdcatch, prep, proc))
    pending = sum(c.pending for c in (mdcatch, prep, proc))
    chosen = ledger.selection
    selected = f", {chosen.particles} in {chosen.keep} selected classes" if chosen.keep else ""
    return (
        f"{mdcatch.seen} movies seen: {proc.done} done, {refused} refused, {pending} pending; "
        f"{prep.done} with CTF, {sum(ledger.particles.values())} particles{selected}"
    )


def _classes(now: Classification) -> str:
    """Return how far a classification is, for the end of a line."""
    if now.status != "running" or not now.iteration:
        return ""
    return f"; 2D iteration {now.iteration} of {max(now.iteration, now.iterations)}"


def _maps(now: Refinement) -> str:
    """Return how far a job of three dimensions is, for the end of a line."""
    if now.status != "running":
        return ""
    done = f" iteration {now.iteration}" if now.iteration else ""
    return f"; {now.node}{done}"


class Screen:
    """Shows lines and progress.

    Parameters
    ----------
    bars
        True: a bar for each stage, and only what went wrong as lines (a session on disk). False:
        every line, and one progress line (a live session).
    """

    def __init__(self, *, bars: bool):
        self._console = Console(highlight=False, soft_wrap=True)
        self._bars = bars
        columns = (
            (
                TextColumn("{task.description:18s}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            if bars
            else (TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
        )
        self._classes: TaskID | None = None
        self._maps: TaskID | None = None
        self._progress = Progress(*columns, console=self._console, refresh_per_second=4)
        names = list(_STAGES) if bars else ["all"]
        self._tasks = {
            name: self._progress.add_task(_STAGES.get(name, ""), total=None, note="starting")
            for name in names
        }

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def line(self, text: str) -> None:
        """Show a log line above the progress."""
        words = text.split(" ", 3)
        level = words[2] if len(words) > 2 else ""
        if self._bars and level == "INFO":
            return
        self._console.print(Text(text, style=COLOURS.get(level, "")))

    def say(self, text: str) -> None:
        """Show a sentence of our own."""
        self._console.print(Text(text))

    def show(self, ledger: Ledger) -> None:
        """Bring the progress in line with the ledger."""
        if not self._bars:
            note = f"{totals_line(ledger)}{_classes(ledger.classification)}"
            note += _maps(ledger.refinement)
            self._progress.update(self._tasks["all"], note=note)
            return
        total = 0
        for stage, task in self._tasks.items():
            counts = ledger.counts(stage)
            # A stage may still get all that the stage before it has not refused.
            total = counts.seen if stage == "mdcatch" else total
            note = f"{counts.refused} refused" if counts.refused else ""
            ended = counts.done + counts.refused
            self._progress.update(task, completed=ended, total=total or None, note=note)
            total -= counts.refused
        self._show_classes(ledger.classification)
        self._show_maps(ledger.refinement)

    def _show_classes(self, now: Classification) -> None:
        """Show a bar of the iterations, from the moment on when there is a classification."""
        if now.status == "none":
            return
        if self._classes is None:
            self._classes = self._progress.add_task("2D iterations", total=None, note="")
        done, total = now.iteration, max(now.iteration, now.iterations)
        note = f"{now.particles} particles, {now.resolution_A:.1f} A" if now.iteration else ""
        self._progress.update(self._classes, completed=done, total=total or None, note=note)

    def _show_maps(self, now: Refinement) -> None:
        """Show a bar of the iterations of the job of three dimensions, once there is one."""
        if now.status == "none":
            return
        if self._maps is None:
            self._maps = self._progress.add_task("3D iterations", total=None, note="")
        known = f", {now.resolution_A:.1f} A" if now.resolution_A is not None else ""
        note = f"{now.node} {now.status}, {now.particles} particles{known}"
        total = max(now.iteration, now.iterations) if now.iterations else None
        self._progress.update(self._maps, completed=now.iteration, total=total, note=note)
