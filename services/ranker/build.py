"""Puts the ranker together."""

import hashlib

from services.kit.errors import Misuse
from services.kit.events import SelectionDue
from services.kit.host import Source
from services.kit.options import Options
from services.kit.paths import Layout
from services.kit.session import Session
from services.ranker.choosing import ARGUMENTS, weights_path
from services.ranker.overriding import Overriding, mailbox
from services.ranker.project import Jobs
from services.ranker.service import Ranker


def build(layout: Layout, session: Session) -> tuple[Ranker, Source]:
    """Return the ranker service of a project."""

    def weights_digest(asked: SelectionDue) -> str:
        options = Options(asked.label, asked.options)
        try:
            given = Options(options.job, options.arguments(ARGUMENTS))
            content = weights_path(layout.project, options, given).read_bytes()
        except (Misuse, OSError):
            return ""
        return hashlib.sha256(content).hexdigest()

    return Ranker(Jobs(layout.project), weights_digest), Overriding(mailbox(layout))
