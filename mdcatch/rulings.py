"""What is told of settled movies, of people's decisions, and of roots. Pure.

Source: acquisition.md sections 2.9 and 8 (9, 10).
"""

from collections.abc import Iterator

import msgspec

from mdcatch.ledger import SESSION, State, Status, refusal
from mdcatch.stimuli import Moved, Override, Replaced, RootLost, RootSeen
from services.kit import events
from services.kit.errors import Code
from services.kit.events import Body


def of_settled(state: State, stimulus: Replaced | Moved) -> list[Body]:
    """Return what is told of a settled movie that is another file, or lies elsewhere."""
    entry = state.exposures.get(stimulus.movie)
    match stimulus:
        case Replaced() if entry is not None and entry.status is Status.SETTLED:
            return [events.MovieChanged(movie=stimulus.movie, detail=stimulus.detail[:4000])]
        case Moved() if entry is not None and entry.path != stimulus.path:
            link, below = project_path(state, stimulus.path)
            moved = events.MovieMoved(
                movie=stimulus.movie, path=stimulus.path, link=link, below=below
            )
            return [moved]
    return []


def overridden(state: State, asked: Override) -> Iterator[Body]:
    """A person decides about an exposure; what they leave open stays as they decided before."""
    entry, before = state.exposures.get(asked.movie), state.overrides.get(asked.movie)
    if entry is None:
        return
    fields = msgspec.structs.asdict(asked)
    if before is not None:
        kept = msgspec.structs.asdict(before)
        fields = {k: kept[k] if value is None else value for k, value in fields.items()}
    body = events.MovieOverridden(**fields)
    if body == before:
        return
    yield body
    if entry.status is Status.SETTLED or bool(body.ignore) == (entry.code == Code.IGNORED):
        return
    if not body.ignore:
        again = "a person lets it in again"
        yield events.WaitStarted(subject=asked.movie, code=Code.SETTLING, detail=again)
        return
    if entry.status is Status.WAITING:
        yield events.WaitEnded(subject=asked.movie, code=entry.code)
    yield refusal(asked.movie, Code.IGNORED, "a person has decided that it is not published")


def added(state: State, seen: RootSeen) -> Body:
    """Name a root in the project: the raw folder is `Movies`, others follow in order."""
    link = "Movies" if seen.path == state.raw else f"Movies_{len(state.roots) + 1}"
    return events.RootAdded(link=link, **msgspec.structs.asdict(seen))


def lost(stimulus: RootLost) -> Body:
    """Return the event that tells of a root that cannot be seen."""
    return events.WaitStarted(
        subject=stimulus.root or SESSION, code=Code.UNAVAILABLE, detail=stimulus.detail[:4000]
    )


def project_path(state: State, path: str) -> tuple[str | None, str]:
    """Return the link of a movie's root, None for the raw folder, and the path below it."""
    if not path.startswith("/"):
        return None, path
    roots = [root for root in state.roots.values() if path.startswith(f"{root.path}/")]
    root = max(roots, key=lambda one: len(one.path), default=None)
    return (None, path) if root is None else (root.link, path[len(root.path) + 1 :])
