"""The fields of the launcher as a person fills them in, and the request that they come to. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mdcatch.launch.checks import Doubt
from mdcatch.launch.found import Found
from mdcatch.launch.request import OpenRequest, from_arguments, site_defaults
from services.kit.errors import Misuse
from services.kit.sitetables import Site


class Entry(NamedTuple):
    """A field of the form: of the request, what it is called, its unit, and what it is for."""

    field: str
    label: str
    unit: str = ""
    hint: str = ""
    kind: str = "text"  # text, number, path, folder, switch


ENTRIES = (
    Entry("particle_diameter_A", "Particle diameter", "A", "Longest diameter.", "number"),
    Entry("helical", "Filaments", "", "The diameter is a filament's width.", "switch"),
    Entry("picker", "Picker"),
    Entry("picker_model", "Picker's model", "", "Trained model; empty for none.", "path"),
    Entry("symmetry", "Symmetry", "", "Point group: C1, D2, T, O or I."),
    Entry("pipeline", "Pipeline"),
    Entry("project", "Project folder", "", "Is made; it has to be new.", "folder"),
    Entry("pixel_size_A", "Pixel size", "A", "Of the movies; empty: as measured.", "number"),
    Entry("dose_e_A2", "Dose of a movie", "e/A2", "Empty: as measured.", "number"),
    Entry("gain", "Gain reference", "", "Empty: as found.", "path"),
)


class Choice(NamedTuple):
    """One of the ways to process: its title, and the fields of the request it stands for."""

    title: str
    arguments: dict[str, str]


PIPELINES = {
    "native": Choice("coldstream", {"pipeline": "native"}),
    "relion": Choice("RELION, run by relion_schemer", {"pipeline": "relion"}),
    "schemer": Choice(
        "RELION, run by coldstream's schemer",
        {"pipeline": "relion", "runner": "schemer", "executor": "native,relion"},
    ),
    "scipion": Choice("Scipion", {"pipeline": "scipion"}),
}
LABELS = {entry.field: entry.label for entry in ENTRIES}
NUMBERS = tuple(entry.field for entry in ENTRIES if entry.kind == "number")


def initial(site: Site) -> dict[str, str]:
    """Return the form's texts for a new session."""
    found = dict.fromkeys(LABELS, "")
    found |= {"helical": "no", "picker": "log", "symmetry": "C1", "pipeline": "native"}
    for field, value in site_defaults(site).items():
        if field in found:
            found[field] = f"{value:g}" if isinstance(value, float) else str(value)
    return found


def project_of(site: Site, session: Found) -> str:
    """Return the project folder that is proposed for a session."""
    return f"{site.defaults.projects}/{session.name}"


def to_request(
    texts: Mapping[str, str], session: Found, site: Site
) -> tuple[OpenRequest | None, list[Doubt]]:
    """Return the request that a form comes to, or None and what is wrong with its fields.

    Parameters
    ----------
    texts
        By field; empty is not given.
    session
        The one that was chosen.
    site
        Sets what the form does not have.
    """
    arguments, wrong = _arguments(texts, session, site)
    try:
        request = from_arguments(arguments)
    except Misuse:
        return None, wrong + _blame(arguments)
    return (None, wrong) if wrong else (request, [])


def usable(texts: Mapping[str, str], session: Found, site: Site) -> OpenRequest:
    """Return the request of a form without the fields that do not fit yet.

    Raises
    ------
    Misuse
        The session itself cannot be asked for.
    """
    arguments, _ = _arguments(texts, session, site)
    for doubt in _blame(arguments):
        arguments.pop(doubt.field, None)
    arguments.setdefault("project", f"{session.raw}_project")
    return from_arguments(arguments)


def _arguments(
    texts: Mapping[str, str], session: Found, site: Site
) -> tuple[dict[str, Any], list[Doubt]]:
    arguments: dict[str, Any] = site_defaults(site) | {"raw": session.raw}
    if session.movies and session.movies != session.raw:
        arguments["movies"] = session.movies
    wrong = []
    for field, text in texts.items():
        text = text.strip()
        if field == "helical":
            arguments[field] = text == "yes"
        elif not text:
            arguments.pop(field, None)
        elif field in NUMBERS:
            try:
                arguments[field] = float(text.replace(",", "."))
            except ValueError:
                arguments.pop(field, None)
                wrong.append(Doubt(field, "error", f"{text!r} is not a number"))
        elif field == "pipeline":
            arguments |= PIPELINES[text].arguments
        else:
            arguments[field] = text
    if "project" not in arguments:
        wrong.append(Doubt("project", "error", "give the folder of the project to make"))
    return arguments, wrong


def _blame(arguments: dict[str, Any]) -> list[Doubt]:
    """Return which fields do not fit, each judged alone."""
    minimal = {"raw": "/r", "project": "/p"}
    found = []
    for field, value in arguments.items():
        try:
            from_arguments(minimal | {field: value})
        except Misuse as error:
            found.append(Doubt(field, "error", _plain(field, value, str(error))))
    return found


_WANTED = {
    "particle_diameter_A": "between 10 and 9999",
    "pixel_size_A": "between 0.05 and 100",
    "dose_e_A2": "between 0 and 10000",
    "symmetry": "a point group such as C1, D2, T, O or I",
    "project": "an absolute path without ..",
    "picker_model": "an absolute path without ..",
    "gain": "an absolute path without ..",
}


def _plain(field: str, value: Any, said: str) -> str:
    """Say in a person's words what does not fit."""
    wanted = _WANTED.get(field)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{shown} does not fit: it has to be {wanted}" if wanted else said
