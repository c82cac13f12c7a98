"""The demonstration: a simulated microscope writes, everything else works on what it writes."""

import multiprocessing
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

import typer

from services import stories
from services.kit.errors import Misuse
from services.kit.ledger import STAGES, Ledger

# A demonstration does not wait a quarter of an hour before it calls a file incomplete.
STUCK_S = 8.0


def simulate(out: Path, recipe: str, seed: int, *, realtime: bool) -> None:
    """Write a simulated session, with a progress bar.

    Raises
    ------
    Misuse
        The recipe is unknown or wrong.
    """
    from rich.progress import Progress

    from algorithms.simulate.recipe import load_recipe
    from algorithms.simulate.session import simulate_session

    try:
        loaded = load_recipe(recipe)
    except (ValueError, OSError) as error:
        raise Misuse(f"recipe {recipe}: {error}") from error
    with Progress() as progress:
        task = progress.add_task("simulated exposures", total=loaded.n_exposures)
        simulate_session(
            loaded,
            out,
            seed=seed,
            realtime=realtime,
            progress=lambda done, total, _: progress.update(task, completed=done, total=total),
        )


# A short session has a few hundred particles, and nobody who is asked about classes.
SCHEMES = {
    "proc__class2d__nr_classes": "8",
    "proc__select_parts__other_args": "--auto_select Yes",
    "refine__min_nr_parts_3d": "300",
    "refine__min_growth": "2",
    "refine__inimodel3d__nr_iter": "50",
    "refine__refine3d__sampling": "15 degrees",
    "refine__refine3d__auto_faster": "Yes",
}


def run_demo(out: Path, recipe: str, seed: int, workers: int | None) -> int:
    """Run the demonstration; returns the exit code."""
    from services.report.session import make_report
    from services.screen import Screen, totals_line
    from services.setup import set_up
    from services.up import run_session

    raw, project = out / "Simulated_session", out / "project"
    raw.mkdir(parents=True, exist_ok=True)
    changes = {
        "workers": workers,
        "particle_diameter_A": 260.0,  # of the 30S subunit
        "settle_s": 1.0,
        "stuck_s": STUCK_S,
        "metadata_wait_s": STUCK_S,
    }
    layout, session = set_up(project, raw, changes, SCHEMES)
    typer.echo(f"a simulated microscope writes to {raw}; RELION project: {project}")
    microscope = multiprocessing.get_context("spawn").Process(
        target=_microscope, args=(raw, recipe, seed), daemon=True
    )
    microscope.start()
    try:
        ledger = run_session(layout, session, Screen(bars=False), Finished(microscope.is_alive))
    finally:
        if microscope.is_alive():
            microscope.terminate()
        microscope.join()
    for line in stories.status_lines(ledger):
        typer.echo(line)
    typer.echo(totals_line(ledger))
    report = make_report(layout, simulated=True)
    typer.echo(f"report: {report}")
    if sys.stdout.isatty():
        webbrowser.open(report.absolute().as_uri())
    return 0


class Finished:
    """Says when a live session is over: the microscope has stopped and nothing moves any more.

    Parameters
    ----------
    writing
        Says whether the microscope still writes.
    """

    def __init__(self, writing: Callable[[], bool]):
        self._writing = writing
        self._counts: object = None
        self._since = 0.0

    def __call__(self, ledger: Ledger) -> bool:
        """Return whether the ledger has stood still, with nothing under way, for long enough."""
        counts = [ledger.counts(stage) for stage in STAGES]
        now = time.monotonic()
        if self._writing() or not ledger.at_rest() or counts != self._counts:
            self._counts, self._since = counts, now
            return False
        return now - self._since > STUCK_S / 2


def _microscope(raw: Path, recipe: str, seed: int) -> None:
    from algorithms.simulate.recipe import load_recipe
    from algorithms.simulate.session import simulate_session

    simulate_session(load_recipe(recipe), raw, seed=seed, realtime=True)
