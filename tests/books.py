"""The three journals of a project, written to by hand."""

from pathlib import Path

from services.kit.events import Body
from services.kit.journal import Draft, Journal
from services.kit.paths import Layout

START = 1_795_600_000.0


class Books:
    """Real journals that a test writes into, an event a second."""

    def __init__(self, project: Path):
        self.layout = Layout(project)
        self.layout.make()
        self._open: dict[str, Journal] = {}
        self._at = START

    def add(self, producer: str, *bodies: Body) -> None:
        """Commit events."""
        if producer not in self._open:
            path = self.layout.journal(producer)
            self._open[producer] = Journal(path, producer, "session1")
        drafts = [Draft(body, self._at + i) for i, body in enumerate(bodies, 1)]
        self._at += len(drafts)
        self._open[producer].commit(drafts)

    def close(self) -> None:
        """Close the journals."""
        for journal in self._open.values():
            journal.close()
        self._open.clear()
