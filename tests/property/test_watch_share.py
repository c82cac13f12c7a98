"""A network share that lies about sizes, stalls, vanishes and returns: nothing lost, none doubled.

Source: acquisition.md section 11 (3, 4); reliability.md section 3 (F10 to F12).
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mdcatch.config import MdcatchConfig
from mdcatch.service import Status
from services.kit import events
from tests.epu_tree import FOLDER, Drive, MemoryTree, image_xml, plain, stem

# Patient: a writer may be away for as long as the draws make it.
CONFIG = MdcatchConfig(raw="/raw/session1", inotify=False, stuck_s=1e5, short_wait_s=1e5)
XML = image_xml(frames=4)
WHOLE = b"frames|4END"
EXPOSURES = 4


def name(number: int, suffix: str) -> str:
    """Return a path; exposures 0 and 3 have one stem, in two squares."""
    folder = FOLDER if number != 3 else FOLDER.replace("4590776", "4590777")
    return f"{folder}/{stem(number=number % 3)}{suffix}"


# How a movie comes to be whole: each writer is the list of what is on disk after its steps.
# Some states have a whole structure, and yet not all frames.
WRITERS: tuple[tuple[bytes | None, ...], ...] = (
    (b"", b"fr", b"frames", WHOLE),
    (b"f|2END", b"fra|3END", WHOLE),
    (b"HOLE|4END", b"HOLEfr|4END", WHOLE),
    (None, WHOLE),  # under a temporary name, then renamed
)


@dataclass
class World:
    """A share with its writers, and the daemon that watches it."""

    data: st.DataObject
    tree: MemoryTree = field(default_factory=MemoryTree)
    steps: dict[str, list[bytes | None]] = field(default_factory=dict)
    bodies: list[events.Body] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drive = Drive(CONFIG, self.tree)
        self.tree.put("notes.txt", b"a share is never empty")
        for number in range(EXPOSURES):
            writer = self.data.draw(st.sampled_from(WRITERS))
            self.steps[name(number, "_fractions.tiff")] = list(writer)
            self.steps[name(number, ".xml")] = [XML[:300], XML]

    def write(self, path: str) -> None:
        """Let a writer take its next step."""
        content = self.steps[path].pop(0)
        folder, _, base = path.rpartition("/")
        hidden = f"{folder}/.{base}.Ab12Cd"
        if content is None:
            self.tree.put(hidden, b"part")
        elif hidden in self.tree.files:
            self.tree.put(hidden, content)
            self.tree.move(hidden, path)
        else:
            self.tree.put(path, content)
        if not self.steps[path]:
            del self.steps[path]

    def run(self, seconds: float) -> None:
        """Let time pass; every event of a settled movie is checked at its moment."""
        for _ in range(round(seconds / 0.5)):
            for body in self.drive.step(0.5):
                self.bodies.append(body)
                if isinstance(body, events.MovieSettled):
                    assert self.tree.files[body.path] == WHOLE, "published before its last byte"

    def vanish(self) -> None:
        """Unmount the share for a while; it comes back with other inode numbers, first empty."""
        self.tree.gone = True
        self.run(self.data.draw(st.sampled_from([1.0, 100.0])))
        self.tree.gone, self.tree.inodes = False, self.tree.inodes + 1000
        self.tree.refresh()
        files, self.tree.files = self.tree.files, {}
        self.run(2.0)
        self.tree.files = files
        self.tree.refresh()

    def restart(self) -> None:
        """Stop the daemon and start it again, from its events."""
        self.drive = self.drive.restarted(CONFIG, self.tree)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_nothing_is_lost_or_doubled_on_a_share(data: st.DataObject):
    world = World(data)
    world.tree.is_stale = data.draw(st.booleans())
    happenings = ["write", "write", "write", "refresh", "stall", "vanish", "restart"]
    while world.steps:
        match data.draw(st.sampled_from(happenings)):
            case "write":
                world.write(data.draw(st.sampled_from(sorted(world.steps))))
            case "refresh":
                world.tree.refresh()
            case "stall":
                world.run(90.0)
            case "vanish":
                world.vanish()
            case "restart":
                world.restart()
        world.run(data.draw(st.sampled_from([0.5, 1.5, 4.0])))
    for _ in range(80):  # attributes are cached for a minute at most
        world.tree.refresh()
        world.run(10.0)
        if world.drive.state.count()[Status.SETTLED] == EXPOSURES:
            break
    settled = [b for b in world.bodies if isinstance(b, events.MovieSettled)]
    assert sorted(b.movie for b in settled) == sorted(name(n, "") for n in range(EXPOSURES))
    assert world.drive.codes() == {} and not world.drive.state.unavailable
    updates = {b.movie for b in world.bodies if isinstance(b, events.MovieUpdated)}
    for body in settled:
        own = body.metadata == "own"
        assert own or body.movie in updates, "what was inherited is made good"
        if own:
            assert plain(body).dose_e_A2 == 40.0
    assert not [b for b in world.bodies if isinstance(b, events.MovieChanged)]
