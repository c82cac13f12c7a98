"""Which sessions a site opens by itself, when nobody is there to do it. Pure.

A session is opened when it grows between two looks: so the old ones on a disk stay as they are,
and no clock is compared with another. The command's id follows from the session, and an id is
never done twice: a session is opened once, whatever happens to the daemon, and one that a person
has opened, or that was refused, is left alone. The record is that of the commands.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from mdcatch.launch.found import Found
from mdcatch.launch.request import KIND, OpenRequest, from_arguments, site_defaults
from services.kit.commands import Command, Exchange
from services.kit.errors import Misuse
from services.kit.sitetables import Site

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.+-]+")
_LONGEST = 100


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site opens by itself; everything else about a session is the site's [defaults]."""

    # A session with fewer exposures may be a test of the operator.
    at_least: Annotated[int, Meta(ge=1, le=1_000_000)] = 3
    only: tuple[str, ...] = ("*",)  # names of sessions, with wildcards
    never: tuple[str, ...] = ()
    at_most: Annotated[int, Meta(ge=1, le=100)] = 2  # opened in one look


class Plan(NamedTuple):
    """A session to open: the command's id and arguments, or why it cannot be asked for."""

    command_id: str
    session: Found
    request: OpenRequest | None
    problem: str = ""


def plans(
    policy: Policy,
    site: Site,
    now: Iterable[Found],
    before: Mapping[str, int],
    known: Collection[str],
    taken: Collection[str] = (),
) -> list[Plan]:
    """Return what is to be opened now.

    Parameters
    ----------
    policy, site
        What to open, and with which defaults.
    now
        The sessions that were found.
    before
        Identity -> exposures at the first look of all; a session that is not in it is new.
    known
        Ids of all commands, and folders of the sessions that were opened or refused.
    taken
        Project folders that are there.
    """
    found: list[Plan] = []
    names = set(taken)
    for session in sorted(now, key=lambda one: (one.started, one.name)):
        if len(found) == policy.at_most or {command_id(session), session.raw} & set(known):
            continue
        if not _wanted(policy, session) or not _grows(session, before):
            continue
        project = _project(site, session, names)
        names.add(project)
        found.append(_plan(site, session, project))
    return found


def command_id(session: Found) -> str:
    """Return the id under which a session is opened by itself: the same for ever."""
    return f"auto-{hashlib.sha256(session.identity.encode()).hexdigest()[:32]}"


def known_sessions(
    exchanges: Iterable[Exchange], waiting: Iterable[Command | None] = ()
) -> set[str]:
    """Return the ids of all commands, and the folders of the sessions they were about.

    Parameters
    ----------
    exchanges
        Answered commands; one of a person that was refused leaves its session free.
    waiting
        Commands without an answer.
    """
    answered = list(exchanges)
    kept = [
        one.command
        for one in answered
        if one.answer.done or (one.command is not None and _is_automatic(one.command.arguments))
    ]
    folders = {
        str(command.arguments.get("raw"))
        for command in (*kept, *waiting)
        if command is not None and command.kind == KIND
    }
    return folders | {one.answer.id for one in answered}


def _is_automatic(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("origin") == "automatic"


def _wanted(policy: Policy, session: Found) -> bool:
    def fits(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(session.name, pattern) for pattern in patterns)

    is_large = session.exposures >= policy.at_least
    return is_large and not session.project and fits(policy.only) and not fits(policy.never)


def _grows(session: Found, before: Mapping[str, int]) -> bool:
    """Tell whether exposures have come since the first look, at which a new session had none."""
    return session.exposures > before.get(session.identity, 0)


def _project(site: Site, session: Found, taken: Collection[str]) -> str:
    name = _NOT_IN_A_NAME.sub("_", session.name).strip("._-")[:_LONGEST] or "session"
    path = f"{site.defaults.projects}/{name}"
    return path if path not in taken else f"{path}_{command_id(session)[5:13]}"


def _plan(site: Site, session: Found, project: str) -> Plan:
    arguments = site_defaults(site) | {
        "raw": session.raw,
        "project": project,
        "origin": "automatic",
    }
    if session.movies and session.movies != session.raw:
        arguments["movies"] = session.movies
    try:
        return Plan(command_id(session), session, from_arguments(arguments))
    except Misuse as error:
        return Plan(command_id(session), session, None, str(error))
