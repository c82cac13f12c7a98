"""Turns a folder into a project: session file, RELION project, Schemes, link to the movies."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from schemer import starfile, templates
from schemer.errors import SchemeError
from schemer.project import Project
from services.kit import session as sessions
from services.kit import site as sites
from services.kit.errors import Misuse
from services.kit.paths import Layout, refuse_network_file_system
from services.kit.session import Session
from services.kit.sitetables import Site


def set_up(
    project: Path,
    raw: Path | None,
    changes: Mapping[str, object],
    settings: Mapping[str, str],
    site: Site | None = None,
) -> tuple[Layout, Session]:
    """Make or reopen a project; return its layout and session.

    Parameters
    ----------
    project
        Root of the RELION project; made if missing.
    raw
        Folder to watch; None goes on with that of the last time.
    changes
        Session fields that the command line gives; None leaves what was there.
    settings
        Scheme settings in relion_it's form, `prep__motioncorr__bin_factor`.
    site
        The site's configuration; a session keeps that which it was opened with.

    Raises
    ------
    Misuse
        Something given cannot be used; the message says what to change.
    """
    layout = Layout(project)
    project.mkdir(parents=True, exist_ok=True)
    refuse_network_file_system(layout.project)
    layout.make()
    is_new = not layout.session_file.exists()
    session = _session(layout, raw, changes, settings, site or Site())
    _link_movies(layout.project, Path(session.raw))
    Project(layout.project).init()
    try:
        of_model = _of_the_model() if is_new and _ranks(layout.project) else {}
        settings = {**of_model, **sessions.scheme_settings(session)}
        for name in templates.SHIPPED:
            templates.install(layout.project, name, settings)
    except SchemeError as error:
        raise Misuse(str(error)) from error
    if site is not None and is_new:
        sites.freeze(layout, site)
    sessions.save(layout, session)
    return layout, session


def _session(
    layout: Layout,
    raw: Path | None,
    changes: Mapping[str, object],
    settings: Mapping[str, str],
    site: Site,
) -> Session:
    given = {name: value for name, value in changes.items() if value is not None}
    if raw is not None:
        given["raw"] = str(sessions.check_raw(raw, layout.project))
    if given.get("movies") is not None:
        movies = sessions.check_raw(Path(str(given["movies"])), layout.project, "--movies")
        given["movies"] = str(movies)
    if layout.session_file.exists():
        before = sessions.load(layout)
        if given.get("raw", before.raw) != before.raw:
            raise Misuse(
                f"the project {layout.project} belongs to {before.raw}, not to {given['raw']}: "
                "take another project folder"
            )
        layers = [("command line", given), ("session", msgspec.structs.asdict(before))]
    elif raw is None:
        raise Misuse(f"{layout.project} is a new project: say what to watch with --raw FOLDER")
    else:
        built_in = {"name": raw.absolute().name, "workers": sessions.default_workers()}
        of_site = sites.session_fields(site)
        layers = [("command line", given), ("site", of_site), ("built-in", built_in)]
    fields: dict[str, Any] = {key: value for key, (value, _) in sites.layered(*layers).items()}
    fields["settings"] = {**fields.get("settings", {}), **settings}
    try:
        return msgspec.convert(fields, Session)
    except msgspec.ValidationError as error:
        raise Misuse(f"session settings: {error}") from error


def _link_movies(project: Path, raw: Path) -> None:
    """Make `Movies` lead to the raw folder, as RELION users expect."""
    link = project / "Movies"
    if link.is_symlink():
        if os.readlink(link) != str(raw):
            raise Misuse(f"{link} leads to {os.readlink(link)}, not to {raw}: remove it first")
    elif link.exists():
        raise Misuse(f"{link} is in the way: the raw folder {raw} has to appear under this name")
    else:
        link.symlink_to(raw)


def _ranks(project: Path) -> bool:
    """Say whether the Scheme proc selects classes; one that is there already may not."""
    folder = project / "Schemes" / "proc"
    return not (folder / "scheme.star").exists() or "select_parts" in starfile.load(folder).jobs


def _of_the_model() -> dict[str, str]:
    """Return the settings that come with the class ranker's own weights, where there are such."""
    from algorithms.ranker import weights

    if not weights.DEFAULT.exists():
        return {}
    threshold = weights.read(weights.DEFAULT).threshold
    return {"proc__select_parts__rank_threshold": f"{threshold:.4g}"}
