"""What the launcher knows and does, without a window.

The window gives it texts and clicks, calls `tick` now and then, and shows what it says. Disks are
only looked at by programs that `tick` starts and asks, so nothing here ever waits.
"""

from typing import Protocol

from mdcatch.launch import checks, survey
from mdcatch.launch.checks import Doubt, Surroundings
from mdcatch.launch.found import Found, Sessions, from_document
from mdcatch.launch.known import Known
from mdcatch.launch.look import Query
from mdcatch.launch.request import KIND, OpenRequest, to_arguments
from mdcatch.launch.survey import Survey
from mdcatch.launcher import form, rows
from mdcatch.launcher.looking import Lookup, News
from mdcatch.launcher.remote import Remote
from mdcatch.launcher.rows import Row
from services.kit.commands import Answer
from services.kit.errors import Fatal, Misuse
from services.kit.sitetables import Site

SESSIONS_S = 30.0  # between looks at all sessions
SURVEY_S = 15.0  # between looks at the chosen one: its first exposure may come
PAUSE_S = 0.4  # without a key, before the disks are looked at


class Surveyor(Protocol):
    """Looks up what a request needs."""

    def __call__(self, request: OpenRequest, /) -> Query:
        """Begin to look."""
        ...


class Model:
    """The launcher's state.

    Parameters
    ----------
    site
        The site's configuration.
    sessions
        Where the list of sessions comes from.
    look
        Looks up what a request needs.
    remote
        Sends the command.
    """

    def __init__(self, site: Site, sessions: Sessions, look: Surveyor, remote: Remote):
        self.site, self._look, self._remote = site, look, remote
        self.found: list[Found] = []
        self.sessions_problem = ""
        self.chosen: Found | None = None
        self.texts = form.initial(site)
        self.request: OpenRequest | None = None
        self.doubts: list[Doubt] = []
        self.known: Known | None = None
        self.line = remote.line()
        self.answers: list[Answer] = []
        self.message = ""
        self._seen: Survey | None = None
        self._list = Lookup(sessions.start, SESSIONS_S)
        self._list.ask()
        self._survey = Lookup(self._begin_survey, SURVEY_S)
        self._sent: set[str] = set()  # folders of sessions whose command has no answer yet
        # Session's folder -> project, of all that was opened by command on this host.
        self.opened: dict[str, str] = remote.opened()

    # ---- what a person does

    def choose(self, raw: str) -> None:
        """Choose a session by its folder; one that is not in the list is added to it."""
        raw = raw.rstrip("/") or "/"
        session = next((one for one in self.found if one.raw == raw), None)
        if session is None:
            session = Found(name=raw.rpartition("/")[2], raw=raw)
            self.found = [session, *self.found]
        if self.chosen is not None and session.raw == self.chosen.raw:
            return
        self.chosen, self._seen, self.known = session, None, None
        self.texts["project"] = form.project_of(self.site, session)
        self._survey.ask()
        self._judge()

    def put(self, field: str, text: str) -> None:
        """Fill a field in; what follows from it is there at once."""
        if self.texts.get(field) != text:
            self.texts[field] = text
            self._survey.ask(PAUSE_S)
            self._judge()

    def look_again(self) -> None:
        """Look at all sessions now."""
        self._list.ask()

    @property
    def can_go(self) -> bool:
        """Tell whether the session can be opened."""
        return not self.why_not_go

    @property
    def why_not_go(self) -> str:
        """Return why the session cannot be opened now, "" if it can."""
        if self.chosen is None:
            return "Choose a session."
        if self.chosen.raw in self._sent:
            return "Sent; the answer is awaited."
        wrong = checks.errors(self.doubts)
        if self._is_opened:
            return "Opened."
        if wrong or self.request is None:
            return f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} to correct."
        return "" if self._survey.is_current else "Looking at the disks ..."

    @property
    def _is_opened(self) -> bool:
        """Tell whether the chosen session was opened in just this project, which is made once."""
        if self.chosen is None or self.request is None or self.request.pipeline == "native":
            return False
        return self.opened.get(self.chosen.raw) == self.request.project

    def project_of(self, session: Found) -> str:
        """Return where a session is processed, "" if it is not."""
        return session.project or self.opened.get(session.raw, "")

    def go(self) -> None:
        """Send the command; it is safe on disk when this returns, or the message says why not."""
        if self.request is None or self.chosen is None or not self.can_go:
            return
        try:
            self._remote.send(KIND, to_arguments(self.request))
        except (Misuse, OSError) as error:
            self.message = f"Not sent: {error}"
            return
        self._sent.add(self.chosen.raw)
        self.line = self._remote.line()
        self.message = f"{self.chosen.name}: sent."

    # ---- what happens

    def tick(self, now: float) -> bool:
        """Take up what is new; return whether anything is.

        Parameters
        ----------
        now
            Monotonic time, s.
        """
        listed, surveyed = self._list.tick(now), self._survey.tick(now)
        if listed is not None:
            self._take_list(listed)
        if surveyed is not None:
            self._take_survey(surveyed)
        return self._tick_remote() or listed is not None or surveyed is not None

    def _tick_remote(self) -> bool:
        """Take up answers and the state of the connection; return whether they are news."""
        try:
            answers = self._remote.answers()
            if answers:
                self._take_answers(answers)
            line = self._remote.line()
        except (Fatal, Misuse, OSError) as error:
            before, self.message = self.message, f"Not readable: {error}"
            return self.message != before
        changed = line != self.line
        self.line = line
        return changed or bool(answers)

    def close(self) -> None:
        """End the programs that look; nothing that was sent is touched."""
        self._list.close()
        self._survey.close()

    def _begin_survey(self) -> Query:
        if self.chosen is None:
            raise Misuse("no session is chosen")
        return self._look(form.usable(self.texts, self.chosen, self.site))

    def _take_list(self, news: News) -> None:
        self.sessions_problem = news.problem
        if news.problem:
            return
        try:
            found = from_document(news.document)
        except Misuse as error:
            self.sessions_problem = str(error)
            return
        kept = self.chosen
        if kept is not None:
            now = next((one for one in found if one.raw == kept.raw), None)
            self.chosen = now or kept
            found = found if now is not None else [kept, *found]
        self.found = found

    def _take_survey(self, news: News) -> None:
        try:
            self._seen = survey.from_document(news.document) if not news.problem else None
            problem = news.problem
        except Misuse as error:
            self._seen, problem = None, str(error)
        self._seen = self._seen or Survey(problem=problem)
        self._judge()

    def _take_answers(self, answers: list[Answer]) -> None:
        self.opened = self._remote.opened()
        for answer in answers:
            self.answers.append(answer)
            self.message = answer.text if answer.done else f"Not done: {answer.text}"
            exchange = self._remote.mailbox.exchange(answer.id)
            if exchange is not None and exchange.command is not None:
                self._sent.discard(str(exchange.command.arguments.get("raw")))
        self._list.ask()
        self._survey.ask()

    # ---- what follows

    def _judge(self) -> None:
        """Compute everything that follows from the form and from what was found."""
        self.request, self.doubts = None, []
        if self.chosen is None:
            return
        try:
            self.request, wrong = form.to_request(self.texts, self.chosen, self.site)
            asked = self._asked()
            around = survey.around_of(self._seen) if self._seen is not None else Surroundings()
            if self._seen is not None and self._seen.problem:
                self.known = None
                wrong.append(Doubt("raw", "error", self._seen.problem))
            elif self._seen is not None:
                self.known = survey.known_of(self._seen, asked, self.site)
        except Misuse as error:
            self.doubts = [Doubt("raw", "error", str(error))]
            return
        if project := self.project_of(self.chosen):
            wrong.append(Doubt("session", "warning", f"the session is processed in {project}"))
        if self._is_opened:  # of course its project is there
            around = around._replace(project="")
        blamed = {doubt.field for doubt in wrong}
        found = checks.doubts(asked, self.known, around)
        self.doubts = wrong + [doubt for doubt in found if doubt.field not in blamed]

    def _asked(self) -> OpenRequest:
        """Return the request, without the fields that do not fit yet."""
        if self.request is not None:
            return self.request
        if self.chosen is None:
            raise Misuse("no session is chosen")
        return form.usable(self.texts, self.chosen, self.site)

    def doubts_of(self, field: str) -> list[Doubt]:
        """Return what is wrong or odd about a field, errors first."""
        found = [doubt for doubt in self.doubts if doubt.field == field]
        return sorted(found, key=lambda doubt: doubt.level)

    def other_doubts(self) -> list[Doubt]:
        """Return what is wrong or odd and belongs to no field of the form, errors first."""
        found = [doubt for doubt in self.doubts if doubt.field not in form.LABELS]
        return sorted(found, key=lambda doubt: doubt.level)

    def measured(self) -> list[Row]:
        """Return what the newest exposure says, and what is made of it."""
        return rows.measured(self.known) if self.known is not None else []

    def boxes(self) -> list[Row]:
        """Return the sizes that follow from the particle's diameter; empty while unknown."""
        if self.chosen is None or self.known is None:
            return []
        try:
            return rows.boxes(self._asked(), self.known)
        except Misuse:
            return []
