"""`schemer relion-it`: apply relion_it's option files to a project, and run prep and proc.

Source: schemes.md section 17.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from schemer import relionit
from schemer.cli.change import note, told
from schemer.cli.common import HERE, USAGE, JsonOption, ProjectOption, fail, print_json
from schemer.monitor.actions import Actions
from schemer.relionit import Plan
from schemer.relionit_rules import RULES, switch

FilesArgument = Annotated[
    list[Path] | None, typer.Argument(help="Option files (Python dictionary, JSON or TOML).")
]
CalculateOption = Annotated[
    str | None,
    typer.Option(
        "--calculate",
        metavar="RULES",
        help="Set boxes and coupled fields as its window does, with the box rules of "
        f"{', '.join(RULES)}.",
    ),
]
OnlyGivenOption = Annotated[
    bool, typer.Option("--only-given", help="Leave out relion_it's own defaults.")
]
OnlySaveOption = Annotated[bool, typer.Option("--only-save", help="Do not run anything.")]
SchemesOption = Annotated[
    Path | None,
    typer.Option(
        "--schemes",
        help="Folder with prep and proc, for a project without them; else that of "
        "RELION_SCRIPT_DIRECTORY, else ours.",
    ),
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", "-e", help="How jobs are done, see `schemer run`.")
]


def relion_it(
    files: FilesArgument = None,
    project: ProjectOption = HERE,
    calculate: CalculateOption = None,
    only_given: OnlyGivenOption = False,
    only_save: OnlySaveOption = False,
    schemes: SchemesOption = None,
    executor: ExecutorOption = "native",
    as_json: JsonOption = False,
) -> None:
    """Apply relion_it option files to prep and proc, then run them in the background."""
    if calculate is not None and calculate not in RULES:
        fail(USAGE, f"--calculate {calculate}: no such rules; there are {', '.join(RULES)}")
    if not project.is_dir():
        fail(USAGE, f"{project}: there is no such project folder; make it first")
    with told():
        plan = relionit.plan(
            project, files or [], schemes=schemes, rules=calculate, only_given=only_given
        )
        relionit.apply(project, plan)
        started = [] if only_save else _start(project, plan, executor)
    if as_json:
        print_json(_as_json(project, plan, started))
    else:
        _print(project, plan, started)


def _start(project: Path, plan: Plan, executor: str) -> list[str]:
    """Reset and run the Schemes that the options ask for; return their names."""
    names = [name for name in ("prep", "proc") if switch(plan.options, f"do_{name}")]
    for name in dict.fromkeys(["prep", *names]):
        actions = Actions(project, name, ("--executor", executor))
        actions.reset()
        if name in names:
            actions.restart()
    return names


def _as_json(project: Path, plan: Plan, started: list[str]) -> dict[str, Any]:
    return {
        "set": plan.done,
        "calculated": plan.calculated,
        "unknown": plan.unknown,
        "warnings": plan.warnings,
        "copied": plan.copied,
        "options_file": str(project / relionit.OPTIONS_FILE),
        "started": started,
    }


def _print(project: Path, plan: Plan, started: list[str]) -> None:
    for name in plan.copied:
        print(f"Schemes/{name}/ is new in the project")
    for key, value in plan.done.items():
        print(f"{key} = {value}{'  (calculated)' if key in plan.calculated else ''}")
    for key, hint in plan.unknown.items():
        note(f"unknown key {key!r}; {hint}")
    for warning in plan.warnings:
        note(warning)
    print(
        f"{len(plan.done)} options set, {len(plan.unknown)} unknown; all are in "
        f"{project / relionit.OPTIONS_FILE}"
    )
    for name in started:
        print(f"{name} runs in the background; see Schemes/{name}/run.out and `schemer watch`")
