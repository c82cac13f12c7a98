"""The options of every job type, with RELION 5.0.1's kinds, defaults and choices.

They are rows of `options.tsv`: `*` marks the options of every type; the column `tomo` says which
of the two forms of a type has the option (yes, no, or both where it is empty); `detail` holds the
choices of a radio option, separated by `|`, or the node label of an input file.
Source: RELION 5.0.1's own default files; schemes.md section 9.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from msgspec import Struct

Options = Mapping[str, str]


class Option(Struct, frozen=True):
    """One job option.

    `kind` is boolean (Yes or No), slider (a number), radio (one of `choices`), filename,
    inputnode (a file that RELION's pipeline records, under `node`) or any (free text).
    """

    kind: str
    default: str
    choices: tuple[str, ...] = ()
    node: str = ""


def options_of(label: str, *, tomo: bool = False) -> dict[str, Option]:
    """Return the options of a job type, sorted by name.

    Parameters
    ----------
    label
        Base label, `relion.motioncorr`.
    tomo
        For the tomography form of a type that has both (`rlnJobIsTomo`).
    """
    table = _table()
    rows = [*table["*"], *table[label]]
    return {name: option for name, form, option in sorted(rows) if form != ("no", "yes")[not tomo]}


def yes(options: Options, name: str) -> bool:
    """Return whether a boolean option is on; RELION takes anything but `Yes` as no."""
    return options.get(name) == "Yes"


@cache
def _table() -> dict[str, list[tuple[str, str, Option]]]:
    """Return label -> (option, form, what is known of it)."""
    table: dict[str, list[tuple[str, str, Option]]] = {}
    text = files("schemer.jobs").joinpath("options.tsv").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        label, form, name, kind, default, detail = line.split("\t")
        choices = tuple(detail.split("|")) if kind == "radio" else ()
        node = "" if kind == "radio" else detail
        table.setdefault(label, []).append((name, form, Option(kind, default, choices, node)))
    return table
