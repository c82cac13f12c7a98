"""`coldstream micrograph`: a person's word on single micrographs.

The command is on disk before this program ends; a session that does not run carries it out when it
is started again. Source: preprocessing.md section 6.2.
"""

import getpass
import time
from pathlib import Path
from typing import Annotated

import typer

from services.kit import session as sessions
from services.kit.commands import Command, new_id
from services.kit.errors import Misuse
from services.kit.ledger import Ledger
from services.kit.paths import Layout
from services.proc.decisions import KIND, mailbox

NameArgument = Annotated[
    str, typer.Argument(help="Micrograph: its movie's name, or a part that no other has.")
]
ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="RELION project folder.", show_default=False)
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for the session's answer.")]


def keep(
    name: NameArgument, project: ProjectOption, reason: ReasonOption = "", wait: WaitOption = 10.0
) -> int:
    """Select a micrograph whatever its values are."""
    return _decide(name, project, True, reason, wait)


def reject(
    name: NameArgument, project: ProjectOption, reason: ReasonOption = "", wait: WaitOption = 10.0
) -> int:
    """Take a micrograph and its particles out of all tables; nothing is deleted."""
    return _decide(name, project, False, reason, wait)


def auto(
    name: NameArgument, project: ProjectOption, reason: ReasonOption = "", wait: WaitOption = 10.0
) -> int:
    """Take a decision back: the selection decides again."""
    return _decide(name, project, None, reason, wait)


def _decide(name: str, project: Path, is_kept: bool | None, reason: str, wait_s: float) -> int:
    layout = Layout(project)
    sessions.load(layout)  # says what to do when there is no session
    if not name.strip():
        raise Misuse("the name of the micrograph is empty")
    box = mailbox(layout)
    if box.served_by() is None:
        _check(layout, name)  # nobody will, until the session is started again
    command = Command(
        id=new_id(),
        kind=KIND,
        arguments={"name": name, "keep": is_kept, "reason": reason, "user": getpass.getuser()},
        sent_at=time.time(),
    )
    box.send(command)
    if box.served_by() is None:
        typer.echo("noted; it is carried out when the session runs again")
        return 0
    answer = box.wait(command.id, wait_s)
    if answer is None:
        typer.echo("noted; the session has not answered yet, and will carry it out")
        return 0
    typer.echo(answer.text, err=not answer.done)
    return 0 if answer.done else 1


def _check(layout: Layout, name: str) -> None:
    ledger = Ledger(layout)
    ledger.update()
    found = [movie for movie in ledger.find(name) if movie in ledger.entries["proc"]]
    exact = [movie for movie in found if movie == name]
    if len(exact or found) != 1:
        some = ", ".join(found[:5]) or "none"
        raise Misuse(f"{name!r} must name one micrograph that has a CTF; these match: {some}")
