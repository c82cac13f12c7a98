"""`coldstream ranker`: a training set, training, evaluation, export, import and retraining."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from algorithms.ranker.types import RankerError
from services.kit.errors import Misuse
from services.ranker import overriding

if TYPE_CHECKING:
    from algorithms.ranker.learning.campaign import Told
    from algorithms.ranker.learning.recipe import Recipe

# What draws, and torch, are loaded by the command that needs them: half a second and more.

SetArgument = Annotated[
    Path, typer.Argument(help="Folder of the training set, one file for each job.")
]
RunOption = Annotated[Path, typer.Option("--run", help="Folder of the run: weights and figures.")]
RecipeOption = Annotated[
    str, typer.Option(help="ours, relion, or a JSON file with changes to relion.")
]
EVALUATION, PAGE, PICTURE = "evaluation.json", "evaluation.html", "evaluation.png"


def simulate(
    folder: SetArgument,
    jobs: Annotated[
        int | None, typer.Option(help="So many jobs (default: the whole plan).")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    part: Annotated[str | None, typer.Option(help="Only this part: train, test ...")] = None,
) -> int:
    """Make a training set: simulated particles, classified, labelled by what is known of them.

    Started again it makes the jobs that are still missing. Exit code 1 when one failed.
    """
    from algorithms.ranker.trainingset.make import make
    from algorithms.ranker.trainingset.plan import JOBS, default_plan

    plan = [one for one in default_plan(jobs or JOBS) if part in (None, one.part)]
    with _told():
        _, failed = make(folder, plan, workers=workers, tell=typer.echo)
    return 1 if failed else 0


def train(
    folder: SetArgument,
    run: RunOption,
    recipe: RecipeOption = "ours",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same weights.")] = None,
    ablations: Annotated[bool, typer.Option(help="Also images only and features only.")] = True,
    curve: Annotated[bool, typer.Option(help="Also with 25 and 50 % of the jobs.")] = True,
) -> int:
    """Train the network on a set; killed and started again, it goes on.

    Looks at the training and validation jobs only.
    """
    from algorithms.ranker.learning import campaign, data

    with _told(), _progress() as told:
        chosen = _recipe(recipe, epochs, seed)
        plan = campaign.Plan(recipe=chosen, ablations=ablations, curve=curve)
        jobs_of = data.load(folder)
        about = campaign.run(jobs_of, plan, run, told)
    typer.echo(
        f"{run / campaign.MODEL}: epoch {about['epoch']} of {chosen.epochs}, MSE "
        f"{about['validation']:.4f} on validation jobs, {about['cpu_s']:.0f} s of processor time"
    )
    for name, error in about.get("ablations", {}).items():
        typer.echo(f"  {name} only: {error:.4f}")
    for point in about.get("curve", []):
        typer.echo(f"  {point['jobs']} jobs: {point['validation']:.4f}")
    return 0


def evaluate(
    folder: SetArgument,
    run: RunOption,
    real: Annotated[
        Path | None, typer.Option(help="Folder of RELION projects with backup_selection.star.")
    ] = None,
) -> int:
    """Judge a run on test jobs: tables, figures, baselines and bars, as a page and as JSON.

    Exit code 1 when a bar is not met.
    """
    from algorithms.formats.atomic import atomic_write
    from algorithms.ranker.learning import archive, campaign, data, judging
    from algorithms.ranker.learning.page import page

    with _told():
        training = _json(run / campaign.TRAINING, "train first: `coldstream ranker train`")
        jobs_of = data.load(folder)
        for project, optimiser in archive.labelled_projects(real) if real else ():
            jobs_of["real"].append(archive.read_project(project, optimiser))
        result = judging.judged(jobs_of, run)
    html, image = page(result, training)
    atomic_write(run / PAGE, html)
    atomic_write(run / PICTURE, image)
    atomic_write(run / EVALUATION, json.dumps(_plain(result), indent=1))
    for name, bar in result["bars"].items():
        word = {True: "met", False: "NOT met", None: "not known"}[bar["met"]]
        typer.echo(f"{word:9} {name}: {bar['value']:.4f}, at most {bar['limit']:g}")
    typer.echo(str(run / PAGE))
    return 0 if judging.is_met(result["bars"]) else 1


def export(
    run: RunOption,
    out: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    page: Annotated[Path | None, typer.Option(help="Also the model's page, Markdown.")] = None,
) -> int:
    """Write the weights of an evaluated run with their card.

    They are "experimental" when a bar is not met.
    """
    from algorithms.formats.atomic import atomic_write
    from algorithms.ranker import weights
    from algorithms.ranker.learning import campaign
    from algorithms.ranker.learning.card import card, document

    with _told():
        training = _json(run / campaign.TRAINING, "train first: `coldstream ranker train`")
        result = _json(run / EVALUATION, "evaluate first: `coldstream ranker evaluate`")
        used = weights.read(run / campaign.MODEL)
        if used.digest != result["weights"]:
            raise Misuse(f"{run / EVALUATION} is of other weights: evaluate again")
        made = card(training, result)
        weights.write(out, used.arrays, used.constants, made)
        written = weights.read(out)
    if page is not None:
        atomic_write(page, document(made, written.digest, out.stat().st_size))
    typer.echo(f"{out}: {made['status']}, {out.stat().st_size} bytes, SHA-256 {written.digest}")
    return 0


def import_(
    tree: Annotated[Path, typer.Argument(help="Folder in the layout of EMPIAR-10812.")],
    folder: SetArgument,
    part: Annotated[
        str, typer.Option(help="Part of all jobs; auto: divided by name when there are 20 or more.")
    ] = "auto",
) -> int:
    """Read labelled 2D classifications of people into a set.

    Exit code 1 when a job could not be read; it is named.
    """
    from algorithms.ranker.learning.archive import read_archive
    from algorithms.ranker.trainingset import records

    if part not in ("auto", *records.PARTS):
        raise Misuse(f"--part {part}: it must be auto or one of {', '.join(records.PARTS)}")
    with _told():
        found = read_archive(tree, part, typer.echo)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{job.job}{records.SUFFIX}" for job in found.jobs]
        for path in paths:
            if path.exists():
                raise Misuse(f"{path} is there already: remove it, or give another folder")
        for path, job in zip(paths, found.jobs, strict=True):
            records.write(path, job)
    for name, reason in found.skipped.items():
        typer.echo(f"left out {name}: {reason}", err=True)
    classes = sum(len(job) for job in found.jobs)
    typer.echo(f"{len(found.jobs)} jobs, {classes} classes in {folder}")
    return 1 if found.skipped else 0


def retrain(
    folder: SetArgument,
    own: Annotated[Path, typer.Option(help="Folder of records of own decisions.")],
    out: Annotated[Path, typer.Option(help="Weights to write, if accepted.")],
    weights_file: Annotated[
        Path | None, typer.Option("--weights", help="Start from these (default: shipped).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: 8.")] = None,
) -> int:
    """Train weights further with a facility's own decisions among the jobs of a set.

    Written only if they are not worse on the test jobs that the weights were released with;
    otherwise refused with the figures, exit code 1.
    """
    from algorithms.formats.atomic import atomic_write
    from algorithms.ranker import weights
    from algorithms.ranker.learning import data, retraining
    from algorithms.ranker.trainingset import records

    with _told(), _progress() as told:
        base = weights.read(weights_file or weights.DEFAULT)
        recipe = retraining.RECIPE
        if epochs is not None:
            recipe = replace(recipe, epochs=epochs)
        mine = [records.read(path) for path in records.listing(own)]
        outcome = retraining.retrain(
            base, data.load(folder), mine, recipe=recipe,
            told=lambda *entry: told("retraining", *entry),
        )  # fmt: skip
    for name, figures in outcome.figures.items():
        typer.echo(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in figures.items()))
    if not outcome.accepted:
        typer.echo(f"refused, nothing written: {'; '.join(outcome.reasons)}", err=True)
        return 1
    atomic_write(out, outcome.content)
    typer.echo(f"accepted: {out}")
    return 0


COMMANDS = {
    "simulate": simulate,
    "train": train,
    "evaluate": evaluate,
    "export": export,
    "import": import_,
    "retrain": retrain,
    "show": overriding.show,
    "keep": overriding.keep,
    "drop": overriding.drop,
    "auto": overriding.auto,
}


@contextmanager
def _told() -> Iterator[None]:
    """Turn what is wrong with files into a message; and use one thread, for equal results."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    except RankerError as error:
        raise Misuse(str(error)) from error
    except OSError as error:
        raise Misuse(f"{error.filename}: {error.strerror}") from error
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _progress() -> "Iterator[Told]":
    """Show a bar for each network that is trained."""
    from rich.progress import Progress, TaskID

    with Progress() as bars:
        tasks: dict[str, TaskID] = {}

        def told(title: str, epoch: int, epochs: int, entry: dict[str, float]) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=epochs)
            errors = ", ".join(f"{name} {value:.4f}" for name, value in entry.items())
            bars.update(tasks[title], completed=epoch, description=f"{title}: {errors}")

        yield told


def _recipe(name: str, epochs: int | None, seed: int | None) -> "Recipe":
    from algorithms.ranker.learning.recipe import RECIPES, Recipe

    if name in RECIPES:
        chosen = RECIPES[name]
    else:
        values = _json(Path(name), f"--recipe must be {', '.join(RECIPES)} or a JSON file")
        try:
            chosen = Recipe.loads(values)
        except TypeError as error:
            raise Misuse(f"{name}: {error}") from error
    changes = {"epochs": epochs, "seed": seed}
    return replace(chosen, **{key: value for key, value in changes.items() if value is not None})


def _json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Misuse(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise Misuse(f"{path} holds no object; {remedy}")
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON can have it: what is not known is null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
