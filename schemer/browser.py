"""What RELION's file browser shows: empty files in `.Nodes`, and aliases as links to job folders.

Both can be made again from the pipeline at any time. Source: schemes.md sections 11 and 12.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from schemer import pipeline31
from schemer.errors import ProjectError, SchemeError
from schemer.jobs.labels import Generation, node_label
from schemer.pipeline import Pipeline

_FORBIDDEN = '*?()/"\\|#<>&%{}$'


def check_alias(name: str) -> str:
    """Return an alias as RELION writes it, blanks as underscores.

    Raises
    ------
    SchemeError
        RELION would refuse it, or could not read it again; says why.
    """
    rule = ""
    if len(name) < 2:
        rule = "has less than 2 characters"
    elif name.startswith("job"):
        rule = "starts with 'job', as job folders do"
    elif found := [mark for mark in name if mark in _FORBIDDEN]:
        rule = f"contains {found[0]}"
    elif not name.isprintable() or name in ("..", "None"):
        rule = "is no name for a folder"
    if rule:
        raise SchemeError(f"alias {name!r} {rule}; use letters, digits, - and _")
    return name.replace(" ", "_")


def link_alias(root: Path, process: str, alias: str) -> None:
    """Make the link of an alias folder, `MotionCorr/mine/`.

    Raises
    ------
    ProjectError
        Something else has this name.
    """
    link = root / alias.rstrip("/")
    target = f"../{process}"
    try:
        link.symlink_to(target)
    except FileExistsError:
        if not link.is_symlink() or os.readlink(link).rstrip("/") != target.rstrip("/"):
            raise ProjectError(f"{link} exists already; choose another alias") from None


def remove_links(root: Path, process: str, keep: str = "") -> list[str]:
    """Remove the alias links to a job except `keep`; return the alias folders that are gone."""
    gone = []
    folder = process.partition("/")[0]
    for path in (root / folder).iterdir():
        alias = f"{folder}/{path.name}/"
        if alias == keep or not path.is_symlink():
            continue
        if os.readlink(path).rstrip("/") == f"../{process}".rstrip("/"):
            path.unlink()
            gone.append(alias)
    return gone


def repair_links(root: Path, pipeline: Pipeline) -> None:
    """Make the links that aliases in the pipeline lack, as RELION does on reading.

    An alias outside the folder of its job's type, which makes RELION fail, gets none.
    """
    for process, alias in pipeline.aliases.items():
        folder = process.partition("/")[0]
        name = re.fullmatch(f"{re.escape(folder)}/([^/]+)/?", alias)
        if name is None or name[1].startswith("job"):
            continue
        if not os.path.lexists(root / folder / name[1]) and (root / process).is_dir():
            link_alias(root, process, alias)


def touch_nodes(
    root: Path, pipeline: Pipeline, generation: Generation, names: Iterable[str]
) -> None:
    """Make the marks of those files that exist, or that a scheduled job will make."""
    for name in names:
        _touch(_marks(root, pipeline, generation, name))


def remove_marks(
    root: Path, pipeline: Pipeline, generation: Generation, names: Iterable[str], shown: str
) -> None:
    """Remove the marks of files of one job that were made under the folder name `shown`."""
    for name in names:
        for shelf in _shelves(pipeline, generation, name):
            _unlink(root / ".Nodes" / shelf / (shown + name.split("/", 2)[-1]))


def remake(root: Path, pipeline: Pipeline, generation: Generation) -> None:
    """Bring `.Nodes` to what the pipeline says: marks that are missing are made, others removed."""
    marks = [mark for name in pipeline.nodes for mark in _marks(root, pipeline, generation, name)]
    _touch(marks)
    wanted = set(map(str, marks))
    for folder, _, files in os.walk(root / ".Nodes", topdown=False):
        for file in files:
            if (path := os.path.join(folder, file)) not in wanted:
                os.unlink(path)
        if folder != str(root / ".Nodes") and not os.listdir(folder):
            os.rmdir(folder)


def _marks(root: Path, pipeline: Pipeline, generation: Generation, name: str) -> list[Path]:
    """Return the marks that a file has to have now."""
    if _leaves_folder(name):
        return []
    owner = pipeline.maker(name)
    if not (root / name).exists() and (owner is None or pipeline.status(owner) != "Scheduled"):
        return []
    shown = name if owner is None else pipeline.alias(owner) + name[len(owner) :]
    return [root / ".Nodes" / shelf / shown for shelf in _shelves(pipeline, generation, name)]


def _shelves(pipeline: Pipeline, generation: Generation, name: str) -> list[str]:
    """Return the folders of `.Nodes` in which a file is shown, by its label."""
    label, depth = pipeline.node(name) or ("", 1)
    if generation == "3.1":
        return [str(pipeline31.node_number(label))]
    parts = node_label(label, generation).split(".")
    return list(dict.fromkeys((parts[0], ".".join(parts[: max(depth, 1)]))))


def _leaves_folder(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _touch(marks: Iterable[Path]) -> None:
    for mark in marks:
        if not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def _unlink(mark: Path) -> None:
    mark.unlink(missing_ok=True)
    if mark.parent.is_dir() and not any(mark.parent.iterdir()):
        mark.parent.rmdir()
