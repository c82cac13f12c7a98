"""The folder of projects, and one project: can it hold journals, and do those still hold?"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from services.doctor.finding import Finding, Look, existing
from services.doctor.roots import answered
from services.kit import session as sessions
from services.kit.errors import Fatal, Misuse
from services.kit.journal import NotReady, Reader
from services.kit.paths import Layout, refuse_network_file_system

# A clock that is set back by less than this is being slewed.
_BACK_S = 1.0


def places(look: Look) -> Iterator[Finding]:
    """Yield whether projects can be made, or the project be written to, on a local disk."""
    subject, place = "defaults.projects", Path(look.site.defaults.projects)
    if look.project is not None:
        subject, place = "--project", look.project.absolute()
    if not answered(lambda: place.exists()):
        look.asleep.add(str(place))
        detail, remedy = f"{place} does not answer", "put projects on a local disk"
        yield Finding.of("error", "project", subject, detail, remedy)
        return
    if not place.is_dir():
        level = "error" if look.project is not None else "warning"
        remedy = "correct the path" if look.project is not None else f"mkdir -p {place}"
        yield Finding.of(level, "project", subject, f"{place} is not a folder", remedy)
        place = existing(place)
    else:
        yield _writable(subject, place)
    try:
        refuse_network_file_system(place, look.mounts)
    except Misuse as error:
        detail, _, remedy = str(error).rpartition("; ")
        yield Finding.of("error", "project", subject, detail, remedy)
    else:
        kind = look.file_system(place)[1]
        yield Finding.of("ok", "project", subject, f"{place} is on a local disk ({kind})")


def _writable(subject: str, place: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding.of("ok", "project", subject, f"{place} can be written to")
    except OSError as error:
        detail = f"{place} cannot be written to: {error.strerror}"
        remedy = "give it to the account of the services: chown, chmod u+w, mount -o remount,rw"
        return Finding.of("error", "project", subject, detail, remedy)


def project(look: Look) -> Iterator[Finding]:
    """Yield what is wrong with a session: its settings, its raw folder, its journals."""
    if look.project is None or str(look.project.absolute()) in look.asleep:
        return
    layout = Layout(look.project)
    try:
        session = sessions.load(layout)
    except Misuse as error:
        remedy = "start the session again with the right settings"
        yield Finding.of("error", "project", "session", str(error), remedy)
        return
    if Path(session.raw).is_dir():
        yield Finding.of("ok", "project", "session", f"{session.name}, raw {session.raw}")
    else:
        detail = f"its raw folder {session.raw} is not there"
        yield Finding.of("error", "project", "session", detail, "mount it; nothing is lost")
    for path in sorted(layout.journals.glob("*.sqlite")):
        yield from _journal(path)


def _journal(path: Path) -> Iterator[Finding]:
    """Check the whole chain of hashes, and that time went forward."""
    subject = f"journal {path.stem}"
    remedy = "keep the project as it is; docs/how-to/recover-after-a-crash.md"
    try:
        reader = Reader(path)
    except NotReady:
        yield Finding.of("ok", "project", subject, "is empty")
        return
    except Fatal as error:
        yield Finding.of("error", "project", subject, str(error), remedy)
        return
    try:
        broken = reader.first_broken()
        if broken is not None:
            detail = f"{path} is damaged at event {broken}"
            yield Finding.of("error", "project", subject, detail, remedy)
            return
        count, back = 0, 0.0
        last: float | None = None
        for event in reader.read():
            count += 1
            back = max(back, 0.0 if last is None else last - event.at)
            last = event.at
    except Fatal as error:
        yield Finding.of("error", "project", subject, str(error), remedy)
        return
    finally:
        reader.close()
    yield Finding.of("ok", "project", subject, f"{count} events, every hash fits")
    if back > _BACK_S:
        detail = f"the clock was set back by {back:.0f} s while events were written"
        yield Finding.of("warning", "clock", subject, detail, "let ntpd or chronyd slew it")
